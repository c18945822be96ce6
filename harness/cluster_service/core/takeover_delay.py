"""Taking turns: the k-th candidate acts after k times half a lease, if nothing has changed.

Spreads the proposers, and passes the turn when the first candidate cannot do it (safety review, finding 14). An action
that was tried and failed comes round again after a back-off.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

__all__ = ["NEVER_US", "TakeoverDelays", "earliest_after"]

NEVER_US = 1 << 62


def earliest_after(now: int, times: Iterable[int | None]) -> int | None:
    """The earliest of these times that lies after `now`; one that has passed hides none that has not."""
    found: int | None = None
    for time in times:
        if time is not None and time > now and (found is None or time < found):
            found = time
    return found


@dataclass(slots=True)
class _Delay:
    since_us: int
    not_before_us: int = 0
    due_us: int = 0


class TakeoverDelays:
    """When this node may act on each subject of each kind. A subject that is no longer kept is forgotten, and its
    turn starts anew.
    """

    def __init__(self, *, lease_us: int) -> None:
        self._lease_us = lease_us
        self._turns: dict[str, dict[str, _Delay]] = {}
        self._soonest: dict[str, int] = {}

    def keep(self, kind: str, subjects: Collection[str]) -> None:
        """These are the subjects of that kind now; all others are forgotten."""
        known = self._turns.setdefault(kind, {})
        gone = [name for name in known if name not in subjects]
        if gone:
            self._soonest.pop(kind, None)
        for subject in gone:
            del known[subject]

    def forget(self, kind: str) -> None:
        """There are no subjects of that kind now."""
        self._turns.pop(kind, None)
        self._soonest.pop(kind, None)

    def due(self, now: int, kind: str, subject: str, place: int) -> bool:
        """Whether the candidate in that place (0 is first) may act now."""
        known = self._turns.setdefault(kind, {})
        turn = known.get(subject)
        if turn is None:
            turn = known[subject] = _Delay(now)
        turn.due_us = max(turn.not_before_us, turn.since_us + place * self._lease_us // 2)
        if now < turn.due_us < self._soonest.get(kind, 0):
            self._soonest[kind] = turn.due_us
        return now >= turn.due_us

    def again_at(self, kind: str, subject: str, when_us: int) -> None:
        """Not before `when_us`: an attempt failed."""
        turn = self._turns.get(kind, {}).get(subject)
        if turn is not None:
            turn.not_before_us = turn.due_us = when_us
            self._soonest.pop(kind, None)

    def next_wake(self, now: int, kind: str) -> int | None:
        """The earliest turn of that kind after `now`, as it was reckoned last; sometimes one that was put off since."""
        known = self._soonest.get(kind, 0)
        if known <= now:
            turns = self._turns.get(kind, {})
            first = earliest_after(now, [turn.due_us for turn in turns.values()]) if turns else None
            known = self._soonest[kind] = first if first is not None else NEVER_US
        return known if known < NEVER_US else None
