"""The witnesses of a simulated run: what the engine tells, what the nodes log, what a client outside measures, and what
the guests write on their disks. Each sees the world by itself, as on containers.
"""

from collections.abc import Callable, Mapping

from chaos.arena.client_targets import measured_vms
from chaos.history.records import (
    ClientAnswer,
    ClientBeat,
    ContainerRole,
    EngineEventSeen,
    GuestJournal,
    GuestRun,
    InvariantWatched,
    LogLine,
    Record,
)
from harness.model import labels as label
from harness.ports import EngineEvent as Happened
from harness.ports import EventGap
from harness.simulation.twins.container import SimulatedContainer
from harness.simulation.world.world import TraceLine, World

__all__ = ["SimulatedClient", "SimulatedJournals", "engine_record", "invariant_record", "log_record", "role_of"]

ASK_INTERVAL_US = 50_000
ASK_LIMIT_US = 300_000
"""The client's own, on containers too: `chaos.arena.docker.in_node.availability`."""
BEAT_US = 1_000_000
OUTSIDE = "client"
"""The client's name on the network."""
LINE_INTERVAL_US = 100_000
GUEST_START_US = 60_000
"""What the guest's program takes to its first line and its first answer: on containers some 0.06 s."""


def role_of(box: SimulatedContainer) -> ContainerRole:
    """The part that a container plays."""
    return ContainerRole.NODE if box.is_node else ContainerRole.VM


def engine_record(event: Happened | EventGap) -> EngineEventSeen | None:
    """What the engine told, as a record of the history; None for what is no event."""
    if isinstance(event, EventGap):
        return None
    role = ContainerRole(event.labels.get(label.ROLE, ContainerRole.OTHER.value))
    return EngineEventSeen(
        at_ns=event.at_ns,
        action=event.action,
        container=event.container,
        role=role,
        node=event.labels.get(label.NODE, ""),
        vm=event.labels.get(label.RESOURCE, "") if role is ContainerRole.VM else "",
        group=event.labels.get(label.GROUP, ""),
        session=event.labels.get(label.SESSION, ""),
        exit_code=event.exit_code,
        signal=event.signal,
    )


def invariant_record(line: TraceLine) -> InvariantWatched | None:
    """What a watcher of the world has told; None for any other line."""
    if line.component != "watch":
        return None
    return InvariantWatched(at_ns=line.at_us * 1_000, broken=str(line.fields["message"]))


def log_record(line: TraceLine) -> LogLine | None:
    """A line of a node's cluster log; None for what the world itself notes."""
    if "message" not in line.fields or line.component == "watch":
        return None
    fields = {key: value for key, value in line.fields.items() if key not in ("message", "id")}
    return LogLine(
        at_ns=line.at_us * 1_000,
        node=line.node,
        component=line.component,
        event=line.event,
        message=str(line.fields["message"]),
        id=line.fields.get("id"),
        fields=fields,
    )


class SimulatedClient:
    """The client outside: asks every VM again and again at its address and tells what changed.

    An address leads to the node that announced it last, as in the neighbour table of a real client.
    """

    def __init__(self, world: World, *, sink: Callable[[Record], None]) -> None:
        self._world = world
        self._sink = sink
        self._over = False
        self._asked = self._answered = 0
        self._last: dict[str, tuple[bool, str, str]] = {}
        self._targets = _targets(world)

    def start(self) -> None:
        """Ask from now on."""
        clock = self._world.clock
        for index, vm in enumerate(sorted(self._targets)):
            # Out of step, as threads are.
            clock.after(1_000 * index, lambda vm=vm: self._ask(vm))  # type: ignore[misc]
        clock.after(BEAT_US, self._beat)

    def stop(self) -> None:
        """Ask no more."""
        self._over = True

    def _ask(self, vm: str) -> None:
        if self._over:
            return
        world = self._world
        address, says_boot = self._targets[vm]
        ok, boot, node, error, took_us = self._exchange(vm, address, says_boot=says_boot)

        def told() -> None:
            if self._over:
                return
            self._asked += 1
            self._answered += ok
            if self._last.get(vm) != (ok, boot, node):
                self._last[vm] = (ok, boot, node)
                at_ns = world.clock.now_us * 1_000
                self._sink(ClientAnswer(at_ns=at_ns, vm=vm, ok=ok, boot=boot, node=node, error=error))
            world.clock.after(max(1_000, ASK_INTERVAL_US - took_us), lambda: self._ask(vm))

        world.clock.after(took_us, told)

    def _exchange(self, vm: str, address: str, *, says_boot: bool) -> tuple[bool, str, str, str, int]:
        """Whether it answered, boot and node if it tells them, the error, and how long it took in microseconds."""
        world = self._world
        silence = (False, "", "", "no answer in time", ASK_LIMIT_US)
        announced = {name: node.reaches(address) for name, node in world.nodes.items()}
        there = [(at_us, name) for name, at_us in announced.items() if at_us is not None]
        if not there:
            return False, "", "", "No route to host", ASK_LIMIT_US
        node = max(there)[1]
        if not (world.network.passes(OUTSIDE, node) and world.network.passes(node, OUTSIDE)):
            return silence
        here = [box for box in world.instances.running(vm) if box.node == node]
        if any(box.paused or box.stopped for box in here) or world.nodes[node].frozen:
            return silence
        answering = [
            box
            for box in here
            if world.engine.ready(box) and world.clock.now_us >= box.started_us + GUEST_START_US
        ]
        if not answering:
            return False, "", "", "Connection refused", 500
        boot = _boot(answering[0]) if says_boot else ""
        return True, boot, node if says_boot else "", "", 2_000

    def _beat(self) -> None:
        if self._over:
            return
        now = self._world.clock
        self._sink(ClientBeat(at_ns=now.now_us * 1_000, asked=self._asked, answered=self._answered))
        self._asked = self._answered = 0
        now.after(BEAT_US, self._beat)


class SimulatedJournals:
    """What the guests write: a line every tenth of a second while they run, by the kernel's truth."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lines: dict[str, list[tuple[int, str, str]]] = {}
        world.engine.on_started.append(self._started)

    def read(self, vm: str, *, at_ns: int) -> GuestJournal:
        """The VM's journal: neighbouring lines of one boot are one run."""
        lines = self._lines.get(vm, [])
        runs: list[GuestRun] = []
        for number, (at_us, boot, node) in enumerate(lines, start=1):
            first_ns, first_line, count = at_us * 1_000, number, 1
            if runs and runs[-1].boot == boot:
                last = runs.pop()
                assert last.first_boottime_ns is not None
                first_ns, first_line, count = last.first_boottime_ns, last.first_line, last.lines + 1
            runs.append(
                GuestRun(
                    vm=vm,
                    boot=boot,
                    node=node,
                    first_line=first_line,
                    lines=count,
                    first_boottime_ns=first_ns,
                    last_boottime_ns=at_us * 1_000,
                )
            )
        return GuestJournal(at_ns=at_ns, vm=vm, runs=tuple(runs), lines=len(lines))

    def _started(self, box: SimulatedContainer, _at_us: int) -> None:
        if box.is_node:
            return
        life, clock = box.lives, self._world.clock
        lines = self._lines.setdefault(box.labels.get(label.RESOURCE, ""), [])

        def write() -> None:
            if not box.alive or box.lives != life:
                return
            if not (box.paused or box.stopped):
                lines.append((clock.now_us, _boot(box), box.node))
            clock.after(LINE_INTERVAL_US, write)

        clock.after(GUEST_START_US, write)


def _boot(box: SimulatedContainer) -> str:
    return f"{box.id[:12]}.{box.lives}"


def _targets(world: World) -> Mapping[str, tuple[str, bool]]:
    """By VM: its address, and whether what runs in it tells its boot."""
    found = {}
    for vm, where in measured_vms(world.topology).items():
        kind, _, rest = where.partition("://")
        found[vm] = (rest.partition(":")[0], kind == "guest")
    return found
