"""The arena of real containers: the rig, its engine, real kills.

Implements `chaos.arena.port.Arena` on a `harness.rig.lifecycle.rig.Rig`. Engine calls block, so they run in threads;
the threads that read event streams hand each event to the loop's own thread before it enters the history. This module
decides nothing about the run.
"""

import asyncio
import json
import platform
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, get_args

from chaos.arena.client_targets import measured_vms
from chaos.arena.cluster_view import cluster_seen
from chaos.arena.docker.artifacts import collect_evidence, read_journals
from chaos.arena.docker.availability_client import Client
from chaos.arena.docker.container_list import differences, list_containers
from chaos.arena.docker.engine_answer import engine_answer_us, load_average
from chaos.arena.docker.engine_effects import look_at_engine, resume_engine, stall_engine
from chaos.arena.docker.engine_stream import EngineStream
from chaos.arena.docker.in_node import kill_vm
from chaos.arena.docker.log_stream import LogStream
from chaos.arena.docker.network_effects import Cuts
from chaos.arena.docker.node_effects import hang_node, reset_node, thaw_node
from chaos.arena.docker.process_effects import carry_out, look_inside
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
from chaos.history.guest_journal import vms_without_journal
from chaos.history.records import (
    CleanUp,
    ClusterSeen,
    ContainerRole,
    ContainerSeen,
    EngineEventSeen,
    HarnessNote,
    History,
    LogLine,
    Reconciled,
    Record,
)
from chaos.reaper.guard import Guard
from chaos.reaper.orders import DEFAULT_TIMES, ReaperTimes
from harness.errors import CleanupError, EngineError, HarnessError, UsageError
from harness.model.object_names import node_container
from harness.model.topology import Topology
from harness.ports import Runtime, Task
from harness.rig.engine.connection import connect, engine_call
from harness.rig.engine.exec import run_inside
from harness.rig.images.build import ensure_images, find_project_root
from harness.rig.images.build_context import GUEST, HYPERVISOR
from harness.rig.lifecycle.create import refuse_other
from harness.rig.lifecycle.rig import Rig
from harness.rig.lifecycle.teardown import remove_rig, rig_names, still_there

__all__ = ["DockerArena", "DockerEnvironment", "log_line"]

CRASH_LIMIT_S = 10.0
"""Starting Python in a node took 0.1 s; a node that hangs answers never."""
COMPARE_ATTEMPTS = 4
COMPARE_INTERVAL_S = 0.5
"""An event comes up to half a second after the list shows what it tells."""

T = TypeVar("T")


class DockerEnvironment:
    """The stage of one run: its rig, in real time, and the person's own request to stop."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        interrupt: Interrupt,
        on_rig: str | None = None,
        keep_rig: bool = False,
        command: str = "blackstart run",
        reaper: ReaperTimes = DEFAULT_TIMES,
    ) -> None:
        """`command` names the run to others who want the same rig. Raises HarnessError when no engine answers."""
        self.interrupt = interrupt
        self.arena = DockerArena(
            runtime,
            on_rig=on_rig,
            keep_rig=keep_rig,
            command=command,
            reaper=reaper,
            stopped=lambda: interrupt.signal is not None,
        )

    async def play(self, run: Coroutine[Any, Any, T]) -> T:
        """Real time passes by itself."""
        return await run


class DockerArena:
    """One rig of one engine. Made on the loop's thread; its coroutines run there."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        on_rig: str | None = None,
        keep_rig: bool = False,
        command: str = "blackstart run",
        reaper: ReaperTimes = DEFAULT_TIMES,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`on_rig` names a rig that stands: it is used, and left standing. So is one that is made with `keep_rig`, also
        when this process dies. `stopped` is true once a signal has asked the run to stop: no further guest's evidence
        is read then.

        Raises HarnessError when no engine answers.
        """
        self.history = History()
        self.runtime = runtime
        self._on_rig = on_rig
        self._keep_rig = keep_rig or on_rig is not None
        self._command = command
        self._reaper_times = reaper
        self._guard: Guard | None = None
        self._renewal: Task | None = None
        self._stopped = stopped
        self._client = connect()
        self._loop = asyncio.get_running_loop()
        self._name = ""
        self._topology: Topology | None = None
        self._rig: Rig | None = None
        self._events: EngineStream | None = None
        self._logs: dict[str, LogStream] = {}
        self._outside: Client | None = None
        self._cuts: Cuts | None = None
        self._began_ns = 0
        self._facts: dict[str, Any] = {}

    def unix_ns(self) -> int:
        """Now, on the clock with which the engine stamps its events."""
        return time.time_ns()

    @staticmethod
    def supports(effect: type[Effect]) -> str:
        """Every effect that there is so far."""
        return "" if effect in get_args(Effect) else "not available with real containers"

    def facts(self) -> Mapping[str, Any]:
        """Versions and image ids; complete once the rig is up."""
        return self._facts

    async def up(self, topology: Topology, *, say: Callable[[str], None]) -> None:
        """The feeds first, so that not even the rig's first start is missed."""
        self._name = self._on_rig or topology.rig
        self._topology = topology
        self._began_ns = self.unix_ns()
        self._facts.update(await self._in_thread(self._learn_facts))
        if self._on_rig is not None:
            self._rig = await self._in_thread(lambda: self._find(topology))
            await self._start_guard(image=HYPERVISOR.tag)
        else:
            root = find_project_root()
            images = await self._in_thread(lambda: ensure_images(self._client, project_root=root, say=say))
            await self._start_guard(image=images.hypervisor.tag)
            await self._in_thread(self._refuse_standing)
        await self._open_events()
        if self._rig is not None:
            for seen in await self._in_thread(lambda: self._list(with_start=True)):
                self.history.append(seen)
                if seen.role is ContainerRole.NODE:
                    self._follow(seen.node)
        else:
            self._rig = await self._in_thread(
                lambda: Rig.up(
                    topology, say=say, client=self._client, say_each_look=True, locked=True, images=images
                )
            )
        self._rig.note_to(lambda text: self._from_thread(HarnessNote(at_ns=self.unix_ns(), text=text)))
        self._cuts = Cuts(self._client, self._rig.topology)
        self._facts.update(await self._in_thread(self._learn_images))
        outside = Client(
            self._client, rig=self._name, vms=measured_vms(self._rig.topology), sink=self._from_thread
        )
        await self._in_thread(outside.start)
        self._outside = outside

    async def _start_guard(self, *, image: str) -> None:
        """Before the first object of the rig, so that it is never without one that would remove it."""
        guard = Guard(
            self._client, rig=self._name, command=self._command, keep_rig=self._keep_rig, times=self._reaper_times
        )
        # Kept before it is started: what may have been made is taken away again.
        self._guard = guard
        await self._in_thread(lambda: guard.start(image=image))
        await self._in_thread(guard.attach)
        self._renewal = self.runtime.spawn(guard.renew(), name="lease of the run")

    async def _open_events(self) -> None:
        self._events = EngineStream(self._client, rig=self._name, sink=self._from_thread)
        await self._in_thread(self._events.open)

    async def attach(self) -> None:
        """Open what cures need of a rig that stands, without a client and without a guard: for a repair.

        Raises UsageError when there is no such rig, EngineError.
        """
        assert self._on_rig is not None
        self._name = self._on_rig
        self._rig = await self._in_thread(lambda: Rig.find(self._name, client=self._client))
        await self._open_events()
        self._cuts = Cuts(self._client, self._rig.topology)

    async def detach(self) -> None:
        """Close what `attach` opened. Safe after one that failed."""
        if self._events is not None:
            await self._in_thread(self._events.close)
        self._client.close()

    async def left_behind(self) -> list[str]:
        """The objects of the rig, as the engine lists them now."""
        return await self._in_thread(lambda: still_there(self._client, self._name))

    async def keep_ledger_line(self, line: str) -> None:
        """In the reaper, which has it on its disk before it answers."""
        if self._guard is None:
            raise HarnessError("this run has no reaper; without one no fault is injected")
        await self._guard.keep(line)

    async def guard_lost(self) -> str:
        """One question to the reaper; empty for a run that never had one, and so no fault either."""
        return await self._guard.confirm() if self._guard is not None and self._renewal is not None else ""

    async def cluster(self) -> ClusterSeen:
        """Asks every running node. Raises EngineError when the engine does not answer."""
        return cluster_seen(await self._in_thread(self._standing_rig().standing), at_ns=self.unix_ns())

    async def containers(self) -> tuple[ContainerSeen, ...]:
        """One call of the engine."""
        return await self._in_thread(lambda: self._list(with_start=False))

    async def held(self, node: str) -> bool:
        """Whether the node's hold mark is there."""
        return node in await self._in_thread(self._standing_rig().holds)

    async def network(self, node: str) -> NetworkSeen:
        """Two commands in containers."""
        return await self._in_thread(lambda: self._standing_cuts().look(node))

    async def engine(self, node: str) -> EngineSeen:
        """One command in the node. Raises UsageError for a rig without proxies."""
        return await self._in_thread(lambda: look_at_engine(self._client, self._name, node))

    async def ask_engine(self) -> int:
        """One call, in a thread of its own."""
        return await engine_answer_us(self._client)

    @staticmethod
    def load_average() -> float | None:
        """Of this host, which is the engine's as well where the engine is local."""
        return load_average()

    async def inside(self, node: str, *, ask: Collection[NodeProgram] = ()) -> NodeInside:
        """One command in the node."""
        return await self._in_thread(lambda: look_inside(self._client, self._name, node, ask=ask))

    async def apply(self, effect: Effect) -> int:
        """Carry out an effect."""
        rig, client, name = self._standing_rig(), self._client, self._name
        if isinstance(effect, ProcessEffect):
            return await self._in_thread(lambda: carry_out(self._client, self._name, effect))
        match effect:
            case CrashVm():
                return await self._in_thread(lambda: self._crash(effect))
            case PowerOff(node=node):
                return await self._timed(lambda: rig.power_off(node, hold=True))
            case PowerOn(node=node):
                return await self._timed(lambda: rig.power_on(node))
            case HangNode(node=node):
                return await self._in_thread(lambda: hang_node(client, name, node))
            case ThawNode(node=node):
                return await self._in_thread(lambda: thaw_node(client, name, node))
            case ResetNode(node=node):
                return await self._in_thread(lambda: reset_node(client, name, node))
            case IsolateNode():
                return await self._in_thread(lambda: self._standing_cuts().isolate(effect))
            case JoinNetwork(node=node):
                return await self._in_thread(lambda: self._standing_cuts().join(node))
            case StallEngine(node=node):
                return await self._in_thread(lambda: stall_engine(client, name, node))
            case ResumeEngine(node=node, drop=drop):
                return await self._in_thread(lambda: resume_engine(client, name, node, drop=drop))

    async def request(self, command: Command) -> str:
        """Through the nodes' API."""
        rig = self._standing_rig()
        reply = await self._in_thread(lambda: rig.request(command.path, command.arguments))
        return reply.message

    async def settle(self) -> None:
        """Compare list and events, then read the journals."""
        found: list[str] = []
        for _ in range(COMPARE_ATTEMPTS):
            listed = await self._in_thread(lambda: self._list(with_start=True))
            await asyncio.sleep(COMPARE_INTERVAL_S)
            found = differences(listed, self.history.of(EngineEventSeen), since_ns=self._began_ns)
            if not found:
                break
        self.history.append(Reconciled(at_ns=self.unix_ns(), differences=tuple(found)))
        for journal in await self._in_thread(self._read_journals):
            self.history.append(journal)

    async def collect(self, directory: Path) -> None:
        """Logs, states, events, journals."""
        if not self._name:
            return
        events = self.history.of(EngineEventSeen)
        await self._in_thread(
            lambda: collect_evidence(
                self._client, rig=self._name, directory=directory, events=events, journals=self._vms()
            )
        )

    async def down(self, *, keep: bool) -> None:
        """Close the feeds; take the rig away, or only what this run added to it. Nothing can be asked after it."""
        kept = keep or self._on_rig is not None
        left: list[str] = []
        if self._outside is not None:
            try:
                await self._in_thread(self._outside.stop)
            except EngineError as error:
                left.append(str(error))
        for log in self._logs.values():
            await self._in_thread(log.close)
        if self._events is not None:
            await self._in_thread(self._events.close)
        if self._events is not None and not kept:
            left = await self._in_thread(self._remove)
        left += await self._end_guard(hand_over=bool(left))
        self.history.append(CleanUp(at_ns=self.unix_ns(), left=tuple(left), kept=kept))
        self._client.close()

    async def _end_guard(self, *, hand_over: bool) -> list[str]:
        """The reaper goes last, unless it is needed: it tries again what this run could not heal or remove."""
        if self._renewal is not None:
            self._renewal.cancel()
        if self._guard is None:
            return []
        guard = self._guard
        try:
            faults = await self._in_thread(guard.open_faults) if self._keep_rig else []
            if faults or hand_over:
                await guard.hand_over()
            else:
                await self._in_thread(guard.end)
        except EngineError as error:
            return [str(error)]
        again = f"the reaper tries again; so does `blackstart repair --name {self._name}`"
        return [f"{fault} ({again})" for fault in faults]

    def _standing_rig(self) -> Rig:
        if self._rig is None:
            raise HarnessError(f"rig {self._name or '(none)'} is not up")
        return self._rig

    def _standing_cuts(self) -> Cuts:
        if self._cuts is None:
            raise HarnessError(f"rig {self._name or '(none)'} is not up")
        return self._cuts

    def _vms(self) -> list[str]:
        groups = self._topology.groups if self._topology else ()
        return [entry.name for group in groups for entry in group.resources if entry.type == "virtual-machine"]

    def _refuse_standing(self) -> None:
        if self._name in rig_names(self._client):
            raise UsageError(
                f"there is a rig {self._name!r} already, of a person or of a run that was killed. "
                f"`blackstart run --on-rig {self._name}` uses it, `blackstart down --name {self._name}` removes it"
            )

    def _find(self, topology: Topology) -> Rig:
        rig = Rig.find(self._name, client=self._client)
        refuse_other(topology, rig.topology)
        return rig

    def _list(self, *, with_start: bool) -> tuple[ContainerSeen, ...]:
        return list_containers(self._client, rig=self._name, at_ns=self.unix_ns(), with_start=with_start)

    def _read_journals(self) -> list[Any]:
        nodes = [node_container(self._name, node.name) for node in self._standing_rig().topology.nodes]
        return read_journals(
            self._client,
            nodes=nodes,
            vms=self._vms(),
            without=vms_without_journal(self._standing_rig().topology),
            at_ns=self.unix_ns(),
            stopped=self._stopped,
        )

    def _remove(self) -> list[str]:
        try:
            return self._remove_objects()
        except EngineError as error:
            # Unknown is not gone: it is named, and the exit code is 5.
            return [f"rig {self._name}, perhaps ({error}); `blackstart down --name {self._name}` removes it"]

    def _remove_objects(self) -> list[str]:
        try:
            remove_rig(self._client, self._name, say=lambda _: None, spare_lock=True)
        except CleanupError as error:
            return still_there(self._client, self._name) or [str(error)]
        return still_there(self._client, self._name)

    def _crash(self, effect: CrashVm) -> int:
        source = Path(kill_vm.__file__).read_text(encoding="utf-8")
        node = node_container(self._name, effect.node)
        command = ["python3", "-I", "-c", source, effect.container]
        finished = run_inside(self._client, node, command, user="0", limit_s=CRASH_LIMIT_S)
        try:
            return int(json.loads(finished.stdout)["at_ns"])
        except (ValueError, KeyError, TypeError) as error:
            said = (finished.stdout + finished.stderr).strip()[-500:]
            raise HarnessError(f"{effect.vm} was not crashed: the killer in {node} said: {said!r}") from error

    def _learn_facts(self) -> dict[str, Any]:
        with engine_call("ask the engine for its version"):
            version = self._client.version()
        return {
            "arena": "docker",
            "blackstart": metadata.version("blackstart"),
            "python": platform.python_version(),
            "engine": version.get("Version", ""),
            "engine_api": version.get("ApiVersion", ""),
            "kernel": version.get("KernelVersion", ""),
        }

    def _learn_images(self) -> dict[str, Any]:
        wanted = {HYPERVISOR.tag, GUEST.tag}
        if self._topology is not None:
            resources = [entry for group in self._topology.groups for entry in group.resources]
            wanted |= {entry.properties["image"] for entry in resources if "image" in entry.properties}
        digests = {}
        for tag in sorted(wanted):
            with engine_call(f"look at the image {tag}"):
                digests[tag] = str(self._client.images.get(tag).id)
        return {"images": digests, "subnet": self._standing_rig().topology.subnet}

    def _follow(self, node: str) -> None:
        """Begin to follow a node's log, or tell its follower that the node has started."""
        if node in self._logs:
            self._logs[node].container_started()
            return

        def take(text: str) -> None:
            line = log_line(text)
            if line is not None:
                self._from_thread(line)

        self._logs[node] = LogStream(self._client, node_container(self._name, node), sink=take, since_ns=self._began_ns)
        self._logs[node].open()

    def _from_thread(self, record: Record) -> None:
        """What a feed heard, on the loop's thread. After the loop has ended nobody wants to know."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take, record)

    def _take(self, record: Record) -> None:
        self.history.append(record)
        if isinstance(record, EngineEventSeen) and record.role is ContainerRole.NODE and record.action == "start":
            self._follow(record.node)
            if self._cuts is not None and record.node in self._cuts.nodes:
                self.runtime.spawn(self._cut_again(self._cuts, record.node), name=f"cut {record.node} off again")

    async def _cut_again(self, cuts: Cuts, node: str) -> None:
        await self._in_thread(lambda: cuts.lay_again(node))

    async def _timed(self, call: Callable[[], None]) -> int:
        at_ns = self.unix_ns()
        await self._in_thread(call)
        return at_ns

    @staticmethod
    def _in_thread(call: Callable[[], T]) -> Awaitable[T]:
        return asyncio.to_thread(call)


def log_line(text: str) -> LogLine | None:
    """One line of a node's output as a record; None for what is no line of the cluster log."""
    try:
        line: Any = json.loads(text)
        return LogLine(
            at_ns=int(line["time"] * 1e9),
            node=str(line["node"]),
            component=str(line["component"]),
            event=str(line["event"]),
            message=str(line["message"]),
            id=line["id"],
            fields=dict(line["fields"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
