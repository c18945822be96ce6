"""What a run has left open, by its journal: faults that are not known to be healed, and a rig that may still stand.

A run that was killed says nothing more, and its rig may be a rig that others use. The journal ends where the run ended:
what a reaper, a repair or `down` did afterwards is not in it, so each remedy is one that does no harm twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from chaos.history.records import CleanUp, FaultMoment, FaultRecord, History
from chaos.report.run_record import RunRecord

__all__ = ["LeftOpen", "read_left_open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOpen:
    """Faults, as sentences, the newest first, and the sentence that says how to heal them or to remove the rig."""

    faults: tuple[str, ...]
    remedy: str


def read_left_open(run: RunRecord) -> LeftOpen | None:
    """None for a run whose rig is gone, was a simulated one, or was kept with every fault healed."""
    cleaned = run.history.last(CleanUp)
    if run.facts.get("arena") == "sim" or (cleaned is not None and not cleaned.kept and not cleaned.left):
        return None
    faults = tuple(_sentence(run, records) for records in _open_faults(run.history))
    repair = f"`blackstart repair --name {run.rig}` heals them, also if some are healed already"
    down = f"`blackstart down --name {run.rig}` removes its rig, if it still stands"
    if cleaned is None:
        remedy = f"the journal ends before the clean-up: {f'{repair}; {down}' if faults else down}"
    elif faults:
        remedy = repair
    else:
        return None
    return LeftOpen(faults=faults, remedy=remedy)


def _open_faults(history: History) -> list[Sequence[FaultRecord]]:
    """The records of each fault that was begun and not seen healed, the newest fault first."""
    by_number: dict[int, list[FaultRecord]] = {}
    for record in history.of(FaultRecord):
        by_number.setdefault(record.number, []).append(record)
    begun = [records for _, records in sorted(by_number.items(), reverse=True)]
    return [records for records in begun if all(record.moment is not FaultMoment.HEALED for record in records)]


def _sentence(run: RunRecord, records: Sequence[FaultRecord]) -> str:
    """A fault that was only intended may have been carried out: the line after it is missing, not the effect."""
    first, last = records[0], records[-1]
    injected = any(record.moment is not FaultMoment.INTENDED for record in records)
    state = f"last record: {last.moment}" if injected else "about to be injected when the journal ends"
    seen = f", {last.seen}" if last.seen else ""
    return f"{first.fault} on {first.target}, {run.seconds(first.at_ns):.1f} s after the beginning ({state}{seen})"
