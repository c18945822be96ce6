"""The arena of the simulator: one seeded world on a virtual clock, in this process.

Everything that an experiment may do to a world (`chaos.arena.port.Arena`) on `harness.simulation`: the same managers,
database code, VMMS, resource host and drivers as on containers, against simulated voters, network, engine and
processes. One seed gives one history, to the byte; its times are simulated, from zero.
"""

import contextlib
import sys
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, get_args

from chaos.arena.cluster_view import cluster_seen
from chaos.arena.interrupt import Interrupt
from chaos.arena.port import (
    Command,
    CrashVm,
    Direction,
    Effect,
    EngineSeen,
    HangNode,
    IsolateNode,
    JoinNetwork,
    NetworkSeen,
    PowerOff,
    PowerOn,
    ResetNode,
    ResumeEngine,
    StallEngine,
    ThawNode,
)
from chaos.arena.process_effects import (
    DiskSeen,
    FillVoterDisk,
    FreeVoterDisk,
    Freezing,
    HangVm,
    KillVm,
    NodeInside,
    NodeProgram,
    ProcessEffect,
    ProgramSeen,
    ProgramSignal,
    SignalProgram,
    StartVm,
    StopVm,
    ThawVm,
    WipeVoter,
)
from chaos.arena.simulation.observers import (
    SimulatedClient,
    SimulatedJournals,
    engine_record,
    invariant_record,
    log_record,
    role_of,
)
from chaos.arena.simulation.requests import ask_cluster
from chaos.history.guest_journal import vms_without_journal
from chaos.history.records import (
    CleanUp,
    ClusterSeen,
    ContainerSeen,
    GuestJournal,
    History,
    InvariantWatched,
    Reconciled,
    Record,
)
from harness.errors import HarnessError, NotOnline, WaitTimeout
from harness.model import labels as label
from harness.model.topology import Topology
from harness.ports import Runtime
from harness.rig.cluster.status import Power, RigStatus, merge
from harness.simulation.kernel.fifo_channel import Frames
from harness.simulation.kernel.runtime import SimulatedRuntime, SimulatedTask, VirtualClock
from harness.simulation.twins.container import SimulatedContainer
from harness.simulation.twins.process import Process
from harness.simulation.world.composition import Composition
from harness.simulation.world.node import SimulatedNode
from harness.simulation.world.world import World

__all__ = ["SimulatedArena", "SimulatedEnvironment"]

UP_LIMIT_US = 120_000_000
LOOK_INTERVAL_US = 100_000
PROCESSES = {
    NodeProgram.SERVICE: "service",
    NodeProgram.VOTER: "voter",
    NodeProgram.VMMS: "vmms",
    NodeProgram.RESOURCE_HOST: "host",
}
ASK_LIMIT_US = 500_000
COMMAND_US = 60_000
"""What a command inside a node takes on containers: an interpreter is started for it."""
CALL_US = 5_000
RESET_STATUS = 143
VOTER_DISK_BYTES = 64 << 20
TURN_US = 250_000
"""Simulated time between two looks at whether a person wants to stop."""

T = TypeVar("T")


class SimulatedEnvironment:
    """The stage of one run: its world's clock, its arena, and the request to stop."""

    def __init__(
        self, outside: Runtime, *, seed: int, interrupt: Interrupt, composition: Composition | None = None
    ) -> None:
        """`outside` is real time, and `interrupt` the person's, which the run's own follows. `composition` is what the
        nodes are made of; by default they speak in frames, as on containers.
        """
        self._outside = outside
        self._clock = VirtualClock()
        self._person = interrupt
        self._failures: list[str] = []
        runtime = SimulatedRuntime(self._clock, on_error=self._failed)
        self.interrupt = Interrupt(runtime)
        self.arena = SimulatedArena(runtime, self._clock, seed=seed, composition=composition)

    async def play(self, run: Coroutine[Any, Any, T]) -> T:
        """Let simulated time pass until the run has ended. Raises HarnessError when a part of the runner failed."""
        ended: list[T] = []

        async def root() -> None:
            ended.append(await run)

        self.arena.runtime.spawn(root(), name="run")
        while not ended and not self._failures:
            with _own_generators():
                self._clock.run_until(self._clock.now_us + TURN_US)
            await self._outside.sleep(0)  # the loop's turn: a signal is heard in it
            if self._person.signal is not None:
                self.interrupt.request(self._person.signal)
        if self._failures:
            told = "; ".join(self._failures)
            raise HarnessError(f"a part of the runner failed, so its verdict counts for nothing: {told}")
        return ended[0]

    def _failed(self, task: SimulatedTask, error: Exception) -> None:
        self._failures.append(f"{task.name}: {error!r}")


@contextlib.contextmanager
def _own_generators() -> Iterator[None]:
    """Asynchronous generators that begin in here are the simulation's, not the loop's, which would close them."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*hooks)


class SimulatedArena:
    """One world. What a command would take on containers it takes here too, so that waits mean the same."""

    def __init__(
        self,
        runtime: SimulatedRuntime,
        clock: VirtualClock,
        *,
        seed: int,
        composition: Composition | None = None,
    ) -> None:
        self.history = History()
        self._runtime = runtime
        self._clock = clock
        self._seed = seed
        self._composition = composition or Composition(frames=Frames())
        self._world: World | None = None
        self._journals: SimulatedJournals | None = None
        self._client: SimulatedClient | None = None
        self._over = False

    @property
    def runtime(self) -> Runtime:
        """Virtual time."""
        return self._runtime

    def unix_ns(self) -> int:
        """Simulated nanoseconds since the run began."""
        return self._clock.now_us * 1_000

    @staticmethod
    def supports(effect: type[Effect]) -> str:
        """Every effect that there is so far."""
        return "" if effect in get_args(Effect) else "not available in the simulator"

    def facts(self) -> Mapping[str, Any]:
        """Nothing of this host: the same seed gives the same journal everywhere."""
        return {"arena": "sim", "blackstart": metadata.version("blackstart"), "seed": self._seed}

    async def up(self, topology: Topology, *, say: Callable[[str], None]) -> None:
        """Make the world and wait until every node is Up and every group Online. Raises WaitTimeout, NotOnline."""
        world = self._world = World(
            topology, seed=self._seed, clock=self._clock, composition=self._composition
        )
        world.engine.listeners.append(lambda event: self._take(engine_record(event)))
        world.listeners.append(lambda line: self._take(log_record(line)))
        world.listeners.append(lambda line: self._take(invariant_record(line)))
        self._take(InvariantWatched(at_ns=self.unix_ns()))
        self._journals = SimulatedJournals(world)
        end_us = self._clock.now_us + UP_LIMIT_US
        while missing := self._standing().missing(topology):
            say(f"waiting for {', '.join(missing)}")
            if self._clock.now_us >= end_us:
                standing = self._standing()
                error = WaitTimeout if standing.missing_nodes() else NotOnline
                raise error(
                    waited_for="every node to be Up and every group Online",
                    saw=", ".join(standing.missing_nodes()) or standing.not_online(topology) or ", ".join(missing),
                    limit_s=UP_LIMIT_US / 1e6,
                )
            await self._runtime.sleep(LOOK_INTERVAL_US)
        self._client = SimulatedClient(world, sink=self._take)
        self._client.start()

    async def keep_ledger_line(self, line: str) -> None:
        """Nothing: a simulated world ends with its runner, and its faults with it. The journal has every fault."""

    async def guard_lost(self) -> str:
        """Empty: there is nothing to guard."""
        return ""

    async def cluster(self) -> ClusterSeen:
        """Asks every node that answers."""
        await self._runtime.sleep(CALL_US)
        return cluster_seen(self._standing(), at_ns=self.unix_ns())

    async def containers(self) -> tuple[ContainerSeen, ...]:
        """The engine's list."""
        await self._runtime.sleep(CALL_US)
        return self._list()

    async def held(self, node: str) -> bool:
        """Whether the node's power is held off."""
        return node in self._there.engine.held.get(self._there.topology.rig, set())

    async def network(self, node: str) -> NetworkSeen:
        """A packet from another node, and its answer: from one of those from whom it is cut off, if it is, that is not
        cut off itself.
        """
        world = self._there
        peers = world.network.isolated_from(node) or frozenset(world.nodes)
        others = [name for name in world.nodes if name in peers and name != node]
        probers = [name for name in others if self._looks(name) and not world.network.is_isolated(name)]
        prober = next(iter(probers), "")
        await self._runtime.sleep(COMMAND_US)
        reached = None
        if prober:
            reached = world.network.passes(prober, node) and world.network.passes(node, prober) and self._looks(node)
        if not reached:
            await self._runtime.sleep(ASK_LIMIT_US)
        cut = world.network.is_isolated(node)
        return NetworkSeen(
            cut=cut and world.engine.node(node).alive,
            kept=cut,
            dropped=world.network.dropped[node],
            reached=reached,
            prober=prober,
        )

    async def engine(self, node: str) -> EngineSeen:
        """A call from inside of the node."""
        await self._runtime.sleep(COMMAND_US)
        stalled = self._there.nodes[node].client.stalled
        if stalled:
            await self._runtime.sleep(ASK_LIMIT_US)
        return EngineSeen(stalled=stalled, answers=not stalled if self._looks(node) else None)

    async def ask_engine(self) -> int:
        """At once, unless the engine stands still for the whole world. No host is overloaded here: time is simulated.
        """
        stalled_us = max(0, self._world.engine.stalled_until_us - self._runtime.now()) if self._world else 0
        if stalled_us:
            await self._runtime.sleep(stalled_us)
        return stalled_us

    @staticmethod
    def load_average() -> float | None:
        """None: the load of the host that computes the simulation says nothing of simulated time."""
        return None

    async def inside(self, node: str, *, ask: Collection[NodeProgram] = ()) -> NodeInside:
        """The node's processes. Raises HarnessError for a node that is off or frozen."""
        await self._runtime.sleep(COMMAND_US)
        if not self._looks(node):
            raise HarnessError(f"nobody can look into {node}: it is off or frozen")
        before = self._node(node).processes()
        if any(program.answers and _hangs(before, program) for program in ask):
            await self._runtime.sleep(ASK_LIMIT_US)
        if not self._looks(node):
            raise HarnessError(f"{node} died while somebody looked into it")
        processes = self._node(node).processes()
        guests = [box for box in self._there.engine.guests(node) if box.alive]
        return NodeInside(
            programs={
                program: _program_seen(program, processes[name])
                for program, name in PROCESSES.items()
                if name in processes
            },
            answers={program: PROCESSES[program] in processes and not _hangs(processes, program) for program in ask},
            vms={box.id: "T" if box.stopped else "D" if box.paused else "S" for box in guests},
            disk=self._disk(node),
        )

    async def apply(self, effect: Effect) -> int:
        """Carry out an effect."""
        at_ns = self.unix_ns()
        self._there.disturbed()
        if isinstance(effect, ProcessEffect):
            self._apply_to_process(effect)
        else:
            self._apply_to_world(effect)
        await self._runtime.sleep(CALL_US)
        return at_ns

    async def request(self, command: Command) -> str:
        """Of whichever node can carry it out."""
        self._there.disturbed()
        snapshots = self._snapshots()
        standing = self._merged(snapshots)
        return await ask_cluster(
            self._there, command, runtime=self._runtime, standing=standing, answering=snapshots
        )

    async def settle(self) -> None:
        """Nothing is lost on the way from the engine here; the journals are read."""
        self.history.append(Reconciled(at_ns=self.unix_ns()))
        without = vms_without_journal(self._there.topology)
        assert self._journals is not None
        for vm in self._vms():
            at_ns = self.unix_ns()
            kept = vm not in without
            seen = self._journals.read(vm, at_ns=at_ns)
            self.history.append(seen if kept else GuestJournal(at_ns=at_ns, vm=vm, kept=False))

    async def collect(self, directory: Path) -> None:
        """The trace of the world: everything that happened in it."""
        if self._world is not None:
            directory.mkdir(parents=True, exist_ok=True)
            trace = "".join(f"{line}\n" for line in self._world.trace)
            (directory / "trace.log").write_text(trace, encoding="utf-8")

    async def down(self, *, keep: bool) -> None:
        """The world ends with its process: nothing of it can be kept or left."""
        del keep
        if self._client is not None:
            self._client.stop()
        self.history.append(CleanUp(at_ns=self.unix_ns(), left=(), kept=False))
        self._over = True

    # Parts

    @property
    def _there(self) -> World:
        if self._world is None:
            raise HarnessError("the simulated rig is not up")
        return self._world

    def _take(self, record: Record | None) -> None:
        if record is not None and not self._over:
            self.history.append(record)

    def _node(self, name: str) -> SimulatedNode:
        return self._there.nodes[name]

    def _looks(self, node: str) -> bool:
        """Whether a command can be run in the node."""
        return self._there.engine.node(node).alive and not self._node(node).frozen

    def _vms(self) -> list[str]:
        groups = self._there.topology.groups
        return [entry.name for group in groups for entry in group.resources if entry.type == "virtual-machine"]

    def _standing(self) -> RigStatus:
        """As `harness.rig` puts it together: each node that answers tells what it knows."""
        return self._merged(self._snapshots())

    def _merged(self, snapshots: Mapping[str, Mapping[str, Any]]) -> RigStatus:
        world = self._there
        return merge(world.topology, {name: self._power(name) for name in world.nodes}, snapshots)

    def _snapshots(self) -> dict[str, Mapping[str, Any]]:
        return {
            name: told
            for name, node in self._there.nodes.items()
            if not node.frozen and not _hangs(node.processes(), NodeProgram.SERVICE)
            if (told := node.snapshot()) is not None
        }

    def _power(self, node: str) -> Power:
        box = self._there.engine.node(node)
        if box.running:
            return Power.PAUSED if box.paused else Power.ON
        if box.restarting:
            return Power.RESTARTING
        return Power.HELD_OFF if node in self._there.engine.held.get(self._there.topology.rig, set()) else Power.OFF

    def _list(self) -> tuple[ContainerSeen, ...]:
        at_ns = self.unix_ns()
        return tuple(self._seen(box, at_ns) for box in self._there.engine.boxes.values())

    def _seen(self, box: SimulatedContainer, at_ns: int) -> ContainerSeen:
        return ContainerSeen(
            at_ns=at_ns,
            container=box.id,
            role=role_of(box),
            node=box.node,
            running=box.running,
            paused=box.paused,
            started_ns=box.started_us * 1_000 if box.lives else None,
            exit_code=None if box.running else box.exit_code,
            vm="" if box.is_node else box.labels.get(label.RESOURCE, ""),
            group=box.labels.get(label.GROUP, ""),
            session=box.labels.get(label.SESSION, ""),
        )

    def _disk(self, node: str) -> DiskSeen | None:
        voter = self._there.voters.get(node)
        if voter is None:
            return None
        size = self._there.topology.settings.voter_disk_bytes
        return DiskSeen(
            size=size or VOTER_DISK_BYTES,
            free=0 if voter.disk_full else (size or VOTER_DISK_BYTES) // 2,
            limited=bool(size),
            files=1,
            oldest_ns=voter.disk_since_us * 1_000,
        )

    # Effects

    def _apply_to_world(self, effect: Effect) -> None:
        world, rig = self._there, self._there.topology.rig
        match effect:
            case CrashVm(container=container):
                world.engine.crash_vm(container)
            case PowerOff(node=node):
                world.engine.hold(rig, node)
                world.engine.power_off_node(node)
            case PowerOn(node=node):
                world.engine.release(rig, node)
                if not world.engine.node(node).running:
                    world.engine.start_node(node)
            case HangNode(node=node):
                self._node(node).freeze()
            case ThawNode(node=node):
                self._node(node).thaw()
            case ResetNode(node=node):
                world.engine.end_node(node, RESET_STATUS)
            case IsolateNode(node=node, peers=peers, direction=direction):
                world.network.isolate(
                    node, peers=peers, inbound=direction is not Direction.OUT, outbound=direction is not Direction.IN
                )
            case JoinNetwork(node=node):
                world.network.join(node)
            case StallEngine(node=node):
                self._node(node).client.stall_for_good()
            case ResumeEngine(node=node, drop=drop):
                self._node(node).client.resume(drop=drop)
            case _:
                raise HarnessError(f"{effect!r} is not available in the simulator")

    def _apply_to_process(self, effect: ProcessEffect) -> None:
        engine = self._there.engine
        match effect:
            case KillVm(container=container):
                engine.kill_by_hand(container)
            case StopVm(container=container):
                engine.stop_by_hand(container)
            case StartVm(container=container):
                engine.start_by_hand(container)
            case HangVm(container=container, how=how):
                if how is Freezing.PAUSE:
                    engine.pause(container)
                else:
                    engine.boxes[container].stopped = True
            case ThawVm(container=container, how=how):
                if how is Freezing.PAUSE:
                    engine.unpause(container)
                else:
                    engine.boxes[container].stopped = False
            case SignalProgram():
                self._signal(effect)
            case WipeVoter(node=node):
                self._same(node, NodeProgram.VOTER, effect.started)
                self._there.wipe_voter(node)
            case FillVoterDisk(node=node):
                self._same(node, NodeProgram.VOTER, effect.started)
                self._there.voters[node].disk_full = True
            case FreeVoterDisk(node=node):
                self._there.voters[node].disk_full = False

    def _signal(self, effect: SignalProgram) -> None:
        self._same(effect.node, effect.program, effect.started)
        node, name = self._node(effect.node), PROCESSES[effect.program]
        match effect.signal:
            case ProgramSignal.KILL:
                node.kill_process(name)
            case ProgramSignal.STOP:
                node.stop_process(name)
            case ProgramSignal.CONTINUE:
                node.continue_process(name)

    def _same(self, node: str, program: NodeProgram, started: int) -> None:
        found = self._node(node).processes().get(PROCESSES[program])
        if found is None or found.started_us != started:
            raise HarnessError(f"the {program} of {node} that was to be hit has ended")


def _hangs(processes: Mapping[str, Process], program: NodeProgram) -> bool:
    found = processes.get(PROCESSES[program])
    return found is not None and found.stopped


def _program_seen(program: NodeProgram, found: Process) -> ProgramSeen:
    """Known by its start, in the place of the process id too: no two of a node's programs begin at one moment."""
    return ProgramSeen(pid=program.user, started=found.started_us, state="T" if found.stopped else "S")
