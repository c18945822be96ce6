"""The boot-time clock of one simulated node: it runs at a rate of its own, and began at a time of its own.

Nothing that one node reads off its clock means anything on another.
"""

from collections.abc import Callable

from harness.simulation.kernel.runtime import VirtualClock

__all__ = ["MAX_DRIFT_PPM", "DriftingClock"]

MAX_DRIFT_PPM = 10_000
"""Two clocks that differ by 2 % are within what fencing `self` waits longer than a lease (its 5 %), and far beyond what
quartz does.
"""
MILLION = 1_000_000


class DriftingClock:
    """Gains `rate_ppm` microseconds a second, loses them if negative, and was `ahead_us` ahead when the world began."""

    def __init__(self, world: VirtualClock, *, rate_ppm: int, ahead_us: int) -> None:
        self._world = world
        self._rate_ppm = rate_ppm
        self._ahead_us = ahead_us

    @property
    def now_us(self) -> int:
        """The node's own time."""
        return self._ahead_us + self._world.now_us * (MILLION + self._rate_ppm) // MILLION

    def at(self, when_us: int, callback: Callable[[], None]) -> None:
        """Run `callback` at that time of the node, or as soon as possible if that has passed."""
        since_us = when_us - self._ahead_us
        self._world.at(-(-since_us * MILLION // (MILLION + self._rate_ppm)), callback)

    def after(self, delay_us: int, callback: Callable[[], None]) -> None:
        """Run `callback` after so many of the node's microseconds."""
        self.at(self.now_us + delay_us, callback)
