"""What is known of a group's resources, and what follows for those that depend on others."""

from dataclasses import replace

import pytest
from host_requests import request_of

from harness.cluster_service.resources.resource_facts import GroupFacts, ResourceFacts
from harness.model.host_messages import EntryPoint, HostRequest
from harness.model.records import GroupRecord
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import GroupSpec, ResourceSpec

HERE = Session("node1", "c0ffee", "1")
VM = ResourceSpec(name="vm", type="virtual-machine", depends_on=(("ip",),))


def request(entry_point: EntryPoint) -> HostRequest:
    return request_of(HERE, entry_point, resource="ip", wanted=True)


def group() -> GroupFacts:
    spec = GroupSpec(name="web", resources=(ResourceSpec(name="ip", type="ip-address"), VM))
    record = GroupRecord(spec=spec, owner=HERE, epoch=1, persistent={"ip": True, "vm": True})
    online = ResourceFacts(state=ResourceState.ONLINE, opened_epoch=1)
    offline = ResourceFacts(state=ResourceState.OFFLINE, opened_epoch=1)
    return GroupFacts(record, {"ip": online, "vm": offline})


def test_a_provider_that_is_online_lets_its_dependents_start() -> None:
    assert group().providers_online(VM)


@pytest.mark.parametrize("entry_point", [EntryPoint.TERMINATE, EntryPoint.OFFLINE])
def test_a_provider_that_is_told_to_end_lets_nobody_start_although_it_has_not_ended_yet(
    entry_point: EntryPoint,
) -> None:
    facts = group()
    facts.resources["ip"].request = request(entry_point)

    assert not facts.providers_online(VM)


@pytest.mark.parametrize(("wanted", "is_down"), [(True, True), (False, False)])
def test_a_failed_dependent_that_is_about_to_be_terminated_keeps_its_provider(wanted: bool, is_down: bool) -> None:
    facts = group()
    facts.record = replace(facts.record, persistent={"ip": False, "vm": wanted})
    facts.resources["vm"].state = ResourceState.FAILED

    assert facts.dependents_down(facts.record.spec.resource("ip")) is is_down
