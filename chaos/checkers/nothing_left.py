"""Nothing is left behind when the run ends: no object of the rig, no fault that was not healed.

The arena lists what still carries the rig's label after it was taken down. On request (`--keep-rig`) the rig stays, but
no fault may.
"""

from chaos.history.records import CleanUp, FaultMoment, FaultRecord, History
from chaos.history.verdict import Ruling, Verdict

__all__ = ["NAME", "check"]

NAME = "nothing left behind"


def check(history: History) -> Verdict:
    """BROKEN when something is left; INCONCLUSIVE when nobody looked."""
    looked = history.last(CleanUp)
    if looked is None:
        reason = "nobody looked for what is left: the rig was not taken down to the end"
        return Verdict(checker=NAME, ruling=Ruling.INCONCLUSIVE, reasons=(reason,))
    left = [f"left behind: {name}" for name in looked.left]
    if looked.kept:
        left += _unhealed(history)
    if left:
        return Verdict(checker=NAME, ruling=Ruling.BROKEN, reasons=tuple(left))
    note = "the rig was kept on request" if looked.kept else "no object of the rig is left"
    return Verdict(checker=NAME, ruling=Ruling.HOLDS, notes=(note,))


def _unhealed(history: History) -> list[str]:
    """A rig that is gone has no faults any more; one that stays must have none."""
    records = history.of(FaultRecord)
    open_faults = {record.number: record for record in records if record.moment is FaultMoment.INTENDED}
    for record in records:
        if record.moment is FaultMoment.HEALED:
            open_faults.pop(record.number, None)
    return [
        f"fault {record.number}, {record.fault} on {record.target}, was not healed" for record in open_faults.values()
    ]
