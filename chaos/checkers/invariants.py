"""The invariants that only a world can watch which hides nothing: what was chosen, believed, ordered, and when.

The simulator's watchers are fed with every event; on containers nobody can know what they know.
"""

from chaos.history.records import History, InvariantWatched
from chaos.history.verdict import Ruling, Verdict

__all__ = ["NAME", "check"]

NAME = "invariants of the simulator"


def check(history: History) -> Verdict:
    """BROKEN with what the watchers told; NOT_APPLICABLE where there are none."""
    watched = history.of(InvariantWatched)
    if not watched:
        return Verdict(
            checker=NAME, ruling=Ruling.NOT_APPLICABLE, notes=("on containers nobody can watch what only they see",)
        )
    broken = tuple(dict.fromkeys(record.broken for record in watched if record.broken))
    return Verdict(checker=NAME, ruling=Ruling.BROKEN if broken else Ruling.HOLDS, reasons=broken)
