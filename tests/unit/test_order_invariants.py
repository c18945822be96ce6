"""The watchers of what a node asks for and when, each with the smallest history that breaks its rule."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from host_requests import request_of

from harness.model import labels as label
from harness.model.host_messages import EntryPoint, HostRequest
from harness.model.records import GroupRecord, Restart
from harness.model.session import Session
from harness.model.topology import GroupSpec, ResourcePolicy, ResourceSpec, Topology
from harness.simulation.invariants.orders import OrdersInTime, SettledBeforeItActs
from harness.simulation.invariants.policy import RestartDelays
from harness.simulation.twins.container import SimulatedContainer

SESSION = Session.parse("node1@000000000001/5.1")


def request(
    entry_point: EntryPoint = EntryPoint.ONLINE, *, not_after_us: int = 100, adopt: bool = False
) -> HostRequest:
    return request_of(SESSION, entry_point, not_after_us=not_after_us, adopt=adopt)


def vm() -> SimulatedContainer:
    return SimulatedContainer(id="c1", name="vm", labels={label.NODE: "node1", label.RESOURCE: "vm"}, host="n1")


@pytest.mark.parametrize(
    ("asked", "clock_us", "broken"),
    [
        ([request(not_after_us=100)], 100, ""),
        ([request(not_after_us=100)], 101, "0.000001 s after its order's time"),
        ([request(not_after_us=100), request(not_after_us=200)], 150, ""),
        ([request(not_after_us=200), request(not_after_us=100)], 150, ""),
        ([request(EntryPoint.OPEN)], 50, "no service asked for it"),
        ([], 50, "no service asked for it"),
    ],
)
def test_a_vm_is_started_under_an_order_whose_time_has_not_passed(
    asked: list[HostRequest], clock_us: int, broken: str
) -> None:
    told: list[str] = []
    watcher = OrdersInTime(now=lambda node: clock_us if node == "node1" else 0, told=told.append)
    for one in asked:
        watcher.asked("node1", one)
    watcher.asked("node2", request(not_after_us=1_000))

    watcher.ordered(vm(), 5)

    assert [broken in text for text in told] == ([True] if broken else [])


def test_a_node_is_switched_on_without_an_order() -> None:
    told: list[str] = []
    OrdersInTime(now=lambda _node: 0, told=told.append).ordered(
        SimulatedContainer(id="n1", name="node1", labels={label.NODE: "node1"}), 5
    )
    assert told == []


@pytest.mark.parametrize(
    ("proposed_us", "asked", "broken"),
    [
        (10, request(EntryPoint.ONLINE), True),
        (10, request(EntryPoint.OPEN, adopt=True), True),
        (10, request(EntryPoint.OPEN), False),
        (10, request(EntryPoint.TERMINATE), False),
        (20, request(EntryPoint.ONLINE), False),
    ],
)
def test_a_service_acts_when_nothing_of_the_one_before_it_is_under_way(
    proposed_us: int, asked: HostRequest, broken: bool
) -> None:
    told: list[str] = []
    chosen: Any = SimpleNamespace(proposed_us=proposed_us, proposed_by="node1")
    watcher = SettledBeforeItActs(chosen=chosen, since=lambda _node: 20, now=lambda: 25, told=told.append)
    content: Any = None
    watcher.asked("node1", asked)
    watcher.asked("node2", request())

    watcher.chose("group/mail", content, content)
    assert told == []
    watcher.chose("group/web", content, content)

    assert [text.startswith("register group/web: what an earlier service of node1") for text in told] == [True] * broken


def test_what_the_service_before_did_is_not_the_new_ones() -> None:
    told: list[str] = []
    chosen: Any = SimpleNamespace(proposed_us=10, proposed_by="node1")
    since_us = {"node1": 5}
    watcher = SettledBeforeItActs(chosen=chosen, since=since_us.__getitem__, now=lambda: 8, told=told.append)
    content: Any = None
    watcher.asked("node1", request())
    since_us["node1"] = 20

    watcher.chose("group/web", content, content)

    assert told == []


def restart(failure: str) -> Restart:
    return Restart(resource="vm", session=SESSION, at_us=1, failure=failure)


SLOW = ResourceSpec(name="vm", type="virtual-machine", policy=ResourcePolicy(restart_delay_us=2_000_000))


@pytest.mark.parametrize(
    ("restarts", "epoch", "waited_us", "lapsed", "broken"),
    [
        (2, 1, 1_900_000, False, True),
        (2, 1, 2_000_000, False, False),
        (1, 1, 100, False, False),
        (2, 2, 100, False, False),
        (2, 1, 100, True, False),
    ],
)
def test_a_second_restart_in_a_row_waits_unless_the_lease_has_lapsed_or_the_owner_changed(
    restarts: int, epoch: int, waited_us: int, lapsed: bool, broken: bool
) -> None:
    group = GroupSpec(name="web", resources=(SLOW,))
    before = GroupRecord(spec=group, owner=SESSION, epoch=1, persistent={"vm": True}, restarts=(restart("0"),))
    after = replace(before, restarts=tuple(restart(str(number)) for number in range(restarts - 1, -1, -1)))
    told: list[str] = []
    chosen: Any = SimpleNamespace(newest=lambda _key: before)
    watcher = RestartDelays(
        Topology(rig="r", subnet="", nodes=(), groups=(group,)), chosen=chosen, now=lambda: 60, told=told.append
    )
    box = replace(vm(), labels={**vm().labels, label.SESSION: str(SESSION), label.GROUP: "web"})

    watcher.ended(box, 50)
    first: Any = SimpleNamespace(record=replace(before, restarts=()))
    content: Any = SimpleNamespace(record=after)
    watcher.chose("group/web", first, content)
    chosen.newest = lambda _key: replace(after, epoch=epoch)
    if lapsed:
        watcher.lapsed("node1")
    watcher.ordered(box, 50 + waited_us)

    assert [text.startswith("VM vm is ordered to start on node1 1.9") for text in told] == [True] * broken
