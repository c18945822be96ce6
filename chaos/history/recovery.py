"""Recovery as data: for each fault and each VM that it hit, when each phase was reached.

Read from the history by one rule, so that the probe `recovery-time`, the checker and the table at the end cannot
disagree. It judges nothing.

| phase | witness |
|---|---|
| fault | the arena: the moment of the kill, or just before it was asked for |
| detected | cluster log: `resource-failed` of the VM; of its node `node-lease-expired`, `node-declared-down`, or
`node-joined` when it is back before anybody missed it: the session that owned the VM is over |
| claimed | cluster log: `group-claimed`; none after a restart in place |
| started | engine: the VM's start event |
| answering | client: the first good answer of a boot that had not answered before; of a VM that does not say which
boot answers, the first after `started` that follows a silence |
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from chaos.history.instances import read_instances
from chaos.history.records import (
    ClientAnswer,
    ContainerRole,
    EngineEventSeen,
    FaultMoment,
    FaultRecord,
    History,
    LogLine,
)

__all__ = ["Phase", "Recovery", "read_recoveries"]


DETECTIONS = ("resource-failed", "node-lease-expired", "node-declared-down", "node-joined")


class Phase(StrEnum):
    """The phases of one VM's recovery, in order."""

    FAULT = "fault"
    DETECTED = "detected"
    CLAIMED = "claimed"
    STARTED = "started"
    ANSWERING = "answering"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One VM after one fault.

    Times are None for a phase that was not reached, or not needed (`claimed` after a restart in place). `batch` is the
    same for the faults of one activity.
    """

    number: int
    fault: str
    target: str
    vm: str
    group: str
    from_node: str
    fault_ns: int
    detected_ns: int | None = None
    claimed_ns: int | None = None
    started_ns: int | None = None
    answering_ns: int | None = None
    to_node: str = ""
    batch: int = 0

    def at_ns(self, phase: Phase) -> int | None:
        """When the phase was reached."""
        times = {
            Phase.FAULT: self.fault_ns,
            Phase.DETECTED: self.detected_ns,
            Phase.CLAIMED: self.claimed_ns,
            Phase.STARTED: self.started_ns,
            Phase.ANSWERING: self.answering_ns,
        }
        return times[phase]

    def after_s(self, phase: Phase) -> float | None:
        """Seconds from the fault to the phase; None if it was not reached."""
        at_ns = self.at_ns(phase)
        return None if at_ns is None else max(0, at_ns - self.fault_ns) / 1e9


def read_recoveries(history: History) -> list[Recovery]:
    """One row for each fault and VM that it hit, in the order of the faults, VMs by name.

    Faults that were not confirmed and faults that hit no VM have none. Nor has a VM that ran on through the
    fault: some faults end it only when they last.
    """
    faults = history.of(FaultRecord)
    confirmed = {record.number for record in faults if record.moment is FaultMoment.CONFIRMED}
    injected = [
        record
        for record in faults
        if record.moment is FaultMoment.INJECTED and record.affected and record.number in confirmed
    ]
    reader = _Reader(history)
    rows: list[Recovery] = []
    for index, fault in enumerate(injected):
        # A VM's recovery belongs to the last fault that hit it.
        for vm in sorted(fault.affected):
            later = [other.at_ns for other in injected[index + 1 :] if vm in other.affected]
            until_ns = min(later, default=None)
            if not reader.ran_on(vm, fault.at_ns, until_ns):
                rows.append(reader.row(fault, vm, until_ns=until_ns))
    return rows


class _Reader:
    def __init__(self, history: History) -> None:
        self._log = history.of(LogLine)
        self._answers = history.of(ClientAnswer)
        self._instances = read_instances(history)
        self._events = [event for event in history.of(EngineEventSeen) if event.role is ContainerRole.VM]

    def ran_on(self, vm: str, began_ns: int, until_ns: int | None) -> bool:
        """Whether the VM's run at `began_ns` went on until `until_ns`, or goes on still, and no other began."""
        end_ns = until_ns if until_ns is not None else 1 << 63
        runs = self._instances.of_vm(vm)
        goes_on = any(
            run.started_ns < began_ns and (run.ended_ns is None or run.ended_ns >= end_ns) for run in runs
        )
        return goes_on and not any(began_ns <= run.started_ns < end_ns for run in runs)

    def row(self, fault: FaultRecord, vm: str, *, until_ns: int | None) -> Recovery:
        began_ns = fault.at_ns
        end_ns = until_ns if until_ns is not None else 1 << 63
        before = [run for run in self._instances.of_vm(vm) if run.started_ns < began_ns]
        start = next(
            (e for e in self._events if e.vm == vm and e.action == "start" and began_ns <= e.at_ns < end_ns),
            None,
        )
        group = start.group if start else (before[-1].group if before else "")
        lost_node = "" if fault.target == vm else fault.target
        return Recovery(
            number=fault.number,
            fault=fault.fault,
            target=fault.target,
            vm=vm,
            group=group,
            from_node=before[-1].node if before else lost_node,
            fault_ns=fault.at_ns,
            detected_ns=self._detected(vm, lost_node, began_ns, end_ns),
            claimed_ns=self._claimed(group, began_ns, end_ns),
            started_ns=start.at_ns if start else None,
            answering_ns=self._answering(vm, began_ns, end_ns, start.at_ns if start else None),
            to_node=start.node if start else "",
            batch=fault.batch or fault.number,
        )

    def _lines(self, began_ns: int, end_ns: int, *events: str) -> Iterator[LogLine]:
        return (line for line in self._log if line.event in events and began_ns <= line.at_ns < end_ns)

    def _detected(self, vm: str, lost_node: str, began_ns: int, end_ns: int) -> int | None:
        for line in self._lines(began_ns, end_ns, *DETECTIONS):
            about_vm = line.event == "resource-failed" and line.fields.get("resource") == vm
            about_node = line.event != "resource-failed" and bool(lost_node) and _names(line, lost_node)
            if about_vm or about_node:
                return line.at_ns
        return None

    def _claimed(self, group: str, began_ns: int, end_ns: int) -> int | None:
        lines = self._lines(began_ns, end_ns, "group-claimed")
        return next((line.at_ns for line in lines if line.fields.get("group") == group), None)

    def _answering(self, vm: str, began_ns: int, end_ns: int, started_ns: int | None) -> int | None:
        mine = [answer for answer in self._answers if answer.vm == vm and answer.ok]
        old_boots = {answer.boot for answer in mine if answer.at_ns < began_ns}
        for answer in mine:
            if not began_ns <= answer.at_ns < end_ns:
                continue
            # The client tells changes only: without a boot, a good answer after the start ended a silence.
            new = answer.boot not in old_boots if answer.boot else started_ns is not None and answer.at_ns >= started_ns
            if new:
                return answer.at_ns
        return None


def _names(line: LogLine, node: str) -> bool:
    """Whether the line is about that node: it names it, or a session of it."""
    about = [str(line.fields.get(key, "")) for key in ("node", "session", "lost", "target")]
    return any(value == node or value.startswith(f"{node}@") for value in about)
