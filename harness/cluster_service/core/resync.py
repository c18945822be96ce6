"""When the managers that decide by all of their facts look at all of them again.

Recovery is a level and not an edge: a look finds whatever an earlier one has missed, so it need not follow every fact.
It follows at once after a fact that may concern these managers, when a time of theirs has come, and when this node's
right to act has begun or ended. What comes most by far (answers of voters, ticks) changes nothing for them but what
grows with time, and they tell when that is due; should one of them not, it is found by the next look: half a second
after a look that led to something, five seconds after one that led to nothing.
"""

__all__ = ["RESYNC_ACTIVE_US", "RESYNC_IDLE_US", "ResyncTimer"]

RESYNC_ACTIVE_US = 500_000
RESYNC_IDLE_US = 5_000_000


class ResyncTimer:
    """Remembers the last one. The first is always due. `wake_us` is the next time of the managers that look."""

    def __init__(self) -> None:
        self.wake_us: int | None = None
        self._next_us = 0
        self._could_act: bool | None = None

    def due(self, now: int, *, may_act: bool, routine: bool) -> bool:
        """Whether to look after a fact, which may be routine to whoever looks."""
        return not (routine and may_act == self._could_act and now < self.rests_until_us)

    def also(self, now: int, *, acted: bool, wake_us: int | None) -> None:
        """One of them has looked alone; `wake_us` is the first time after `now` that is its own."""
        if acted:
            self._next_us = min(self._next_us, now + RESYNC_ACTIVE_US)
        if wake_us is not None and (self.wake_us is None or wake_us < self.wake_us):
            self.wake_us = wake_us

    @property
    def rests_until_us(self) -> int:
        """Until when no routine fact is looked at, as long as the right to act stays."""
        return self._next_us if self.wake_us is None or self._next_us < self.wake_us else self.wake_us

    def done(self, now: int, *, may_act: bool, acted: bool, wake_us: int | None) -> None:
        """They have looked, and whether they did anything; `wake_us` is the first time after `now` that is theirs."""
        self._could_act = may_act
        self._next_us = now + (RESYNC_ACTIVE_US if acted else RESYNC_IDLE_US)
        self.wake_us = wake_us
