"""Many VMs to be started at once: what a node orders, and how long its engine takes."""

import random
from typing import Any

from manager_harness import HERE, SECOND, _Cluster, sessions

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import Action, CallHost, HostConnected, HostReported, RegisterSeen, Tick
from harness.cluster_service.core.pending_requests import OpenRequests
from harness.cluster_service.resources.resource_control import START_PLACE_US, STARTS_AT_ONCE, ResourceControlManager
from harness.model import labels as label
from harness.model.host_messages import EntryPoint, HostReport, HostRequest
from harness.model.labels import Role
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry, SessionState
from harness.model.states import ResourceState
from harness.model.topology import GroupSpec, Priority, ResourceSpec, Settings
from harness.model.vm import VmSpec
from harness.simulation.kernel.node_clock import MAX_DRIFT_PPM, DriftingClock
from harness.simulation.kernel.runtime import SimulatedRuntime, VirtualClock
from harness.simulation.twins.container import GuestReply
from harness.simulation.twins.engine import SimulatedEngine
from harness.simulation.twins.engine_client import SimulatedEngineClient

MANY = 20


class Bench:
    """One node that owns many groups of a VM each; the host does what it is told to."""

    def __init__(self, priorities: list[Priority]) -> None:
        names = tuple(f"web{number}" for number in range(len(priorities)))
        entries = tuple(
            NodeEntry(name=name, address="", session=session, state=SessionState.UP)
            for name, session in sessions().items()
        )
        around: Any = _Cluster(ClusterRecord(rig="r", nodes=entries, groups=names, settings=Settings()))
        self.manager = ResourceControlManager(
            session=HERE,
            node=around,
            membership=around,
            failover=around,
            requests=OpenRequests(),
            ids=Ids(),
            guests_ended_us=lambda: None,
            hour_of_day=lambda: 0,
        )
        self.now = SECOND
        self.started: list[str] = []
        self.under_way: dict[str, HostRequest] = {}
        self.deliver(HostConnected())
        opening: list[HostRequest] = []
        for name, priority in zip(names, priorities, strict=True):
            spec = GroupSpec(
                name=name, priority=priority, resources=(ResourceSpec(name=name, type="virtual-machine"),)
            )
            record = GroupRecord(spec=spec, owner=HERE, epoch=1, persistent={name: True})
            opening += self.deliver(RegisterSeen(key=f"group/{name}", record=record, version=1))
        for request in opening:
            self.report(request, ResourceState.OFFLINE)

    def deliver(self, event: Any) -> list[HostRequest]:
        wishes: list[Action] = self.manager.handle(self.now, event)
        requests = [wish.request for wish in wishes if isinstance(wish, CallHost)]
        for request in requests:
            if request.entry_point is EntryPoint.ONLINE:
                self.started.append(request.resource)
                self.under_way[request.resource] = request
        return requests

    def report(self, request: HostRequest, state: ResourceState, *, error: str | None = None) -> None:
        """The end of a request."""
        self.under_way.pop(request.resource, None)
        told = HostReport(
            sequence=self.now,
            resource=request.resource,
            group=request.group,
            epoch=1,
            state=state,
            at_us=self.now,
            number=request.number,
            error=error,
        )
        self.deliver(HostReported(told))


def test_a_node_orders_so_many_starts_at_once_and_the_next_when_one_has_ended() -> None:
    bench = Bench([Priority.MEDIUM] * MANY)
    assert len(bench.started) == STARTS_AT_ONCE

    while bench.under_way:
        assert len(bench.under_way) <= STARTS_AT_ONCE
        bench.now += 1_000
        bench.report(next(iter(bench.under_way.values())), ResourceState.ONLINE)

    assert sorted(bench.started) == sorted(f"web{number}" for number in range(MANY))


def test_of_those_that_wait_the_more_urgent_are_started_first() -> None:
    bench = Bench([*[Priority.LOW] * 10, *[Priority.MEDIUM] * 5, *[Priority.HIGH] * 5])

    while bench.under_way:
        bench.report(next(iter(bench.under_way.values())), ResourceState.ONLINE)

    waited = bench.started[STARTS_AT_ONCE:]
    assert waited == [f"web{number}" for number in (15, 16, 17, 18, 19, 10, 11, 12, 13, 14, 8, 9)]


def test_a_start_that_ends_with_an_error_makes_room_too() -> None:
    bench = Bench([Priority.MEDIUM] * (STARTS_AT_ONCE + 1))

    bench.report(bench.under_way["web0"], ResourceState.OFFLINE, error="refused")

    assert bench.started[-1] == f"web{STARTS_AT_ONCE}"
    bench.now += SECOND
    for request in list(bench.under_way.values()):
        bench.report(request, ResourceState.ONLINE)
    bench.deliver(Tick())
    assert bench.started[-1] == "web0"


def test_who_waits_is_started_anew_when_the_host_has_come_back() -> None:
    bench = Bench([Priority.MEDIUM] * MANY)

    opening = bench.deliver(HostConnected())
    bench.under_way.clear()
    for request in opening:
        bench.report(request, ResourceState.OFFLINE)

    assert len(bench.under_way) == STARTS_AT_ONCE


def starts_of(nodes: int, vms: int) -> list[int]:
    """When each of so many starts at once on each node was done, in microseconds."""
    clock = VirtualClock()
    engine = SimulatedEngine(clock, random.Random(1))
    done: list[int] = []
    made: list[str] = []
    for number in range(1, nodes + 1):
        engine.add_node(f"node{number}", {label.RIG: "r"})
        engine.start_node(f"node{number}")
    clock.run_until(SECOND)
    for number in range(1, nodes + 1):
        labels = {label.RIG: "r", label.ROLE: Role.VM.value, label.NODE: f"node{number}", label.GROUP: "g"}
        for vm in range(vms):
            spec = VmSpec(name=f"vm{vm}", group="g", image="guest", address=None, user=10_001)
            created = GuestReply(lambda value: made.append(str(value)), None)
            host = engine.node(f"node{number}").id
            engine.create(spec, host=host, labels={**labels, label.RESOURCE: spec.name}, answer=created)
    clock.run_until(20 * SECOND)
    assert len(made) == nodes * vms
    for container in made:
        engine.start(container, GuestReply(lambda _: done.append(clock.now_us - 20 * SECOND), None))
    clock.run_until(60 * SECOND)
    assert len(done) == nodes * vms
    return sorted(done)


def test_an_engine_starts_two_at_a_time_as_it_was_measured() -> None:
    times = starts_of(1, 64)

    assert times[1] <= 120_000
    assert 2.6 * SECOND <= times[-1] <= 3.7 * SECOND  # measured: 64 starts, eight in flight, took 3.3 s


def test_each_node_has_an_engine_of_its_own() -> None:
    assert starts_of(4, 2)[-1] <= 120_000


def test_starts_that_take_long_hold_nobody_up_for_long() -> None:
    bench = Bench([Priority.MEDIUM] * MANY)
    hanging = list(bench.started)

    bench.now += START_PLACE_US
    bench.deliver(Tick())

    assert len(bench.started) == 2 * STARTS_AT_ONCE
    assert bench.started[: len(hanging)] == hanging


def test_a_place_that_is_free_goes_to_the_more_urgent_one_that_waits() -> None:
    bench = Bench([*[Priority.MEDIUM] * STARTS_AT_ONCE, Priority.HIGH, Priority.LOW])
    low, high = f"web{STARTS_AT_ONCE + 1}", f"web{STARTS_AT_ONCE}"
    assert low not in bench.started

    # The less urgent one is looked at first, because something of it has changed.
    bench.manager._changed.add(low)
    bench.report(bench.under_way["web0"], ResourceState.ONLINE)

    assert bench.started[-1] == high


def test_an_order_is_late_by_the_clock_of_the_node_that_gave_it() -> None:
    clock = VirtualClock(start_us=300 * SECOND)
    slow = DriftingClock(clock, rate_ppm=-MAX_DRIFT_PPM, ahead_us=0)
    client = SimulatedEngineClient(SimulatedEngine(clock, random.Random(1)), own_clock=slow)
    sent: list[str] = []
    client.on_start_ordered.append(sent.append)
    runtime = SimulatedRuntime(slow, on_error=lambda _task, _error: None)

    runtime.spawn(client.start("in time", not_after_us=slow.now_us), name="start")
    runtime.spawn(client.start("late", not_after_us=slow.now_us - 1), name="start")
    clock.run_until(clock.now_us + SECOND)

    assert sent == ["in time"]
