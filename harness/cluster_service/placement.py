"""Placement: which node takes which group. Pure, and the same on every survivor that knows the same facts.

After a node's death: group by group by priority; the most preferred candidate, else the one with the fewest groups,
ties by the order of the node list (the rules of the cluster, section 5). After a resource failure: the next in the
cyclic list of preferred owners followed by all other nodes.
"""

from collections.abc import Mapping, Sequence

from harness.model.topology import GroupSpec, Priority

__all__ = ["next_after_failure", "rank_claimants"]

_URGENCY = {Priority.HIGH: 0, Priority.MEDIUM: 1, Priority.LOW: 2, Priority.NO_AUTO_START: 3}


def possible(group: GroupSpec, nodes: Sequence[str]) -> list[str]:
    """The nodes, in their order, that the group's hard restriction allows."""
    return [name for name in nodes if not group.possible_owners or name in group.possible_owners]


def rank_claimants(
    *, orphans: Sequence[GroupSpec], candidates: Sequence[str], groups_owned: Mapping[str, int]
) -> dict[str, list[str]]:
    """For each orphaned group, by name, the candidates in the order in which they should claim it.

    `groups_owned` counts the groups that each candidate owns already; each first choice counts for the groups after it.
    """
    owned = {name: groups_owned.get(name, 0) for name in candidates}
    ranking: dict[str, list[str]] = {}
    for group in sorted(orphans, key=lambda spec: (_URGENCY[spec.priority], spec.name)):
        order = {name: place for place, name in enumerate(candidates)}
        preferred = {name: place for place, name in enumerate(group.preferred_owners)}
        ranked = sorted(
            possible(group, candidates),
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
