"""The network of a simulated world: messages between nodes, delayed, lost, cut off.

Links are directed, so that one-way cuts exist. A message under way when a link is cut still arrives: cuts act where
a message is sent. What it is not: TCP; whoever needs a broken connection noticed waits for its own limit, as the
live adapters do.
"""

import random
from collections.abc import Callable, Iterable

from harness.simulation.runtime import VirtualClock

__all__ = ["SimulatedNetwork"]

USUAL_DELAY_US = (150, 900)
SLOW_DELAY_US = (5_000, 1_500_000)


class SimulatedNetwork:
    """Carries callbacks instead of bytes. `loss` and `slow` are probabilities for each message."""

    def __init__(self, clock: VirtualClock, rng: random.Random) -> None:
        self.loss = 0.0
        self.slow = 0.0
        self._clock = clock
        self._rng = rng
        self._cut: set[tuple[str, str]] = set()

    def cut(self, sources: Iterable[str], destinations: Iterable[str]) -> None:
        """From now on nothing that a source sends reaches a destination."""
        targets = list(destinations)
        self._cut.update((source, target) for source in sources for target in targets if source != target)

    def heal(self) -> None:
        """Every link works again."""
        self._cut.clear()

    def send(self, source: str, destination: str, arrive: Callable[[], None]) -> None:
        """Call `arrive` at the destination after a while, or never."""
        if source == destination:
            self._clock.after(self._rng.randint(50, 200), arrive)
            return
        if (source, destination) in self._cut or self._rng.random() < self.loss:
            return
        least, most = SLOW_DELAY_US if self._rng.random() < self.slow else USUAL_DELAY_US
        self._clock.after(self._rng.randint(least, most), arrive)
