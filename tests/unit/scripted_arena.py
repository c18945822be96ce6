"""An arena in memory, on virtual time: a small cluster that behaves, or misbehaves as its script says.

Real in what a runner can see of it: engine events, cluster-log lines, a client, guests' journals, an engine's list. It
is no simulation of the cluster service: it plays what one would do, so that the runner, the faults and the checkers can
be tried in milliseconds, and the virtual clock shows that they await nothing but their arena.
"""

import functools
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from scripted_processes import Processes

from chaos.arena.interrupt import Interrupt
from chaos.arena.port import (
    Command,
    CrashVm,
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
from chaos.arena.process_effects import NodeInside, NodeProgram, ProcessEffect
from chaos.history.records import (
    CleanUp,
    ClientAnswer,
    ClientBeat,
    ClusterSeen,
    ContainerRole,
    ContainerSeen,
    EngineEventSeen,
    GroupSeen,
    GuestJournal,
    GuestRun,
    History,
    LogLine,
    NodeSeen,
    Reconciled,
    ResourceSeen,
    Stall,
    StreamGap,
)
from chaos.reaper.ledger import OpenFault, read_open
from harness.errors import HarnessError
from harness.model.topology import Topology
from harness.simulation.kernel.runtime import SimulatedRuntime, SimulatedTask, VirtualClock

MS = 1_000
SECOND = 1_000_000
EPOCH_NS = 1_700_000_000 * 10**9


@dataclass
class Script:
    """How this world misbehaves; by default it does not."""

    crash_is_a_kill: bool = False
    crash_does_nothing: bool = False
    crash_raises: Exception | None = None
    power_off_raises: Exception | None = None
    power_off_does_nothing: bool = False
    power_on_raises: Exception | None = None
    hang_spares_vms: bool = False
    thaw_does_nothing: bool = False
    reset_is_a_kill: bool = False
    reset_stays_off: bool = False
    isolate_does_nothing: bool = False
    join_does_nothing: bool = False
    stall_does_nothing: bool = False
    resume_does_nothing: bool = False
    nobody_to_ask: bool = False
    up_raises: Exception | None = None
    request_raises: Exception | None = None
    never_online: bool = False
    never_recovers: bool = False
    starts_before_fence: bool = False
    ledger_raises: Exception | None = None
    guard_lost: str = ""
    lost_events: bool = False
    event_gap: bool = False
    journals_unreadable: bool = False
    stalls_after_fault: bool = False
    engine_takes_us: int = 0
    load: float | None = None
    leaves: tuple[str, ...] = ()
    down_raises: Exception | None = None
    at: Mapping[int, Callable[["ScriptedArena"], None]] = field(default_factory=dict)
    """Things that happen so many microseconds after the rig is up."""


@dataclass
class _Vm:
    name: str
    group: str
    node: str
    container: str
    running: bool = True
    boots: int = 1


class ScriptedArena:
    """One world. `calls` is what was asked of it, in order."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.clock = VirtualClock(start_us=SECOND)
        self.errors: list[Exception] = []
        self.runtime = SimulatedRuntime(self.clock, on_error=self._on_error)
        self.history = History()
        self.interrupt = Interrupt(self.runtime)
        self.calls: list[str] = []
        self.ledger_lines: list[str] = []
        self.nodes: dict[str, bool] = {}
        self.holds: set[str] = set()
        self.frozen: set[str] = set()
        self.cuts: dict[str, IsolateNode] = {}
        self.stalled: set[str] = set()
        self.vms: dict[str, _Vm] = {}
        self.processes = Processes(self)
        self.stands = False
        self.commands: list[Command] = []
        self._number = 0
        self._runs: list[GuestRun] = []

    def drive(self, coroutine: Any, *, limit_s: int = 600) -> Any:
        """Run a coroutine in this world's time and answer its result."""
        outcome: list[Any] = []

        async def run() -> None:
            outcome.append(await coroutine)

        self.runtime.spawn(run(), name="test")
        for _ in range(limit_s * 10):
            self.clock.run_until(self.clock.now_us + SECOND // 10)
            if outcome or self.errors:
                break
        if self.errors:
            raise self.errors[0]
        assert outcome, f"nothing came out within {limit_s} virtual seconds"
        return outcome[0]

    # The port.

    def unix_ns(self) -> int:
        return EPOCH_NS + self.clock.now_us * 1000

    def supports(self, effect: type[Effect]) -> str:
        return "" if effect in get_args(Effect) else "not in this world"

    def facts(self) -> Mapping[str, Any]:
        return {"arena": "scripted"}

    async def keep_ledger_line(self, line: str) -> None:
        if self.script.ledger_raises:
            raise self.script.ledger_raises
        self.ledger_lines.append(line)

    def open_in_ledger(self) -> list[OpenFault]:
        """The faults that a repair would find open."""
        return read_open("\n".join(self.ledger_lines))

    async def guard_lost(self) -> str:
        return self.script.guard_lost

    async def up(self, topology: Topology, *, say: Callable[[str], None]) -> None:
        self.calls.append("up")
        say("the rig to come up")
        await self.runtime.sleep(SECOND)
        self.stands = True
        if self.script.up_raises:
            raise self.script.up_raises
        self.nodes = {node.name: True for node in topology.nodes}
        names = list(self.nodes)
        for index, group in enumerate(topology.groups):
            for resource in group.resources:
                if resource.type == "virtual-machine":
                    node = names[index % len(names)]
                    vm = _Vm(name=resource.name, group=group.name, node=node, container="")
                    self.vms[resource.name] = vm
                    self._start(vm, node)
        self._beat()
        for after_us, happen in self.script.at.items():
            self.clock.after(after_us, functools.partial(happen, self))

    async def cluster(self) -> ClusterSeen:
        await self.runtime.sleep(10 * MS)
        groups: dict[str, list[_Vm]] = {}
        for vm in self.vms.values():
            groups.setdefault(vm.group, []).append(vm)
        return ClusterSeen(
            at_ns=self.unix_ns(),
            quorum=True,
            nodes=tuple(NodeSeen(name=name, state="Up" if on else "Down") for name, on in self.nodes.items()),
            groups=tuple(self._group(name, vms) for name, vms in groups.items()),
        )

    async def containers(self) -> tuple[ContainerSeen, ...]:
        await self.runtime.sleep(5 * MS)
        at_ns = self.unix_ns()
        nodes = [
            ContainerSeen(
                at_ns=at_ns,
                container=f"c-{name}",
                role=ContainerRole.NODE,
                node=name,
                running=on,
                paused=name in self.frozen,
            )
            for name, on in self.nodes.items()
        ]
        vms = [
            ContainerSeen(
                at_ns=at_ns,
                container=vm.container,
                role=ContainerRole.VM,
                node=vm.node,
                running=vm.running,
                paused=vm.container in self.processes.paused
                or (vm.running and vm.node in self.frozen and not self.script.hang_spares_vms),
                vm=vm.name,
                group=vm.group,
                session=f"{vm.node}@1/1",
            )
            for vm in self.vms.values()
        ]
        return (*nodes, *vms)

    async def held(self, node: str) -> bool:
        return node in self.holds

    async def ask_engine(self) -> int:
        await self.runtime.sleep(self.script.engine_takes_us or MS)
        return self.script.engine_takes_us or MS

    def load_average(self) -> float | None:
        return self.script.load

    async def inside(self, node: str, *, ask: Collection[NodeProgram] = ()) -> NodeInside:
        await self.runtime.sleep(100 * MS)
        if not self.nodes[node]:
            raise HarnessError(f"{node} is off")
        return self.processes.inside(node, ask)

    def vm_event(self, action: str, vm: str, **more: Any) -> None:
        self._event(action, self.vms[vm], **more)

    def vm_runs(self, vm: str, running: bool) -> None:
        self.vms[vm].running = running

    async def network(self, node: str) -> NetworkSeen:
        await self.runtime.sleep(10 * MS)
        cut = node in self.cuts and self.nodes[node] and not self.script.isolate_does_nothing
        prober = next((name for name, on in self.nodes.items() if on and name not in {node, *self.cuts}), "")
        reached = None if not prober or self.script.nobody_to_ask else not cut
        dropped = 3 if cut else 0
        return NetworkSeen(cut=cut, kept=node in self.cuts, dropped=dropped, reached=reached, prober=prober)

    async def engine(self, node: str) -> EngineSeen:
        await self.runtime.sleep(10 * MS)
        stalled = node in self.stalled
        answers = None if self.script.nobody_to_ask else not stalled
        return EngineSeen(stalled=stalled, answers=answers)

    async def apply(self, effect: Effect) -> int:
        self.calls.append(f"{type(effect).__name__} {getattr(effect, 'vm', '') or effect.node}")
        at_ns = self.unix_ns()
        await self.runtime.sleep(20 * MS)
        match effect:
            case CrashVm(vm=vm):
                self._crash(self.vms[vm])
            case PowerOff(node=node):
                self._power_off(node)
            case PowerOn(node=node):
                self._power_on(node)
            case HangNode(node=node):
                self._hang(node)
            case ThawNode(node=node):
                self._thaw(node)
            case ResetNode(node=node):
                self._reset(node)
            case IsolateNode(node=node):
                self.cuts[node] = effect
                self.clock.after(2 * SECOND, lambda: self._fence(node, if_still=self.cuts))
            case JoinNetwork(node=node):
                if not self.script.join_does_nothing:
                    self.cuts.pop(node, None)
            case StallEngine(node=node):
                if not self.script.stall_does_nothing:
                    self.stalled.add(node)
            case ResumeEngine(node=node):
                if not self.script.resume_does_nothing:
                    self.stalled.discard(node)
        if isinstance(effect, ProcessEffect):
            self.processes.apply(effect)
        if self.script.stalls_after_fault:
            self.history.append(Stall(at_ns=self.unix_ns(), length_us=3 * SECOND))
        return at_ns

    async def request(self, command: Command) -> str:
        self.commands.append(command)
        await self.runtime.sleep(10 * MS)
        if self.script.request_raises is not None:
            raise self.script.request_raises
        return f"{command} is wanted"

    async def settle(self) -> None:
        self.calls.append("settle")
        lost = ("web-vm runs, and its start was no event",) if self.script.lost_events else ()
        self.history.append(Reconciled(at_ns=self.unix_ns(), differences=lost))
        for name in self.vms:
            runs = tuple(run for run in self._runs if run.vm == name)
            journal = GuestJournal(at_ns=self.unix_ns(), vm=name, runs=runs, lines=len(runs))
            if self.script.journals_unreadable:
                journal = GuestJournal(at_ns=self.unix_ns(), vm=name, error="the volume is gone")
            self.history.append(journal)

    async def collect(self, directory: Path) -> None:
        del directory
        assert self.stands or "down" not in self.calls, "evidence after the clean-up is none"
        self.calls.append("collect")

    async def down(self, *, keep: bool) -> None:
        self.calls.append("keep" if keep else "down")
        await self.runtime.sleep(SECOND)
        if self.script.down_raises:
            raise self.script.down_raises
        self.stands = keep
        self.history.append(CleanUp(at_ns=self.unix_ns(), left=self.script.leaves, kept=keep))

    # What happens in it.

    def _on_error(self, task: SimulatedTask, error: Exception) -> None:
        del task
        self.errors.append(error)

    def _group(self, name: str, vms: list[_Vm]) -> GroupSeen:
        online = all(vm.running for vm in vms) and not self.script.never_online
        state = "Online" if online else "Failed"
        return GroupSeen(
            name=name,
            owner=vms[0].node,
            state=state,
            resources=tuple(
                ResourceSeen(name=vm.name, type="virtual-machine", state=state, wanted=True)
                for vm in vms
            ),
        )

    def _beat(self) -> None:
        if self.stands:
            self.history.append(ClientBeat(at_ns=self.unix_ns(), asked=20, answered=20))
            self.clock.after(SECOND, self._beat)

    def _event(self, action: str, vm: _Vm, **more: Any) -> None:
        self.history.append(
            EngineEventSeen(
                at_ns=self.unix_ns(),
                action=action,
                container=vm.container,
                role=ContainerRole.VM,
                node=vm.node,
                vm=vm.name,
                group=vm.group,
                session=f"{vm.node}@1/1",
                **more,
            )
        )

    def _node_event(self, action: str, node: str) -> None:
        self.history.append(
            EngineEventSeen(
                at_ns=self.unix_ns(), action=action, container=f"c-{node}", role=ContainerRole.NODE, node=node
            )
        )

    def _log(self, event: str, **fields: str) -> None:
        self.history.append(
            LogLine(at_ns=self.unix_ns(), node="node3", component="test", event=event, message=event, fields=fields)
        )

    def _start(self, vm: _Vm, node: str) -> None:
        self._number += 1
        vm.node, vm.container, vm.running = node, f"c{self._number}", True
        boot = f"boot{self._number}"
        self._event("start", vm)
        self._runs.append(
            GuestRun(
                vm=vm.name,
                boot=boot,
                node=node,
                first_line=self._number,
                lines=1,
                first_boottime_ns=self.clock.now_us * 1000,
                last_boottime_ns=self.clock.now_us * 1000 + 1,
            )
        )
        self.clock.after(
            50 * MS,
            lambda: self.history.append(
                ClientAnswer(at_ns=self.unix_ns(), vm=vm.name, ok=True, boot=boot, node=node)
            ),
        )

    def _crash(self, vm: _Vm) -> None:
        if self.script.crash_raises:
            raise self.script.crash_raises
        if self.script.crash_does_nothing:
            return
        if self.script.crash_is_a_kill:
            self._event("kill", vm, signal=9)
        vm.running = False
        self._event("die", vm, exit_code=137)
        self._log("resource-failed", resource=vm.name, group=vm.group)
        if not self.script.never_recovers:
            self.clock.after(90 * MS, lambda: self._start(vm, vm.node))

    def _power_off(self, node: str) -> None:
        self.holds.add(node)
        if self.script.power_off_raises:
            raise self.script.power_off_raises
        if self.script.power_off_does_nothing:
            return
        lost = [vm for vm in self.vms.values() if vm.node == node]
        if self.script.starts_before_fence:
            for vm in lost:
                survivor = next(name for name, on in self.nodes.items() if on and name != node)
                self._start(replace(vm), survivor)
        self.nodes[node] = False
        for vm in lost:
            vm.running = False
            self._event("die", vm, exit_code=137)
        self._node_event("die", node)
        self.clock.after(2 * SECOND, lambda: self._fail_over(node, lost))

    def _fail_over(self, node: str, lost: list[_Vm]) -> None:
        self._log("node-lease-expired", node=node, session=f"{node}@1/1")
        if self.script.never_recovers:
            return
        survivor = next(name for name, on in self.nodes.items() if on)
        for group in {vm.group for vm in lost}:
            self._log("group-claimed", group=group)
        for vm in lost:
            self._start(vm, survivor)

    def _here(self, node: str) -> list[_Vm]:
        return [vm for vm in self.vms.values() if vm.node == node and vm.running]

    def _hang(self, node: str) -> None:
        self.frozen.add(node)
        self._node_event("pause", node)
        for vm in [] if self.script.hang_spares_vms else self._here(node):
            self._event("pause", vm)
        self.clock.after(3 * SECOND, lambda: self._fence(node, if_still=self.frozen))

    def _thaw(self, node: str) -> None:
        if self.script.thaw_does_nothing or node not in self.frozen:
            return
        self.frozen.discard(node)
        self._node_event("unpause", node)
        for vm in self._here(node):
            self._event("unpause", vm)

    def _reset(self, node: str) -> None:
        if self.script.reset_is_a_kill:
            self._node_event("kill", node)
        self._reboot(node)

    def _fence(self, node: str, *, if_still: Container[str]) -> None:
        if node in if_still:
            self._node_event("kill", node)
            self._reboot(node)

    def _reboot(self, node: str) -> None:
        lost = self._here(node)
        for vm in lost:
            vm.running = False
            self._event("die", vm, exit_code=137)
        self.nodes[node] = False
        self.frozen.discard(node)
        self._node_event("die", node)
        if not self.script.reset_stays_off:
            self.clock.after(500 * MS, lambda: self._boot(node))
        self.clock.after(SECOND, lambda: self._fail_over(node, lost))

    def _boot(self, node: str) -> None:
        self._node_event("start", node)
        self.nodes[node] = True

    def _power_on(self, node: str) -> None:
        if self.script.power_on_raises:
            raise self.script.power_on_raises
        self.holds.discard(node)
        self._boot(node)


def interrupt_at(after_us: int, signal: int) -> Mapping[int, Callable[[ScriptedArena], None]]:
    """A script's `at`: the signal comes so long after the rig is up."""
    return {after_us: lambda arena: arena.interrupt.request(signal)}


def gap(arena: ScriptedArena) -> None:
    """A break of the event stream that may have lost events."""
    now_ns = arena.unix_ns()
    arena.history.append(StreamGap(at_ns=now_ns, since_ns=now_ns - 10**9, complete=False, reason="the engine was gone"))


def failure(text: str) -> HarnessError:
    """An error of the harness, as an arena raises it."""
    return HarnessError(text)
