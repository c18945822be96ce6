"""Every VM that a fault hit, and that is still wanted, was started again; and how long each phase took.

The times themselves are asserted by an experiment's probes, not here. Answering is measured from outside and is data:
Online means running.
"""

from chaos.history.overload import overload_since
from chaos.history.records import ClusterSeen, FaultMoment, FaultRecord, History, Moment
from chaos.history.recovery import Phase, Recovery, read_recoveries
from chaos.history.verdict import Ruling, Verdict

__all__ = ["NAME", "check"]

NAME = "recovery"


def check(history: History) -> Verdict:
    """BROKEN when a wanted VM was not started again; INCONCLUSIVE when the host was overloaded since its fault, or
    when no log line says that the VM was missed.
    """
    rows = read_recoveries(history)
    if not rows:
        hit = any(fault.moment is FaultMoment.INJECTED for fault in history.of(FaultRecord))
        return Verdict(
            checker=NAME,
            ruling=Ruling.NOT_APPLICABLE,
            notes=("no fault hit a VM" if hit else "no fault was injected",),
        )
    unwanted = _unwanted_at_end(history)
    last_of = {row.vm: row for row in rows}
    lost = [row for row in last_of.values() if row.started_ns is None and row.vm not in unwanted]
    notes = tuple(_times(row) for row in rows)
    if lost:
        reasons = [f"{row.vm} was not started again after {row.fault} on {row.target}" for row in lost]
        overload = overload_since(history, min(row.fault_ns for row in lost))
        ruling = Ruling.INCONCLUSIVE if overload else Ruling.BROKEN
        return Verdict(checker=NAME, ruling=ruling, reasons=(*reasons, *([overload] if overload else [])), notes=notes)
    blind = tuple(
        f"{row.vm} was started again after {row.fault} on {row.target}, but no log line says that it was missed"
        for row in rows
        if row.started_ns is not None and row.detected_ns is None
    )
    if blind:
        return Verdict(checker=NAME, ruling=Ruling.INCONCLUSIVE, reasons=blind, notes=notes)
    return Verdict(checker=NAME, ruling=Ruling.HOLDS, notes=notes)


def _unwanted_at_end(history: History) -> set[str]:
    ends = [seen for seen in history.of(ClusterSeen) if seen.moment is Moment.END]
    if not ends:
        return set()
    return {entry.name for group in ends[-1].groups for entry in group.resources if not entry.wanted}


def _times(row: Recovery) -> str:
    phases = (Phase.DETECTED, Phase.CLAIMED, Phase.STARTED, Phase.ANSWERING)
    reached = [(phase, row.after_s(phase)) for phase in phases]
    shown = ", ".join(f"{phase.value} {after:.3f} s" for phase, after in reached if after is not None)
    return f"{row.vm} after {row.fault} on {row.target}: {shown or 'nothing followed'}"
