"""Placement: which node takes which group. Pure, and the same on every survivor that knows the same facts.

After a node's death: group by group by priority; the most preferred candidate, else the one with the fewest groups,
ties by the order of the node list (the rules of the cluster, section 5). After a resource failure: the next in the
cyclic list of preferred owners followed by all other nodes. A Paused node is no candidate; only where nothing else is
left does it take a group that nobody owns, and starts nothing of it.
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Mapping, Sequence

from harness.model.records import NodeEntry, SessionState
from harness.model.topology import Failback, GroupSpec, Priority

__all__ = ["claim_places", "failback_target", "next_after_failure", "rank_claimants", "refusals", "urgency"]

_URGENCY = {Priority.HIGH: 0, Priority.MEDIUM: 1, Priority.LOW: 2, Priority.NO_AUTO_START: 3}


def urgency(group: GroupSpec) -> int:
    """The smaller, the sooner the group is placed and started."""
    return _URGENCY[group.priority]


def possible(group: GroupSpec, nodes: Sequence[str]) -> list[str]:
    """The nodes, in their order, that the group's hard restriction allows."""
    return [name for name in nodes if not group.possible_owners or name in group.possible_owners]


def refusals(
    *, group: GroupSpec, nodes: Sequence[NodeEntry], alive: Collection[str], owner: str | None
) -> dict[str, str]:
    """For each node why it cannot take the group, as the end of a sentence; empty for a candidate. `alive` are the
    nodes that are Up and renew their leases.
    """
    return {entry.name: _refusal(group, entry, alive, owner) for entry in nodes}


def _refusal(group: GroupSpec, entry: NodeEntry, alive: Collection[str], owner: str | None) -> str:
    if entry.name == owner:
        return "it owns the group"
    if not possible(group, [entry.name]):
        return "it is not a possible owner"
    if entry.state is not SessionState.UP:
        return "it is Down" if entry.state is SessionState.DOWN else "it has never joined"
    if entry.name not in alive:
        return "it does not renew its lease"
    return "it is Paused" if entry.paused else ""


def rank_claimants(
    *,
    orphans: Sequence[GroupSpec],
    candidates: Sequence[str],
    groups_owned: Mapping[str, int],
    paused: Collection[str] = (),
) -> dict[str, list[str]]:
    """For each orphaned group, by name, the candidates in the order in which they should claim it.

    `groups_owned` counts the groups that each candidate owns already; each first choice counts for the groups after
    it. Those of the candidates that are `paused` rank only where there are no others.
    """
    owned = {name: groups_owned.get(name, 0) for name in candidates}
    ranking: dict[str, list[str]] = {}
    for group in sorted(orphans, key=lambda spec: (urgency(spec), spec.name)):
        order = {name: place for place, name in enumerate(candidates)}
        preferred = {name: place for place, name in enumerate(group.preferred_owners)}
        able = possible(group, candidates)
        ranked = sorted(
            [name for name in able if name not in paused] or able,
            key=lambda name, order=order, preferred=preferred: (  # type: ignore[misc]
                preferred.get(name, len(preferred)),
                owned[name],
                order[name],
            ),
        )
        ranking[group.name] = ranked
        if ranked:
            owned[ranked[0]] += 1
    return ranking


def claim_places(
    node: str,
    *,
    orphans: Sequence[GroupSpec],
    candidates: Sequence[str],
    groups_owned: Mapping[str, int],
    paused: Collection[str] = (),
) -> dict[str, int]:
    """The place of that node in the ranking of each orphaned group, 0 for the first; without those that it may not
    claim. It is what `rank_claimants` would show, at the cost of one look at each group and not at each candidate too.
    """
    owned = {name: groups_owned.get(name, 0) for name in candidates}
    order = {name: place for place, name in enumerate(candidates)}
    able = frozenset(name for name in candidates if name not in paused) or frozenset(candidates)
    line = sorted((owned[name], order[name]) for name in able)
    places: dict[str, int] = {}
    for group in sorted(orphans, key=lambda spec: (urgency(spec), spec.name)):
        first, place = None, None
        if group.preferred_owners or group.possible_owners:
            ranking = rank_claimants(orphans=[group], candidates=candidates, groups_owned=owned, paused=paused)
            ranked = ranking[group.name]
            first, place = next(iter(ranked), None), ranked.index(node) if node in ranked else None
        elif line:
            first = candidates[line[0][1]]
            place = bisect_left(line, (owned[node], order[node])) if node in able else None
        if place is not None:
            places[group.name] = place
        if first is not None:
            if first in able:
                del line[bisect_left(line, (owned[first], order[first]))]
                insort(line, (owned[first] + 1, order[first]))
            owned[first] += 1
    return places


def next_after_failure(
    *, group: GroupSpec, nodes: Sequence[str], candidates: Sequence[str], failed_on: str
) -> str | None:
    """The candidate that follows `failed_on` in the cyclic list; None when there is no other."""
    cycle = [*group.preferred_owners, *(name for name in nodes if name not in group.preferred_owners)]
    start = cycle.index(failed_on) if failed_on in cycle else -1
    for step in range(1, len(cycle)):
        name = cycle[(start + step) % len(cycle)]
        if name != failed_on and name in possible(group, candidates):
            return name
    return None


def failback_target(*, group: GroupSpec, candidates: Collection[str], owner: str, hour: int) -> str | None:
    """The preferred owner to which the group's failback policy sends it now; None when it stays. `hour` is that of the
    day, 0 to 23.
    """
    if group.failback is Failback.PREVENT or not _in_window(group.failback_window, hour):
        return None
    for name in group.preferred_owners:
        if name == owner:
            return None
        if name in candidates:
            return name
    return None


def _in_window(window: tuple[int, int] | None, hour: int) -> bool:
    if window is None:
        return True
    begin, end = window
    return begin <= hour < end if begin <= end else hour >= begin or hour < end
