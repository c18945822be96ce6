"""Which registers the Failover Manager reads when it sees the cluster's."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import ReadRegister, RegisterSeen
from harness.cluster_service.core.takeover_delay import TakeoverDelays
from harness.cluster_service.membership.sharding import ShardAssignment
from harness.cluster_service.placement.failover import FailoverManager
from harness.model.records import ClusterRecord, NodeEntry, SessionState
from harness.model.session import Session
from harness.model.topology import Settings

HERE = Session("node3", "c0ffee", "1")
GROUPS = tuple(f"web{number}" for number in range(200))


def cluster(nodes: int, *, lost: str = "") -> ClusterRecord:
    names = [f"node{number}" for number in range(1, nodes + 1)]
    return ClusterRecord(
        rig="r",
        nodes=tuple(
            NodeEntry(name=name, address="", state=SessionState.DOWN if name == lost else SessionState.UP)
            for name in names
        ),
        groups=GROUPS,
        settings=Settings(),
    )


class Bench:
    """One manager that sees the cluster's register and nothing else."""

    def __init__(self, *, was_up_before: bool) -> None:
        self.watch = ShardAssignment(HERE.node)
        self.membership: Any = SimpleNamespace(
            cluster=None, was_up_before=was_up_before, seen_since_us=0, may_act=lambda _: False
        )
        self.manager = FailoverManager(
            session=HERE, membership=self.membership, ids=Ids(), turns=TakeoverDelays(lease_us=1), watch=self.watch
        )

    def see(self, record: ClusterRecord) -> list[str]:
        """The groups whose registers are read."""
        self.watch.see(record)
        self.membership.cluster = record
        wishes = self.manager.handle(0, RegisterSeen(key="cluster", record=record, version=1))
        assert all(wish.anew for wish in wishes if isinstance(wish, ReadRegister))
        return [wish.key.removeprefix("group/") for wish in wishes if isinstance(wish, ReadRegister)]


def test_in_a_small_cluster_everything_is_read_once() -> None:
    bench = Bench(was_up_before=False)

    assert bench.see(cluster(5)) == list(GROUPS)
    assert bench.see(cluster(5, lost="node1")) == []


def test_in_a_large_one_what_is_watched_and_what_comes_to_be() -> None:
    bench = Bench(was_up_before=False)

    first = bench.see(cluster(20))
    more = [name for lost in range(4, 21) for name in bench.see(cluster(20, lost=f"node{lost}"))]

    assert sorted(first) == sorted(name for name in GROUPS if watch_of(cluster(20)).watches(name))
    assert more
    assert not set(more) & set(first)
    assert bench.see(cluster(20, lost="node20")) == []


def watch_of(record: ClusterRecord) -> ShardAssignment:
    watch = ShardAssignment(HERE.node)
    watch.see(record)
    return watch


def test_a_session_that_was_up_before_reads_everything_once_whatever_it_watches() -> None:
    bench = Bench(was_up_before=True)

    assert bench.see(cluster(20)) == list(GROUPS)
    assert bench.see(replace(cluster(20), votes=("node1",))) == []


def test_what_is_watched_anew_is_read_again() -> None:
    bench = Bench(was_up_before=True)
    bench.see(cluster(20))

    assert any(bench.see(cluster(20, lost=f"node{lost}")) for lost in range(4, 21))
