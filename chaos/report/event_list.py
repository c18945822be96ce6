"""Everything that happened in a run as one list for people: who said what, and when.

From the cluster log, the engine, the client outside and the experiment itself. A huge run has more lines than a page
can hold: then what says least is left out first, and the number is told.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from chaos.history.records import (
    ClientAnswer,
    EngineEventSeen,
    EngineSlow,
    FaultRecord,
    HarnessNote,
    LogLine,
    PartBegan,
    Stall,
    StepEnded,
    StreamGap,
)
from chaos.output.sanitized_text import cut
from chaos.report.run_record import RunRecord

__all__ = ["MAX_EVENTS", "Event", "Happenings", "read_happenings"]

MAX_EVENTS = 2000
"""Rows that a phone still scrolls through; the journal has them all."""

_ENGINE_ACTIONS = ("start", "die", "kill", "stop", "pause", "unpause", "oom", "restart")
_OUTPUT = 3
_ROUTINE = (
    *("program-started", "resource-state", "voters-known", "resource-host-started"),
    *("voter-port-closed", "api-port-closed", "guest-network-closed", "guest-flows-closed"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line. `source` is cluster log, engine, client or experiment; `rank` says what may be left out: 3 first."""

    at_ns: int
    source: str
    node: str
    name: str
    text: str
    rank: int = 1
    id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Happenings:
    """The lines that are shown, by time, and how many there were."""

    shown: tuple[Event, ...]
    total: int

    @property
    def left_out(self) -> int:
        """How many are not shown."""
        return self.total - len(self.shown)


def read_happenings(run: RunRecord, *, limit: int = MAX_EVENTS) -> Happenings:
    """At most `limit` lines: when there are more, outputs of programs go first, then routine, then what came last."""
    every = sorted(_all(run), key=lambda entry: entry.at_ns)
    kept = sorted(every, key=lambda entry: entry.rank)[:limit]
    return Happenings(shown=tuple(sorted(kept, key=lambda entry: entry.at_ns)), total=len(every))


def _all(run: RunRecord) -> Iterator[Event]:
    for record in run.history:
        match record:
            case LogLine():
                yield _of_log(record)
            case EngineEventSeen(action=action) if action in _ENGINE_ACTIONS:
                yield _of_engine(record)
            case ClientAnswer():
                said = f"answers from {record.node}" if record.ok else f"does not answer: {record.error}"
                yield _line(record.at_ns, "client", record.node, "answer", f"{record.vm} {said}")
            case FaultRecord():
                text = f"{record.number} {record.fault} on {record.target} {record.moment}"
                text += f": {record.seen}" if record.seen else ""
                yield _line(record.at_ns, "experiment", "", "fault", text, rank=0)
            case StepEnded():
                text = f"{record.phase}: {record.name}: {record.outcome}"
                yield _line(record.at_ns, "experiment", "", "step", text, rank=0)
            case PartBegan():
                yield _line(record.at_ns, "experiment", "", "part", f"{record.part} began", rank=0)
            case Stall():
                text = f"the runner stood still for {record.length_us / 1e6:.1f} s"
                yield _line(record.at_ns, "experiment", "", "stall", text, rank=0)
            case EngineSlow():
                what = "answered after" if record.answered else "had not answered after"
                text = f"the engine {what} {record.took_us / 1e6:.1f} s"
                yield _line(record.at_ns, "experiment", "", "engine-slow", text, rank=0)
            case HarnessNote():
                yield _line(record.at_ns, "experiment", "", "note", record.text, rank=0)
            case StreamGap():
                text = f"events were not heard: {record.reason}"
                yield _line(record.at_ns, "engine", "", "gap", text, rank=0)


def _of_log(line: LogLine) -> Event:
    if line.event == "output":
        rank = _OUTPUT
    elif line.id is not None:
        rank = 0
    else:
        rank = 2 if line.event in _ROUTINE else 1
    return Event(
        at_ns=line.at_ns,
        source="cluster log",
        node=line.node,
        name=cut(line.event, 60),
        text=cut(f"{line.component}: {line.message}"),
        rank=rank,
        id=line.id,
    )


def _of_engine(event: EngineEventSeen) -> Event:
    what = event.vm or f"{event.role} {event.node}".strip()
    ended = "" if event.exit_code is None else f", exit code {event.exit_code}"
    signal = "" if event.signal is None else f", signal {event.signal}"
    text = f"{what} ({event.container[:12]}): {event.action}{ended}{signal}"
    return _line(event.at_ns, "engine", event.node, event.action, text)


def _line(at_ns: int, source: str, node: str, name: str, text: str, *, rank: int = 1) -> Event:
    return Event(at_ns=at_ns, source=source, node=node, name=name, text=cut(text), rank=rank)
