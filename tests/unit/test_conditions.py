"""What can be waited for: when it holds, and what is said as long as it does not."""

from dataclasses import replace

import pytest

from harness.errors import UsageError
from harness.model.states import GroupState, ResourceState
from harness.rig.cluster.conditions import (
    PAUSED,
    UP,
    all_online,
    group_is,
    group_moved,
    node_drained,
    node_is,
    node_up,
    resource_is,
)
from harness.rig.cluster.status import GroupStatus, NodeStatus, Power, ResourceStatus, RigStatus

VM = ResourceStatus(name="web-vm", type="virtual-machine", state="Online", persistent_state=1)
GROUP = GroupStatus(name="web", owner="node1", epoch=4, state="Online", resources=(VM,))
NODE = NodeStatus(
    name="node1", address="10.87.0.11", voter=True, power=Power.ON, state="Up", session="s", quorum=True
)
NODE2 = replace(NODE, name="node2")


def standing(*, group: GroupStatus = GROUP, node: NodeStatus = NODE) -> RigStatus:
    return RigStatus(rig="mine", subnet="10.87.0.0/24", nodes=(node, NODE2), groups=(group,))


def with_vm(**changes: object) -> GroupStatus:
    return replace(GROUP, resources=(replace(VM, **changes),))  # type: ignore[arg-type]


def test_group_is_in_its_state_when_its_owner_says_so() -> None:
    online = group_is("web", GroupState.ONLINE)

    assert online(standing()) == ""
    told = online(standing(group=replace(GROUP, state="Unknown", owner="", why="it is about to be claimed")))
    assert told == "web to be Online (Unknown on no node: it is about to be claimed)"


def test_group_has_moved_when_a_later_owner_has_everything_online_that_is_wanted() -> None:
    moved = group_moved("web", epoch=3, target="node1")

    assert moved(standing()) == ""
    assert "to be owned by node1" in moved(standing(group=replace(GROUP, epoch=3)))
    assert "to be owned by node1" in moved(standing(group=replace(GROUP, owner="node2")))
    assert "web-vm (Offline) on node1" in moved(standing(group=with_vm(state="Offline")))
    assert moved(standing(group=with_vm(state="Offline", persistent_state=0))) == ""


def test_resource_counts_as_online_only_when_it_is_wanted_so() -> None:
    online, offline = (resource_is("web-vm", state) for state in (ResourceState.ONLINE, ResourceState.OFFLINE))

    assert online(standing()) == ""
    assert online(standing(group=with_vm(persistent_state=0)))
    assert offline(standing(group=with_vm(state="Offline", persistent_state=0))) == ""
    assert "no budget left" in online(standing(group=with_vm(state="Failed", why="no budget left")))


def test_node_is_up_with_power_and_membership_paused_or_not() -> None:
    up = node_up("node1")

    assert up(standing()) == ""
    assert up(standing(node=replace(NODE, state=PAUSED))) == ""
    assert up(standing(node=replace(NODE, state="Joining"))) == "node1 to be up (it is Joining)"
    assert up(standing(node=replace(NODE, power=Power.HELD_OFF))) == "node1 to be up (its power is held off)"
    assert node_is("node1", UP)(standing(node=replace(NODE, state=PAUSED)))


@pytest.mark.parametrize(("drain", "ended"), [("InProgress", False), ("Completed", True), ("Failed", True)])
def test_drain_is_over_when_it_has_ended_with_whatever_result(drain: str, ended: bool) -> None:
    told = node_drained("node1")(standing(node=replace(NODE, state=PAUSED, drain=drain)))

    assert (told == "") is ended
    assert ended or "it owns web" in told


def test_everything_is_online_when_all_that_is_wanted_is() -> None:
    assert all_online(standing()) == ""
    assert all_online(standing(node=replace(NODE, power=Power.OFF, state="Down"))) == ""
    assert all_online(standing(group=with_vm(state="Offline", persistent_state=0))) == ""
    assert all_online(standing(group=with_vm(state="Unknown", persistent_state=None))) == "web-vm (Unknown)"
    assert all_online(standing(group=with_vm(state="Failed"))) == "web-vm (Failed)"


def test_name_that_the_rig_does_not_have_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(UsageError, match="has no group 'nosuch', expected one of web"):
        group_is("nosuch", GroupState.ONLINE)(standing())
    with pytest.raises(UsageError, match="has no node 'nosuch', expected one of node1, node2"):
        node_up("nosuch")(standing())
    with pytest.raises(UsageError, match="has no resource 'nosuch', expected one of web-vm"):
        resource_is("nosuch", ResourceState.ONLINE)(standing())
