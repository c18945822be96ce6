"""How many groups each node owns, as the Failover Manager counts them where the node with the fewest is sought."""

from types import SimpleNamespace
from typing import Any

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import RegisterSeen
from harness.cluster_service.core.takeover_delay import TakeoverDelays
from harness.cluster_service.membership.sharding import ShardAssignment
from harness.cluster_service.placement.failover import FailoverManager
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry, SessionState
from harness.model.session import Session
from harness.model.topology import GroupSpec, Settings

OLD, NEW, OTHER = Session("node1", "a", "1"), Session("node1", "a", "2"), Session("node2", "b", "1")
SPECS = {name: GroupSpec(name=name) for name in ("web1", "web2", "web3")}


def manager(node1: NodeEntry) -> FailoverManager:
    """Web1 and web2 are owned by the older session of node1, web3 by node2."""
    entries = (node1, NodeEntry(name="node2", address="", session=OTHER, state=SessionState.UP))
    cluster = ClusterRecord(rig="r", nodes=entries, groups=tuple(SPECS), settings=Settings())
    membership: Any = SimpleNamespace(
        cluster=cluster, was_up_before=False, seen_since_us=0, may_act=lambda _: False, candidates=lambda _: ()
    )
    watch = ShardAssignment(OTHER.node)
    watch.see(cluster)
    made = FailoverManager(
        session=OTHER, membership=membership, ids=Ids(), turns=TakeoverDelays(lease_us=1), watch=watch
    )
    for name, owner in (("web1", OLD), ("web2", OLD), ("web3", OTHER)):
        record = GroupRecord(spec=SPECS[name], owner=owner, epoch=1, persistent={})
        made.handle(0, RegisterSeen(key=f"group/{name}", record=record, version=1))
    return made


def node1(session: Session, state: SessionState, **more: Any) -> NodeEntry:
    return NodeEntry(name="node1", address="", session=session, state=state, **more)


def loads(entry: NodeEntry) -> dict[str, int]:
    owned = manager(entry).groups_owned(SPECS["web1"])
    return {name: owned.get(name, 0) for name in ("node1", "node2")}


def test_what_a_session_owns_counts_for_its_node() -> None:
    assert loads(node1(OLD, SessionState.UP)) == {"node1": 2, "node2": 1}
    assert loads(node1(OLD, SessionState.DOWN)) == {"node1": 2, "node2": 1}


def test_what_a_session_owned_that_is_over_counts_for_nobody() -> None:
    assert loads(node1(OLD, SessionState.DOWN, fenced=True)) == {"node1": 0, "node2": 1}
    assert loads(node1(NEW, SessionState.UP, earlier=(OLD,))) == {"node1": 0, "node2": 1}
