"""One direction of a local socket: what was sent first arrives first, each a little later than it was sent."""

import random
from collections.abc import Callable

from harness.simulation.runtime import Clock

__all__ = ["InOrder"]

DELAY_US = (80, 300)


class InOrder:
    """Carries callbacks instead of bytes."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._last_us = 0

    def send(self, arrive: Callable[[], None]) -> None:
        """Call `arrive` after a while, and not before what was sent before."""
        self._last_us = max(self._last_us, self._clock.now_us + self._rng.randint(*DELAY_US))
        self._clock.at(self._last_us, arrive)
