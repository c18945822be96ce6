"""What nodes, VMs, groups and faults went through, as spans of time, read from the history of a run.

A reading, not a judgement: each witness keeps its own span, so that a reader sees where they disagree. Spans of one
kind and one subject never overlap.

| span | witness |
|---|---|
| node | engine: start, die, pause, unpause; cluster log: joined, declared Down, fenced, lease lost; snapshots: Paused |
| owner of a group | cluster log: claimed, moved, `resource-online`; snapshots; the higher epoch counts |
| run of a VM | engine events (`chaos.history.instances`) |
| state of a VM | cluster log: `resource-state`; ends with its node |
| not wanted | cluster log: `persistent-state`; snapshots |
| answering | the client outside |
| fault | the runner's own records |
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from chaos.history.instances import Instance, read_instances
from chaos.history.records import (
    ClientAnswer,
    ClusterSeen,
    ContainerRole,
    ContainerSeen,
    EngineEventSeen,
    FaultMoment,
    FaultRecord,
    History,
    LogLine,
)

__all__ = ["FaultBand", "NodeState", "Span", "Timeline", "read_timeline"]


class NodeState(StrEnum):
    """A node as its witnesses show it. FENCED is off, and a survivor has made sure of it."""

    JOINING = "joining"
    UP = "up"
    PAUSED = "paused"
    NO_LEASE = "lease lost"
    DECLARED_DOWN = "declared down"
    FROZEN = "frozen"
    OFF = "off"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From `began_ns` on something was in `state`, until `ended_ns`, or to the end of the run (None).

    `node` is where; `detail` is a sentence for those who want to know more.
    """

    began_ns: int
    ended_ns: int | None = None
    state: str = ""
    node: str = ""
    detail: str = ""
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultBand:
    """One fault from its injection until it was healed.

    `receipt` is None as long as nobody measured its effect; `healed_ns` is None for one that nobody healed. `at_once`:
    there was nothing to undo.
    """

    number: int
    fault: str
    target: str
    began_ns: int
    healed_ns: int | None = None
    receipt: FaultMoment | None = None
    seen: str = ""
    healed_by: str = ""
    affected: tuple[str, ...] = ()

    @property
    def at_once(self) -> bool:
        """Whether it is a moment and no time."""
        return self.healed_by == "nothing to undo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All spans, by the name of what they are about."""

    nodes: dict[str, list[Span]]
    owners: dict[str, list[Span]]
    states: dict[str, list[Span]]
    answers: dict[str, list[Span]]
    unwanted: dict[str, list[Span]]
    instances: dict[str, list[Instance]]
    faults: tuple[FaultBand, ...]


def read_timeline(history: History) -> Timeline:
    """Every span of a history."""
    instances: dict[str, list[Instance]] = {}
    for instance in read_instances(history).all:
        instances.setdefault(instance.vm, []).append(instance)
    return Timeline(
        nodes=_node_spans(history),
        owners=_owner_spans(history),
        states=_state_spans(history),
        answers=_answer_spans(history),
        unwanted=_unwanted_spans(history),
        instances=instances,
        faults=tuple(_fault_bands(history)),
    )


class _Track:
    """Spans of one subject in the order of time: a new state ends the last one."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def become(self, at_ns: int, state: str, *, node: str = "", detail: str = "", epoch: int | None = None) -> None:
        """No state (empty) ends what was and begins nothing."""
        last = self.spans[-1] if self.spans else None
        if last is not None and last.ended_ns is None:
            if (last.state, last.node, last.epoch) == (state, node, epoch):
                return
            self.spans[-1] = replace(last, ended_ns=at_ns)
        if state:
            self.spans.append(Span(began_ns=at_ns, state=state, node=node, detail=detail, epoch=epoch))


@dataclass
class _NodeFacts:
    """What is known of one node now. The state follows from the facts, so no order of witnesses can confuse it."""

    running: bool | None = None
    frozen: bool = False
    member: NodeState | None = None
    paused: bool = False
    session: str = ""
    fenced: bool = False

    @property
    def state(self) -> str:
        if self.running is None:
            return ""
        if not self.running:
            return NodeState.FENCED if self.fenced else NodeState.OFF
        if self.frozen:
            return NodeState.FROZEN
        if self.member is NodeState.UP and self.paused:
            return NodeState.PAUSED
        return self.member or NodeState.JOINING

    def see_container(self, seen: ContainerSeen) -> None:
        """The engine's list: where a run on a standing rig begins. Events know better afterwards."""
        if self.running is None:
            self.running, self.frozen = seen.running, seen.paused

    def see_event(self, event: EngineEventSeen) -> None:
        match event.action:
            case "start":
                self.running, self.frozen, self.member, self.fenced, self.session = True, False, None, False, ""
            case "die":
                self.running = self.frozen = False
            case "pause":
                self.frozen = True
            case "unpause":
                self.frozen = False

    def see_line(self, line: LogLine) -> None:
        """A line that this node wrote of itself, or another of it. One about an earlier session changes nothing."""
        session = str(line.fields.get("session", ""))
        match line.event:
            case "node-joined":
                self.member, self.session = NodeState.UP, session
            case "guests-granted" if self.member is NodeState.NO_LEASE:
                self.member = NodeState.UP
            case "lease-lapsed":
                self.member = NodeState.NO_LEASE
            case "node-declared-down" if session == self.session:
                self.member = NodeState.DECLARED_DOWN
            case "node-fenced" if session == self.session:
                self.fenced = True

    def see_snapshot(self, *, up: bool, paused: bool, session: str) -> None:
        self.paused = paused
        if self.running and up and self.member is None:
            self.member, self.session = NodeState.UP, session


_ABOUT_ANOTHER = ("node-declared-down", "node-fenced")
_ABOUT_ITSELF = ("node-joined", "guests-granted", "lease-lapsed")


def _node_spans(history: History) -> dict[str, list[Span]]:
    facts: dict[str, _NodeFacts] = {}
    tracks: dict[str, _Track] = {}

    def told(node: str, at_ns: int, detail: str) -> None:
        tracks.setdefault(node, _Track()).become(at_ns, facts[node].state, node=node, detail=detail)

    for record in _by_time(history, (ContainerSeen, EngineEventSeen, LogLine, ClusterSeen)):
        match record:
            case ContainerSeen(role=ContainerRole.NODE, node=node):
                facts.setdefault(node, _NodeFacts()).see_container(record)
                told(node, record.at_ns, "as the engine listed it")
            case EngineEventSeen(role=ContainerRole.NODE, node=node):
                facts.setdefault(node, _NodeFacts()).see_event(record)
                told(node, record.at_ns, f"engine: {record.action}")
            case LogLine(event=event) if event in _ABOUT_ITSELF + _ABOUT_ANOTHER:
                node = record.node if event in _ABOUT_ITSELF else str(record.fields.get("node", ""))
                facts.setdefault(node, _NodeFacts()).see_line(record)
                told(node, record.at_ns, f"{record.node}: {record.message}")
            case ClusterSeen():
                for seen in record.nodes:
                    known = facts.setdefault(seen.name, _NodeFacts())
                    known.see_snapshot(up=seen.state == "Up", paused=seen.paused, session=seen.session)
                    told(seen.name, record.at_ns, "as the cluster saw it")
    return {node: track.spans for node, track in tracks.items()}


_OWNER_TOLD = ("group-claimed", "group-moved", "group-move-given-up", "resource-online")


def _owner_spans(history: History) -> dict[str, list[Span]]:
    tracks: dict[str, _Track] = {}
    epochs: dict[str, int] = {}

    def told(at_ns: int, group: str, owner: str, epoch: int, detail: str) -> None:
        if epoch <= epochs.get(group, 0):
            return
        epochs[group] = epoch
        tracks.setdefault(group, _Track()).become(at_ns, owner, node=owner, detail=detail, epoch=epoch)

    for record in _by_time(history, (LogLine, ClusterSeen)):
        match record:
            case LogLine(fields=fields) if record.event in _OWNER_TOLD:
                # The owner before tells of a move; everything else is told by the owner itself.
                owner = fields.get("target") if record.event == "group-moved" else record.node
                epoch = fields.get("epoch")
                if isinstance(epoch, int):
                    told(record.at_ns, str(fields.get("group", "")), str(owner), epoch, record.message)
            case ClusterSeen():
                for group in record.groups:
                    told(record.at_ns, group.name, group.owner, group.epoch, "as the cluster saw it")
    return {group: track.spans for group, track in tracks.items()}


def _state_spans(history: History) -> dict[str, list[Span]]:
    """States that are neither Online nor Offline: the run itself shows those."""
    tracks: dict[str, _Track] = {}
    for record in _by_time(history, (LogLine, EngineEventSeen)):
        match record:
            case LogLine(event="resource-state", fields=fields) if fields.get("old") != "Initializing":
                state = str(fields.get("state", ""))
                shown = "" if state in ("Online", "Offline") else state
                track = tracks.setdefault(str(fields.get("resource", "")), _Track())
                if shown or (track.spans and track.spans[-1].node == record.node):
                    track.become(record.at_ns, shown, node=record.node, detail=record.message)
            case EngineEventSeen(role=ContainerRole.NODE, action="die", node=node):
                for track in tracks.values():
                    if track.spans and track.spans[-1].node == node:
                        track.become(record.at_ns, "")
    return {name: track.spans for name, track in tracks.items() if track.spans}


def _answer_spans(history: History) -> dict[str, list[Span]]:
    tracks: dict[str, _Track] = {}
    for answer in history.of(ClientAnswer):
        state = "answers" if answer.ok else "no answer"
        detail = f"boot {answer.boot}" if answer.ok else answer.error
        tracks.setdefault(answer.vm, _Track()).become(answer.at_ns, state, node=answer.node, detail=detail)
    return {vm: track.spans for vm, track in tracks.items()}


def _unwanted_spans(history: History) -> dict[str, list[Span]]:
    tracks: dict[str, _Track] = {}

    def told(at_ns: int, resource: str, wanted: object) -> None:
        tracks.setdefault(resource, _Track()).become(at_ns, "" if wanted else "PersistentState 0")

    for record in _by_time(history, (LogLine, ClusterSeen)):
        match record:
            case LogLine(event="persistent-state", fields=fields):
                told(record.at_ns, str(fields.get("resource", "")), fields.get("wanted"))
            case ClusterSeen():
                for group in record.groups:
                    for resource in group.resources:
                        told(record.at_ns, resource.name, resource.wanted)
    return {name: track.spans for name, track in tracks.items() if track.spans}


_RECEIPTS = (FaultMoment.CONFIRMED, FaultMoment.MISMATCH, FaultMoment.INCONCLUSIVE, FaultMoment.FAILED)


def _fault_bands(history: History) -> Iterator[FaultBand]:
    moments: dict[int, list[FaultRecord]] = {}
    for record in history.of(FaultRecord):
        moments.setdefault(record.number, []).append(record)
    for number, records in sorted(moments.items()):
        first = next((entry for entry in records if entry.moment is FaultMoment.INJECTED), records[0])
        receipt = next((entry for entry in records if entry.moment in _RECEIPTS), None)
        healed = next((entry for entry in records if entry.moment is FaultMoment.HEALED), None)
        yield FaultBand(
            number=number,
            fault=first.fault,
            target=first.target,
            began_ns=first.at_ns,
            healed_ns=healed.at_ns if healed else None,
            receipt=receipt.moment if receipt else None,
            seen=receipt.seen if receipt else "",
            healed_by=healed.seen if healed else "",
            affected=first.affected,
        )


Seen = ContainerSeen | EngineEventSeen | LogLine | ClusterSeen


def _by_time(history: History, kinds: tuple[type[Seen], ...]) -> Iterable[Seen]:
    found = [record for record in history if isinstance(record, kinds)]
    return sorted(found, key=lambda record: record.at_ns)
