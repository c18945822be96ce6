"""The Resource Control Manager: what it writes into the cluster log of a change that it sees."""

from typing import Any

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import Log, RegisterSeen
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.model.records import GroupRecord
from harness.model.session import Session
from harness.model.topology import GroupSpec, ResourceSpec

HERE = Session("node1", "c0ffee", "1")
ELSEWHERE = Session("node2", "c0ffee", "1")


class NobodyElse:
    """Node and membership of a manager that has no resource host yet: it takes facts in and decides nothing."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for before the resource host was there")


def seen(owner: Session, *, wanted: bool) -> RegisterSeen:
    spec = GroupSpec(name="web", resources=(ResourceSpec(name="vm", type="virtual-machine"),))
    record = GroupRecord(spec=spec, owner=owner, epoch=1, persistent={"vm": wanted})
    return RegisterSeen(key="group/web", record=record, version=1)


def logged(*events: RegisterSeen) -> list[dict[str, Any]]:
    around: Any = NobodyElse()
    manager = ResourceControlManager(
        session=HERE,
        node=around,
        membership=around,
        failover=around,
        requests=around,
        ids=Ids(),
        guests_ended_us=lambda: None,
        hour_of_day=lambda: 0,
    )
    actions = [action for event in events for action in manager.handle(0, event)]
    return [dict(action.fields) for action in actions if isinstance(action, Log)]


def test_the_owner_tells_each_change_of_a_persistent_state_once() -> None:
    told = logged(seen(HERE, wanted=True), seen(HERE, wanted=False), seen(HERE, wanted=False), seen(HERE, wanted=True))

    assert told == [
        {"group": "web", "resource": "vm", "wanted": False},
        {"group": "web", "resource": "vm", "wanted": True},
    ]


def test_who_does_not_own_the_group_does_not_tell_it_a_second_time() -> None:
    assert logged(seen(ELSEWHERE, wanted=True), seen(ELSEWHERE, wanted=False)) == []
