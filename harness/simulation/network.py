"""The network of a simulated world: messages between nodes, delayed, lost, cut off.

Links are directed, so that one-way cuts exist. A message under way when a link is cut still arrives: cuts act where
a message is sent. What it is not: TCP; whoever needs a broken connection noticed waits for its own limit, as the
live adapters do.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable

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
        self._isolated: dict[str, tuple[frozenset[str], bool, bool]] = {}
        self.dropped: Counter[str] = Counter()

    def cut(self, sources: Iterable[str], destinations: Iterable[str]) -> None:
        """From now on nothing that a source sends reaches a destination."""
        targets = list(destinations)
        self._cut.update((source, target) for source in sources for target in targets if source != target)

    def heal(self) -> None:
        """Every link works again."""
        self._cut.clear()

    def isolate(
        self, node: str, *, peers: Collection[str] = (), inbound: bool = True, outbound: bool = True
    ) -> None:
        """The node drops what comes from its peers, or goes to them, until `join`; without `peers`, everybody."""
        self._isolated[node] = (frozenset(peers), inbound, outbound)

    def join(self, node: str) -> None:
        """The node drops nothing any more."""
        self._isolated.pop(node, None)

    def is_isolated(self, node: str) -> bool:
        """Whether the node drops anything by `isolate`."""
        return node in self._isolated

    def passes(self, source: str, destination: str) -> bool:
        """Whether nothing is in the way from here to there. A packet that a node drops is counted in `dropped`."""
        if (source, destination) in self._cut:
            return False
        if not self._isolated:
            return True
        for node, peer, inbound in ((source, destination, False), (destination, source, True)):
            if node in self._isolated:
                peers, drops_in, drops_out = self._isolated[node]
                if (drops_in if inbound else drops_out) and (not peers or peer in peers):
                    self.dropped[node] += 1
                    return False
        return True

    def send(self, source: str, destination: str, arrive: Callable[[], None]) -> None:
        """Call `arrive` at the destination after a while, or never."""
        if source == destination:
            self._clock.after(50 + int(self._rng.random() * 150), arrive)
            return
        if not self.passes(source, destination) or (self.loss and self._rng.random() < self.loss):
            return
        least, most = SLOW_DELAY_US if self.slow and self._rng.random() < self.slow else USUAL_DELAY_US
        self._clock.after(least + int(self._rng.random() * (most - least)), arrive)
