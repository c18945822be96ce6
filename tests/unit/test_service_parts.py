"""How the managers of one service are put together, where one asks another."""

import pytest

from harness.cluster_service.core.messages import RegisterNoticed
from harness.cluster_service.service import ClusterService, ServiceConfiguration
from harness.database.protocol import NO_BALLOT, Ballot
from harness.database.register import JsonCodec
from harness.model.session import Session
from harness.model.topology import Settings

NEWER = Ballot(9, "node1.1.1.0")


@pytest.fixture
def service() -> ClusterService:
    configuration = ServiceConfiguration(
        rig="rig",
        session=Session(node="node2", container="c", started="1"),
        voters=("node1", "node2", "node3"),
        settings=Settings(),
        process="node2.1.1",
        guests_end_us=0,
        hour_of_day=lambda: 12,
    )
    return ClusterService(configuration=configuration, codec=JsonCodec(), jitter=lambda: 0.5)


def test_a_notice_of_what_is_being_read_counts_each_time(service: ClusterService) -> None:
    """The read may show what was there before, and no voter tells of a change twice."""
    managers = service._managers
    managers.failover.noticed(RegisterNoticed(key="group/web", ballot=NEWER, owner="node2"))
    assert managers.node._to_be_read("group/web") == NEWER

    managers.database._reading.add("group/web")

    assert managers.node._to_be_read("group/web") == NO_BALLOT
