"""When the drained node says that its drain is over."""

from types import SimpleNamespace
from typing import Any

from harness.cluster_service.administration.drain import DrainManager
from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import ChangeRegister, Tick
from harness.model.administrative_changes import EndDrain
from harness.model.records import ClusterRecord, NodeEntry, SessionState
from harness.model.session import Session
from harness.model.states import DrainState
from harness.model.topology import Settings

HERE = Session("node1", "c0ffee", "1")


class Bench:
    """A node that is being drained and owns nothing, as far as it has read; `failover` is what else it knows."""

    def __init__(self) -> None:
        entry = NodeEntry(
            name=HERE.node,
            address="",
            session=HERE,
            state=SessionState.UP,
            paused=True,
            drain=DrainState.IN_PROGRESS,
            drains=1,
        )
        cluster = ClusterRecord(rig="r", nodes=(entry,), groups=("web",), settings=Settings())
        membership: Any = SimpleNamespace(cluster=cluster, own_entry=entry, may_act=lambda _: True)
        self.failover: Any = SimpleNamespace(
            groups={}, knows_its_own=lambda: True, may_come_to_own=lambda: False
        )
        self.manager = DrainManager(session=HERE, membership=membership, failover=self.failover, ids=Ids())

    def outcomes(self) -> list[DrainState]:
        wishes = self.manager.handle(1, Tick())
        changes = [wish.change for wish in wishes if isinstance(wish, ChangeRegister)]
        return [change.outcome for change in changes if isinstance(change, EndDrain)]


def test_a_node_that_owns_nothing_is_drained() -> None:
    assert Bench().outcomes() == [DrainState.COMPLETED]


def test_not_while_it_has_registers_to_read() -> None:
    bench = Bench()
    bench.failover.knows_its_own = lambda: False

    assert bench.outcomes() == []


def test_not_while_a_notice_names_it_as_an_owner() -> None:
    bench = Bench()
    bench.failover.may_come_to_own = lambda: True

    assert bench.outcomes() == []
