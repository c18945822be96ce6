"""Which nodes watch which groups of a large cluster."""

from collections import Counter
from dataclasses import replace

import pytest

from harness.cluster_service.membership.sharding import WATCHERS_PER_SHARD, ShardAssignment
from harness.database.subscription import EVERYTHING, NOTHING
from harness.model.records import ClusterRecord, NodeEntry, SessionState
from harness.model.shard import SHARDS, UNSHARDED, shard_by_name, shard_of
from harness.model.topology import GroupSpec, Settings

GROUPS = tuple(f"web{number}" for number in range(2_000))


def cluster(nodes: int, **states: SessionState) -> ClusterRecord:
    """All members are Up but those that are named with another state."""
    names = [f"node{number}" for number in range(1, nodes + 1)]
    return ClusterRecord(
        rig="r",
        nodes=tuple(NodeEntry(name=name, address="", state=states.get(name, SessionState.UP)) for name in names),
        groups=GROUPS,
        settings=Settings(),
    )


def watches(record: ClusterRecord) -> dict[str, ShardAssignment]:
    """What each of the members watches."""
    found = {entry.name: ShardAssignment(entry.name) for entry in record.nodes}
    for watch in found.values():
        watch.see(record)
    return found


def watching(record: ClusterRecord) -> dict[str, list[str]]:
    """For each circle who watches it."""
    found: dict[str, list[str]] = {}
    for name, watch in watches(record).items():
        assert watch.circles is not None
        for circle in watch.circles:
            found.setdefault(circle, []).append(name)
    return found


def test_before_the_register_is_seen_nothing_is_of_interest() -> None:
    assert ShardAssignment("node1").interest == NOTHING


def test_in_a_small_cluster_everybody_watches_everything() -> None:
    for watch in watches(cluster(Settings().everyone_watches_up_to)).values():
        assert watch.interest == EVERYTHING
        assert not watch.by_circle
        assert all(watch.watches(name) for name in GROUPS)


@pytest.mark.parametrize("nodes", [10, 13, 64])
def test_each_circle_is_watched_by_a_few_and_each_node_watches_as_many(nodes: int) -> None:
    found = watching(cluster(nodes))
    everybody = found.pop(UNSHARDED)

    assert len(everybody) == nodes
    assert len(found) == SHARDS
    assert {len(set(names)) for names in found.values()} == {WATCHERS_PER_SHARD}
    counts = Counter(name for names in found.values() for name in names)
    assert max(counts.values()) - min(counts.values()) <= WATCHERS_PER_SHARD


def test_the_circles_of_a_lost_node_go_to_many_others_and_no_other_circle_changes() -> None:
    before, after = watching(cluster(64)), watching(cluster(64, node7=SessionState.DOWN))

    heirs: Counter[str] = Counter()
    for circle, names in before.items():
        if circle == UNSHARDED:
            continue
        if "node7" not in names:
            assert after[circle] == names
            continue
        (heir,) = set(after[circle]) - set(names)
        assert set(names) - {"node7"} <= set(after[circle])
        heirs[heir] += 1
    assert len(heirs) > 2 * WATCHERS_PER_SHARD
    assert "node7" not in heirs


def test_a_paused_node_watches_only_where_nobody_else_can() -> None:
    record = cluster(12)
    one_is = replace(record, nodes=(replace(record.nodes[0], paused=True), *record.nodes[1:]))
    all_are = replace(record, nodes=tuple(replace(entry, paused=True) for entry in record.nodes))

    found = watching(one_is)
    found.pop(UNSHARDED)
    assert not any("node1" in names for names in found.values())
    assert {len(names) for circle, names in watching(all_are).items() if circle != UNSHARDED} == {WATCHERS_PER_SHARD}


def test_who_has_never_joined_counts_until_it_is_no_longer_waited_for() -> None:
    record = cluster(12, node1=SessionState.NEVER)
    found = watches(record)
    before = {name: watch.circles for name, watch in found.items()}

    for watch in found.values():
        assert watch.awaits_others
        watch.await_no_more()

    assert before["node1"] == watches(cluster(12))["node1"].circles
    assert found["node1"].circles == frozenset({UNSHARDED})
    assert any(found[name].circles != before[name] for name in found if name != "node1")


def test_who_has_never_joined_counts_no_more_once_anybody_was_lost() -> None:
    found = watches(cluster(12, node1=SessionState.NEVER, node2=SessionState.DOWN))

    assert found["node1"].circles == frozenset({UNSHARDED})
    assert not any(watch.awaits_others for watch in found.values())


def test_names_and_circles_tell_the_same() -> None:
    watch = watches(cluster(12))["node3"]
    assert watch.circles is not None

    named = watch.names(GROUPS, sorted(watch.circles))

    assert sorted(named) == sorted(name for name in GROUPS if watch.watches(name))
    assert 0 < len(named) < len(GROUPS)


def test_candidates_are_who_watches_in_an_order_that_all_share() -> None:
    record = cluster(12)
    group = GroupSpec(name="web5", resources=())
    among = tuple(entry.name for entry in record.nodes if entry.name != "node2")

    orders = {tuple(watch.candidates(group, among)) for watch in watches(record).values()}

    (order,) = orders
    assert sorted(order) == sorted(set(watching(record)[shard_by_name("web5")]) - {"node2"})


def test_groups_that_name_nodes_are_everybodys() -> None:
    record = cluster(12)
    named = GroupSpec(name="web5", resources=(), preferred_owners=("node9",))

    assert shard_of(named) == UNSHARDED
    for watch in watches(record).values():
        assert len(watch.candidates(named, tuple(entry.name for entry in record.nodes))) == 12
