"""The watchers of what nodes do to themselves and to each other's power, each with the smallest history that breaks its
rule, and with those that do not.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from host_requests import report_of, request_of

from harness.model import labels as label
from harness.model.host_messages import EntryPoint, HostReport, HostRequest
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry, SessionState
from harness.model.register_keys import CLUSTER_KEY
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import GroupSpec, ResourcePolicy, ResourceSpec, Settings
from harness.simulation.invariants.node_lifecycle import (
    ClearedBeforeItJoins,
    DeadlinesHold,
    DownResets,
    EndsAreProved,
    HeldNodesStayOff,
)
from harness.simulation.kernel.node_clock import DriftingClock
from harness.simulation.kernel.runtime import Clock, VirtualClock
from harness.simulation.twins.container import SimulatedContainer
from harness.simulation.world.fault_kinds import FaultKind, Planned

LEASE_US, GRACE_US, TIMEOUT_US = 2_000_000, 1_000_000, 3_000_000
SESSION = Session("node1", "000000000001", "5.1")
EARLIER = Session("node1", "000000000001", "1.1")


class Node:
    """node1 in its first life, with one guest."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.clock = VirtualClock()
        self.frozen = False
        self.since_us = 1
        self.box = SimulatedContainer(id=f"{SESSION.container}ff", name="r-node1", labels={label.NODE: "node1"})
        self.box.started, self.box.alive, self.box.lives = SESSION.started, True, 1
        labels = {label.NODE: "node1", label.RESOURCE: "vm"}
        self.guest = SimulatedContainer(id="c1", name="r-node1-vm-1", labels=labels, host=self.box.id, alive=True)
        self.engine: Any = SimpleNamespace(
            boxes={box.id: box for box in (self.box, self.guest)},
            clock=self.clock,
            held={},
            node=lambda _name: self.box,
            guests=lambda _name: [self.guest],
        )

    def run_until(self, at_us: int) -> None:
        self.clock.run_until(at_us)

    def end(self) -> None:
        self.box.alive = self.guest.alive = False


class PidOne(Node):
    """What PID 1 of node1 is told, and the watcher of its deadlines."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        super().__init__()
        self.watcher = DeadlinesHold(
            engine=self.engine,
            clock_of=lambda _name: clock or self.clock,
            frozen=lambda _name: self.frozen,
            grace_us=GRACE_US,
            told=self.told.append,
        )

    def pet(self, at_us: int = 0, *, left_us: int = LEASE_US) -> None:
        self.run_until(at_us)
        self.watcher.petted(SESSION, left_us)


def dead(node: Node) -> None:
    node.guest.alive = False


def frozen(node: Node) -> None:
    node.guest.paused = True


def ending(node: Node) -> None:
    node.guest.ending = True


def started_late(node: Node) -> None:
    node.guest.started_us = LEASE_US


def still(node: Node) -> None:
    node.frozen = True


def doomed(node: Node) -> None:
    node.box.doomed = 87


def in_its_next_life(node: Node) -> None:
    node.box.lives += 1


def nothing(_node: Node) -> None:
    pass


@pytest.mark.parametrize(
    ("befalls", "broken"),
    [
        (nothing, True),
        (dead, False),
        (frozen, False),
        (ending, False),
        (started_late, False),
        (still, False),
        (doomed, False),
        (in_its_next_life, False),
    ],
)
def test_at_the_end_of_a_lease_the_guests_have_ended(befalls: Callable[[Node], None], broken: bool) -> None:
    node = PidOne()
    node.pet()
    befalls(node)

    node.run_until(LEASE_US)
    assert node.told == []
    node.run_until(LEASE_US + 1_000)

    assert node.told == [f"VM vm runs on 0.001000 s after the lease of {SESSION} has ended"] * broken


def test_a_lease_that_is_renewed_in_time_ends_later() -> None:
    node = PidOne()
    node.pet()
    node.pet(LEASE_US - 1)

    node.run_until(2 * LEASE_US - 1)

    assert node.told == []


def test_a_deadline_is_one_of_the_nodes_own_clock() -> None:
    world = PidOne()
    node = PidOne(clock=DriftingClock(world.clock, rate_ppm=-10_000, ahead_us=77))
    node.engine.clock = world.clock
    node.pet()

    world.run_until(LEASE_US + 1_000)
    assert node.told == []
    world.run_until(LEASE_US * 102 // 100)

    assert len(node.told) == 1


@pytest.mark.parametrize(
    ("befalls", "broken"), [(nothing, True), (Node.end, False), (doomed, False), (in_its_next_life, False)]
)
def test_a_grace_after_its_lease_a_node_has_ended(befalls: Callable[[Node], None], broken: bool) -> None:
    node = PidOne()
    node.pet()
    node.guest.alive = False

    node.run_until(LEASE_US + GRACE_US - 1)
    befalls(node)
    node.run_until(LEASE_US + GRACE_US + 1_000)

    assert node.told == [f"{SESSION} goes on 1.001000 s after the end of its lease, a grace and more"] * broken


@pytest.mark.parametrize(
    ("thawed_us", "heeds", "broken"),
    [
        (LEASE_US + 10, dead, ""),
        (LEASE_US + 10, nothing, "VM vm runs on"),
        (LEASE_US + GRACE_US, Node.end, ""),
        (LEASE_US + GRACE_US, dead, "goes on 1.0"),
        (LEASE_US - 10, nothing, ""),
    ],
)
def test_what_comes_after_a_deadline_is_not_believed(
    thawed_us: int, heeds: Callable[[Node], None], broken: str
) -> None:
    node = PidOne()
    node.pet()
    still(node)
    node.run_until(thawed_us)
    node.frozen = False

    heeds(node)
    node.pet(thawed_us)

    assert [broken in text for text in node.told] == ([True] if broken else [])


def cluster(session: Session = SESSION, state: SessionState = SessionState.UP) -> ClusterRecord:
    entry = NodeEntry(name="node1", address="", session=session, state=state)
    return ClusterRecord(rig="r", nodes=(entry,), groups=("web",), settings=Settings())


def restarted(node: Node) -> None:
    node.since_us += 1


DOWN = cluster(state=SessionState.DOWN)


@pytest.mark.parametrize(
    ("record", "befalls", "broken"),
    [
        (DOWN, nothing, True),
        (DOWN, Node.end, False),
        (DOWN, doomed, False),
        (DOWN, in_its_next_life, False),
        (DOWN, restarted, False),
        (DOWN, still, False),
        (cluster(), nothing, False),
        (cluster(EARLIER, SessionState.DOWN), nothing, False),
        (replace(DOWN, nodes=()), nothing, False),
    ],
)
def test_a_session_that_reads_that_it_is_down_ends(
    record: ClusterRecord, befalls: Callable[[Node], None], broken: bool
) -> None:
    node = Node()
    watcher = DownResets(
        engine=node.engine,
        since=lambda _name: node.since_us,
        frozen=lambda _name: node.frozen,
        told=node.told.append,
    )

    watcher.seen("node1", record)
    befalls(node)
    node.run_until(1_000)

    assert node.told == [f"{SESSION} has read that it is Down, and goes on"] * broken


@pytest.mark.parametrize(
    ("removed", "there_before", "joins", "broken"),
    [
        (False, True, SESSION, True),
        (True, True, SESSION, False),
        (False, False, SESSION, False),
        (False, True, EARLIER, False),
    ],
)
def test_a_session_joins_when_nothing_is_left_of_the_ones_before(
    removed: bool, there_before: bool, joins: Session, broken: bool
) -> None:
    node = Node()
    watcher = ClearedBeforeItJoins(engine=node.engine, told=node.told.append)
    if not there_before:
        node.engine.guests = lambda _name: []
    watcher.up("node1")
    if removed:
        del node.engine.boxes[node.guest.id]
    older: Any = SimpleNamespace(record=cluster(Session("node1", "000000000001", "0.1")))
    newer: Any = SimpleNamespace(record=cluster(joins))

    watcher.chose(CLUSTER_KEY, newer, newer)
    assert node.told == []
    watcher.chose(CLUSTER_KEY, older, newer)

    told = f"{SESSION} has joined, and of an earlier session there is still r-node1-vm-1"
    assert node.told == [told] * broken


def request(number: int, entry_point: EntryPoint = EntryPoint.TERMINATE, *, epoch: int = 4) -> HostRequest:
    return request_of(SESSION, entry_point, number=number, epoch=epoch)


def report(number: int | None, error: str | None = "no answer") -> HostReport:
    return report_of(ResourceState.OFFLINE_PENDING, epoch=4, number=number, error=error)


class Owner(Node):
    """node1, which owns a VM and asks for its end."""

    def __init__(self) -> None:
        super().__init__()
        self.host_us = 1
        policy = ResourcePolicy(pending_timeout_us=TIMEOUT_US)
        spec = GroupSpec(name="web", resources=(ResourceSpec(name="vm", type="virtual-machine", policy=policy),))
        self.record = GroupRecord(spec=spec, owner=SESSION, epoch=4, persistent={"vm": False})
        chosen: Any = SimpleNamespace(newest=lambda _key: self.record)
        self.watcher = EndsAreProved(
            chosen=chosen,
            since=lambda _name: self.since_us,
            host_of=lambda _name: self.host_us,
            now=lambda: self.clock.now_us,
            told=self.told.append,
        )

    def ask(self, at_us: int, asked: HostRequest, *reports: HostReport) -> None:
        self.run_until(at_us)
        self.watcher.asked("node1", asked)
        for told in reports:
            self.watcher.answered("node1", told)


def lapsed(owner: Owner) -> None:
    owner.watcher.lapsed("node1")


def has_another_host(owner: Owner) -> None:
    owner.host_us = 2


def has_ended(owner: Owner) -> None:
    owner.ask(1_000_000, request(7), report(7, None))


def hears_of_something_else(owner: Owner) -> None:
    owner.ask(1_000_000, request(7), report(None, None), report(9, None))


def has_given_it_away(owner: Owner) -> None:
    owner.record = replace(owner.record, owner=EARLIER, epoch=5)


TOO_LONG_US = TIMEOUT_US * 102 // 100 + 500_001


@pytest.mark.parametrize(
    ("befalls", "waited_us", "broken"),
    [
        (nothing, TOO_LONG_US, True),
        (nothing, TOO_LONG_US - 1, False),
        (hears_of_something_else, TOO_LONG_US, True),
        (has_ended, TOO_LONG_US, False),
        (lapsed, TOO_LONG_US, False),
        (restarted, TOO_LONG_US, False),
        (has_another_host, TOO_LONG_US, False),
        (has_given_it_away, TOO_LONG_US, False),
    ],
)
def test_who_gets_no_proof_of_an_end_asks_no_longer_than_a_pending_timeout(
    befalls: Callable[[Any], None], waited_us: int, broken: bool
) -> None:
    owner = Owner()
    owner.ask(0, request(1), report(1))
    owner.ask(100_000, request(2), report(2))

    befalls(owner)
    owner.ask(100_000 + waited_us, request(20))

    assert owner.told == [f"{SESSION} has no proof for 3.560001 s that vm has ended"] * broken


def test_what_fails_to_start_or_under_another_epoch_is_no_missing_proof() -> None:
    owner = Owner()
    owner.ask(0, request(1, EntryPoint.ONLINE), report(1))
    owner.ask(TOO_LONG_US, request(2))
    assert owner.told == []

    owner = Owner()
    owner.ask(0, request(1), report(1))
    owner.ask(100_000, request(2, epoch=5))
    owner.ask(2 * TOO_LONG_US, request(3, epoch=5))
    assert owner.told == []


class Switch(Node):
    """node2, which switches node1 on, and the watcher of marks."""

    def __init__(self) -> None:
        super().__init__()
        self.client: Any = SimpleNamespace(holds=self._holds, on_start_ordered=[])
        self.watcher = HeldNodesStayOff(engine=self.engine, told=self.told.append)
        self.watcher.listen("node2", self.client)

    async def _holds(self, rig: str) -> frozenset[str]:
        return frozenset(self.engine.held.get(rig, ()))

    def ask(self) -> frozenset[str]:
        told: frozenset[str] = asyncio.run(self.client.holds("r"))
        return told

    def switch_on(self, container: str | None = None) -> None:
        for ordered in self.client.on_start_ordered:
            ordered(container or self.box.id)


def hangs(switch: Switch, kind: FaultKind = FaultKind.VMMS_HANG) -> None:
    switch.watcher.struck(Planned(at_us=0, kind=kind, target="node2", duration_us=1))


def something_else_does(switch: Switch) -> None:
    hangs(switch, FaultKind.POWER_OFF)


@pytest.mark.parametrize(
    ("asked_before", "after_us", "befalls", "broken"),
    [
        (True, HeldNodesStayOff.KNOWN_US + 1, nothing, True),
        (True, HeldNodesStayOff.KNOWN_US, nothing, False),
        (False, 0, nothing, True),
        (False, 0, hangs, False),
        (False, 0, something_else_does, True),
        (False, 0, lambda switch: switch.watcher.disturbed(), False),
    ],
)
def test_who_can_know_that_a_node_is_held_off_does_not_switch_it_on(
    asked_before: bool, after_us: int, befalls: Callable[[Any], None], broken: bool
) -> None:
    switch = Switch()
    if asked_before:
        assert switch.ask() == frozenset()
    switch.engine.held["r"] = {"node1"}
    assert switch.ask() == {"node1"}
    befalls(switch)
    switch.run_until(after_us)

    switch.switch_on()

    assert switch.told == ["node2 switches node1 on, which is held off"] * broken


def test_nodes_that_nobody_holds_off_and_vms_are_started() -> None:
    switch = Switch()
    switch.switch_on()
    switch.engine.held["r"] = {"node2"}
    switch.switch_on()
    switch.engine.held["r"] = {"node1"}
    switch.switch_on(switch.guest.id)
    assert switch.told == []
