"""The network of a simulated world: messages between nodes, delayed, lost, doubled, out of order, cut off.

Links are directed, so that one-way cuts exist. Whoever troubles links holds a handle, and mends only what it has
troubled. A message under way when a link is cut still arrives: cuts act where a message is sent. What it is not: TCP;
whoever needs a broken connection noticed waits for its own limit, as the live adapters do.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from harness.simulation.kernel.runtime import VirtualClock

__all__ = ["Link", "LinkFault", "SimulatedNetwork", "among", "between"]

LOCAL_DELAY_US = (50, 200)
USUAL_DELAY_US = (150, 900)
SLOW_DELAY_US = (5_000, 1_500_000)
SHUFFLED_DELAY_US = (150, 250_000)
"""Longer than a beat: whatever is sent within that time arrives in any order."""

Link = tuple[str, str]
"""From whom, to whom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFault:
    """What befalls messages: `cut` takes all of them; the others are probabilities for each message."""

    cut: bool = False
    loss: float = 0.0
    slow: float = 0.0
    double: float = 0.0
    shuffle: float = 0.0

    def beside(self, other: "LinkFault") -> "LinkFault":
        """Both at once: the worse of each."""
        return LinkFault(
            cut=self.cut or other.cut,
            loss=max(self.loss, other.loss),
            slow=max(self.slow, other.slow),
            double=max(self.double, other.double),
            shuffle=max(self.shuffle, other.shuffle),
        )


CUT = LinkFault(cut=True)


def between(ones: Iterable[str], others: Collection[str]) -> list[Link]:
    """The links of `ones` with `others`, in both directions."""
    pairs = [(one, other) for one in ones for other in others if one != other]
    return [link for one, other in pairs for link in ((one, other), (other, one))]


def among(names: Collection[str]) -> list[Link]:
    """Every link of these."""
    return [(one, other) for one in names for other in names if one != other]


class SimulatedNetwork:
    """Carries callbacks instead of bytes."""

    def __init__(self, clock: VirtualClock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._laid: dict[int, tuple[frozenset[Link], LinkFault]] = {}
        self._handles = 0
        self._links: dict[Link, LinkFault] = {}
        self._isolated: dict[str, tuple[frozenset[str], bool, bool]] = {}
        self._misrouted: dict[str, str] = {}
        self.dropped: Counter[str] = Counter()

    def trouble(self, links: Iterable[Link], trouble: LinkFault) -> int:
        """From now on that befalls what is sent over these links. Returns the handle for `mend`."""
        self._handles += 1
        self._laid[self._handles] = (frozenset(links), trouble)
        self._reckon()
        return self._handles

    def cut(self, sources: Iterable[str], destinations: Iterable[str]) -> int:
        """From now on nothing that a source sends reaches a destination. Returns the handle for `mend`."""
        targets = list(destinations)
        return self.trouble(
            [(source, target) for source in sources for target in targets if source != target], CUT
        )

    def mend(self, handle: int) -> None:
        """Take that one trouble away; harmless when it is gone already."""
        if self._laid.pop(handle, None) is not None:
            self._reckon()

    def heal(self) -> None:
        """Every link works again."""
        self._laid.clear()
        self._links.clear()
        self._misrouted.clear()

    def misroute(self, destination: str, other: str) -> None:
        """Who connects to `destination` from now on reaches `other`."""
        self._misrouted[destination] = other

    def route_right(self, destination: str) -> None:
        """Who connects to `destination` reaches it again."""
        self._misrouted.pop(destination, None)

    def reached(self, destination: str) -> str:
        """Who is there when somebody connects to `destination`."""
        return self._misrouted.get(destination, destination) if self._misrouted else destination

    def isolate(
        self, node: str, *, peers: Collection[str] = (), inbound: bool = True, outbound: bool = True
    ) -> None:
        """The node drops what comes from its peers, or goes to them, until `join`; without `peers`, everybody."""
        self._isolated[node] = (frozenset(peers), inbound, outbound)

    def join(self, node: str) -> None:
        """The node drops nothing any more."""
        self._isolated.pop(node, None)

    def isolated_from(self, node: str) -> frozenset[str]:
        """From whom the node is isolated, if it is; nobody in particular stands for everybody."""
        return self._isolated[node][0] if node in self._isolated else frozenset()

    def is_isolated(self, node: str) -> bool:
        """Whether the node drops anything by `isolate`."""
        return node in self._isolated

    def passes(self, source: str, destination: str) -> bool:
        """Whether nothing is in the way from here to there. A packet that a node drops is counted in `dropped`."""
        if self._links and self._links.get((source, destination), _NONE).cut:
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
        """Call `arrive` at the destination after a while: once, not at all, or twice."""
        if source == destination:
            self._arrive_after(LOCAL_DELAY_US, arrive)
            return
        if (self._links or self._isolated) and not self.passes(source, destination):
            return
        trouble = self._links.get((source, destination)) if self._links else None
        if trouble is None:
            self._arrive_after(USUAL_DELAY_US, arrive)
        elif not self._befalls(trouble.loss):
            self._arrive_after(self._delay(trouble), arrive)
            if self._befalls(trouble.double):
                self._arrive_after(SLOW_DELAY_US, arrive)

    def _delay(self, trouble: LinkFault) -> tuple[int, int]:
        if self._befalls(trouble.slow):
            return SLOW_DELAY_US
        return SHUFFLED_DELAY_US if self._befalls(trouble.shuffle) else USUAL_DELAY_US

    def _befalls(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability

    def _arrive_after(self, delay_us: tuple[int, int], arrive: Callable[[], None]) -> None:
        least, most = delay_us
        self._clock.at(self._clock.now_us + least + int(self._rng.random() * (most - least)), arrive)

    def _reckon(self) -> None:
        self._links.clear()
        for links, trouble in self._laid.values():
            for link in sorted(links):
                self._links[link] = self._links.get(link, _NONE).beside(trouble)


_NONE = LinkFault()
