"""Which nodes keep watch over which groups: in a small cluster all over all, in a large one each over some circles.

To watch a group is to read its register, to hear of its changes, to stand ready for it, and to claim it when its owner
is over. If every node of a large cluster did that for every group, each change of a group would cost work at every
node. There a few nodes watch each circle, the same ones by everybody's reckoning: the next ones in the circle's own
order of the members that are neither lost nor Paused. When one of them is lost the next one takes its place, and reads
what it has not watched before. Placement in a large cluster is by circle too: the candidates are the nodes that watch
it, and the groups that count are those of the circle. Groups that name nodes are watched by all.
"""

import functools
from collections.abc import Iterable, Sequence

from harness.database.subscription import EVERYTHING, NOTHING, interest_in
from harness.model.records import ClusterRecord, SessionState
from harness.model.shard import SHARDS, UNSHARDED, shard_by_name, shard_of
from harness.model.topology import GroupSpec

__all__ = ["WATCHERS_PER_SHARD", "ShardAssignment"]

WATCHERS_PER_SHARD = 3
"""Nodes that watch each circle of a larger one: enough that placement has a choice, and that those who are lost within
one lease are not all of them.
"""

_Members = tuple[tuple[str, ...], frozenset[str], frozenset[str]]
"""Every member in order, those that may watch, and those that watch only where there are no others."""


class ShardAssignment:
    """What one node watches, as the cluster's register was seen last. Before that: nothing."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._record: ClusterRecord | None = None
        self._members: _Members = ((), frozenset(), frozenset())
        self._awaits_all = True
        self.interest = NOTHING
        self.circles: frozenset[str] | None = frozenset()

    @property
    def by_circle(self) -> bool:
        """Whether nobody watches everything."""
        return self.circles is not None

    @property
    def awaits_others(self) -> bool:
        """Whether members that have never joined still count as watching, where not everybody watches everything."""
        return self._awaits_all and self._record is not None and self.by_circle

    def see(self, record: ClusterRecord) -> None:
        """The cluster's register was read."""
        self._record = record
        self._reckon(record)

    def await_no_more(self) -> None:
        """Members that have never joined are not waited for any longer: others watch in their place."""
        if self._awaits_all and self._record is not None:
            self._awaits_all = False
            self._reckon(self._record)

    def _reckon(self, record: ClusterRecord) -> None:
        if len(record.nodes) <= record.settings.everyone_watches_up_to:
            self.circles, self.interest = None, EVERYTHING
            return
        if any(entry.state is SessionState.DOWN or entry.earlier for entry in record.nodes):
            self._awaits_all = False  # somebody was lost, or has come back: the cluster is formed
        there = (SessionState.UP, SessionState.NEVER) if self._awaits_all else (SessionState.UP,)
        able = frozenset(entry.name for entry in record.nodes if entry.state in there)
        paused = frozenset(entry.name for entry in record.nodes if entry.paused)
        members = tuple(entry.name for entry in record.nodes), able - paused, able & paused
        if members != self._members:
            self._members = members
            circles = _watched(*members).get(self._node, ())
            self.circles = frozenset((*circles, UNSHARDED))
            self.interest = interest_in(self._node, (*circles, UNSHARDED))

    def names(self, groups: tuple[str, ...], circles: Iterable[str]) -> list[str]:
        """Those of these groups that are of one of the circles, as far as their names tell."""
        found = _by_shard(groups)
        return [name for circle in circles for name in found.get(circle, ())]

    def watches(self, group: str) -> bool:
        """Whether this node watches a group of that name, which names no nodes."""
        return self.circles is None or shard_by_name(group) in self.circles

    def candidates(self, group: GroupSpec, among: Sequence[str]) -> list[str]:
        """Those of `among` that watch the group, in the order that decides where nothing else does."""
        if self.circles is None:
            return list(among)
        circle, (names, able, paused) = shard_of(group), self._members
        if circle == UNSHARDED:
            order = _order(names, int(shard_by_name(group.name)))
        else:
            order = _watchers(names, able, paused)[int(circle)]
        return [name for name in order if name in among]


@functools.lru_cache(maxsize=64)
def _by_shard(groups: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in groups:
        found.setdefault(shard_by_name(name), []).append(name)
    return found


@functools.lru_cache(maxsize=4 * SHARDS)
def _order(names: tuple[str, ...], circle: int) -> tuple[str, ...]:
    """All members in the order of that circle: each has the same number of circles at each place, as near as can be,
    and those of one node are shared with many others.
    """
    count = len(names)
    step = 1 + circle // count % max(count - 1, 1)
    left, at, order = set(range(count)), circle % count, []
    while left:
        while at not in left:
            at = (at + 1) % count
        left.discard(at)
        order.append(names[at])
        at = (at + step) % count
    return tuple(order)


@functools.lru_cache(maxsize=256)
def _watchers(names: tuple[str, ...], able: frozenset[str], paused: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """For each circle the nodes that watch it, in order."""
    among = able or paused
    found = []
    for circle in range(SHARDS):
        watching: list[str] = []
        for name in _order(names, circle):
            if len(watching) == WATCHERS_PER_SHARD:
                break
            if name in among:
                watching.append(name)
        found.append(tuple(watching))
    return tuple(found)


@functools.lru_cache(maxsize=256)
def _watched(names: tuple[str, ...], able: frozenset[str], paused: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """For each node the circles that it watches."""
    found: dict[str, list[str]] = {}
    for circle, watching in enumerate(_watchers(names, able, paused)):
        for name in watching:
            found.setdefault(name, []).append(str(circle))
    return {name: tuple(circles) for name, circles in found.items()}
