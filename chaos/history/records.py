"""Everything that happened in a run, as one ordered list of frozen records.

Checkers read this and nothing else, so it stands alone: it imports neither harness nor engine, and what it holds comes
from several witnesses that do not know each other (the engine's events, the nodes' cluster logs, a client outside, the
guests' own journals). It concludes nothing. All times are Unix time in integer nanoseconds, as the engine stamps its
events; the guests' own stamps are nanoseconds of the boot-time clock.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, TypeVar

__all__ = [
    "CleanUp",
    "ClientAnswer",
    "ClientBeat",
    "ClusterSeen",
    "ContainerRole",
    "ContainerSeen",
    "EngineEventSeen",
    "EngineSlow",
    "FaultMoment",
    "FaultRecord",
    "GroupSeen",
    "GuestJournal",
    "GuestRun",
    "HarnessNote",
    "History",
    "InvariantWatched",
    "LogLine",
    "Moment",
    "NodeSeen",
    "PartBegan",
    "Reconciled",
    "Record",
    "ResourceSeen",
    "Stall",
    "StepEnded",
    "StreamGap",
    "to_plain",
]


class ContainerRole(StrEnum):
    """The part a container plays in the rig, from its label."""

    NODE = "node"
    VM = "vm"
    CLIENT = "client"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEventSeen:
    """One event of the engine about a container of the rig.

    `vm` and `group` are empty unless `role` is VM; `action` is the engine's word.
    """

    at_ns: int
    action: str
    container: str
    role: ContainerRole
    node: str
    vm: str = ""
    group: str = ""
    session: str = ""
    exit_code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSeen:
    """One container of the rig as the engine listed it. `started_ns` is StartedAt, None if it never ran."""

    at_ns: int
    container: str
    role: ContainerRole
    node: str
    running: bool
    paused: bool = False
    started_ns: int | None = None
    exit_code: int | None = None
    vm: str = ""
    group: str = ""
    session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamGap:
    """The engine's event stream was interrupted from `since_ns` to `at_ns`.

    `complete` says that the replay after it certainly has every event.
    """

    at_ns: int
    since_ns: int
    complete: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """The engine's list was compared with what its events had said.

    `differences` are sentences; none means that no event was lost until `at_ns`.
    """

    at_ns: int
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of a node's cluster log. `event` is its stable name."""

    at_ns: int
    node: str
    component: str
    event: str
    message: str
    id: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAnswer:
    """The client's view of one VM changed: `ok` or not, and which boot on which node answered."""

    at_ns: int
    vm: str
    ok: bool
    boot: str = ""
    node: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientBeat:
    """The client lives: how often it asked in the last second and how many answers it got, over all VMs."""

    at_ns: int
    asked: int
    answered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestRun:
    """Neighbouring lines of one boot in a VM's journal, in the order of the file.

    `first_boottime_ns` and `last_boottime_ns` are on the boot-time clock.
    """

    vm: str
    boot: str
    node: str
    first_line: int
    lines: int
    first_boottime_ns: int | None
    last_boottime_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestJournal:
    """A VM's journal as it was read at `at_ns`.

    `error` is empty if it could be read; `unreadable_lines` were torn by a crash or a full disk. `kept` is False for a
    VM that runs another program than the guest's and has none.
    """

    at_ns: int
    vm: str
    runs: tuple[GuestRun, ...] = ()
    lines: int = 0
    unreadable_lines: int = 0
    error: str = ""
    kept: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """One node as the cluster sees it: `state` is Up, Down or Joining."""

    name: str
    state: str
    paused: bool = False
    session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSeen:
    """One resource as the cluster sees it. `wanted` is PersistentState."""

    name: str
    type: str
    state: str
    wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSeen:
    """One group as the cluster sees it. `owner` is a node's name, empty if there is none."""

    name: str
    owner: str
    state: str
    epoch: int = 0
    owner_session: str = ""
    resources: tuple[ResourceSeen, ...] = ()


class Moment(StrEnum):
    """At which point of a run something was looked at."""

    BEFORE = "before"
    DURING = "during"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSeen:
    """A snapshot of the cluster as one of its nodes told it."""

    at_ns: int
    quorum: bool
    nodes: tuple[NodeSeen, ...]
    groups: tuple[GroupSeen, ...]
    moment: Moment = Moment.DURING

    def group(self, name: str) -> GroupSeen | None:
        """The group of that name."""
        return next((group for group in self.groups if group.name == name), None)


class FaultMoment(StrEnum):
    """A fault's life. INTENDED is written before anything is done."""

    INTENDED = "intended"
    INJECTED = "injected"
    CONFIRMED = "confirmed"
    MISMATCH = "mismatch"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"
    HEALED = "healed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord:
    """One moment of a fault's life.

    `number` counts the run's faults from 1; `target` is a node or a VM; `seen` is the receipt's sentence.

    `affected` names the VMs that ran on the target, or were it, when the fault was injected. The faults of one
    activity, aimed at several nodes or VMs, share their `batch`: the number of the first of them.
    """

    at_ns: int
    number: int
    fault: str
    target: str
    moment: FaultMoment
    seen: str = ""
    affected: tuple[str, ...] = ()
    batch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PartBegan:
    """A part of the run began: up, gate, method, rollbacks, undo, last look, evidence or down."""

    at_ns: int
    part: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded:
    """An activity of the experiment ended.

    `phase` is gate, method, during, after or rollbacks; `outcome` is succeeded, failed, skipped. `what` is the fault
    and its target, or the probe; `expected` is a probe's tolerance, empty if there is none.
    """

    at_ns: int
    began_ns: int
    phase: str
    name: str
    outcome: str
    output: Any = None
    reason: str = ""
    what: str = ""
    expected: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """The runner's VM stood still for `length_us` until `at_ns`: times measured over it mean little.

    `load` is the load average of its host then, None where the arena has none.
    """

    at_ns: int
    length_us: int
    load: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSlow:
    """The engine took `took_us` until `at_ns` to answer a call that does nothing, or had not answered it then.

    `load` is the load average of the runner's host then, None where the arena has none.
    """

    at_ns: int
    took_us: int
    answered: bool
    load: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessNote:
    """The harness did its work in another way than usual; `text` says which and why. It is no finding."""

    at_ns: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanUp:
    """What was left when the rig had been taken down. `kept` means that nobody took it down, on request."""

    at_ns: int
    left: tuple[str, ...] = ()
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InvariantWatched:
    """The watchers of a world that hides nothing: that they watch, and then each thing that they saw broken."""

    at_ns: int
    broken: str = ""


Record = (
    EngineEventSeen
    | ContainerSeen
    | StreamGap
    | Reconciled
    | LogLine
    | ClientAnswer
    | ClientBeat
    | GuestJournal
    | ClusterSeen
    | FaultRecord
    | PartBegan
    | StepEnded
    | Stall
    | EngineSlow
    | HarnessNote
    | InvariantWatched
    | CleanUp
)

R = TypeVar("R")


class History:
    """The records of one run.

    Invariant: append-only; `of` gives them by time, whatever the order in which the witnesses spoke.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records: list[Record] = list(records)
        self._listeners: list[Callable[[Record], None]] = []

    def append(self, record: Record) -> None:
        """Add a record and tell whoever listens. Only ever called from the runner's own thread."""
        self._records.append(record)
        for listener in tuple(self._listeners):
            listener(record)

    def listen(self, listener: Callable[[Record], None]) -> Callable[[], None]:
        """Have `listener` called with every later record; the answer ends that."""
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    def of(self, kind: type[R]) -> list[R]:
        """All records of one kind, by time; records of one time keep the order in which they came."""
        found: list[Any] = [record for record in self._records if isinstance(record, kind)]
        return sorted(found, key=lambda record: record.at_ns)

    def last(self, kind: type[R]) -> R | None:
        """The record of one kind that was appended last."""
        for record in reversed(self._records):
            if isinstance(record, kind):
                return record
        return None

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


def to_plain(value: Any) -> Any:
    """A record, or any part of one, as JSON values. A record says its kind under `record`; a number that JSON
    does not have becomes text: nan, inf, -inf.
    """
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {entry.name: to_plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
        return {"record": type(value).__name__, **plain} if "at_ns" in plain else plain
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return repr(value)
