"""The watchers of what resource hosts do with resources, each with the smallest history that breaks its rule, and with
ones that do not; and the calls of drivers that they hear of.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from host_requests import report_of, request_of

from harness.model import labels as label
from harness.model.host_messages import EntryPoint, HostReport
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import SECOND_US, GroupSpec, ResourcePolicy, ResourceSpec, Topology
from harness.ports import OrderRefused
from harness.resource_host.driver import DriverStatus
from harness.simulation.invariants.resource_host import (
    FailedStartsAreTerminated,
    HangsAreFound,
    OneCallAtATime,
    SilenceEndsACall,
)
from harness.simulation.kernel.runtime import SimulatedRuntime, VirtualClock
from harness.simulation.twins.container import SimulatedContainer
from harness.simulation.world.driver_call_tap import DriverCall, DriverCalls
from harness.simulation.world.fault_kinds import FaultKind, Planned

SESSION = Session.parse("node1@000000000001/5.1")
DRIVER = object()
POLICY = ResourcePolicy(
    pending_timeout_us=2 * SECOND_US, is_alive_interval_us=4 * SECOND_US, looks_alive_interval_us=60 * SECOND_US
)


def call(entry_point: EntryPoint, resource: str = "vm", driver: object = DRIVER) -> DriverCall:
    return DriverCall(node="node1", driver=driver, resource=resource, entry_point=entry_point)


def report(state: ResourceState, number: int | None = None, error: str | None = None) -> HostReport:
    return report_of(state, number=number, error=error)


def topology(policy: ResourcePolicy = POLICY) -> Topology:
    vm = ResourceSpec(name="vm", type="virtual-machine", policy=policy)
    return Topology(rig="r", subnet="", nodes=(), groups=(GroupSpec(name="web", resources=(vm,)),))


def fault(kind: FaultKind, target: str, at_us: int, duration_us: int = 10 * SECOND_US) -> Planned:
    return Planned(at_us=at_us, kind=kind, target=target, duration_us=duration_us)


# The calls of drivers


class Driver:
    """Starts what it is asked to, or raises."""

    def __init__(self, services: Any) -> None:
        self.error: Exception | None = services

    async def online(self, _context: Any) -> str:
        if self.error is not None:
            raise self.error
        return "started"

    async def is_alive(self, _context: Any) -> str:
        return "alive"


class Host:
    """Calls a driver whose calls are told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.told: list[str] = []
        self.clock = VirtualClock()
        self.runtime = SimulatedRuntime(self.clock, on_error=lambda _task, _error: None)
        calls = DriverCalls()
        calls.on_begun.append(lambda call: self.told.append(f"{call.entry_point} of {call.resource} on {call.node}"))
        calls.on_ended.append(lambda _call, outcome: self.told.append(f"ended: {outcome!r}"))
        services: Any = error
        self.driver: Any = calls.told({"vm": Driver})["vm"](services)

    def ask(self, entry: str, *, end: bool = False) -> list[str]:
        """A call, ended from outside before it has begun to wait."""
        context = SimpleNamespace(resource="vm", session=SESSION)
        task = self.runtime.spawn(getattr(self.driver, entry)(context), name=entry)
        if end:
            task.cancel()
        self.clock.run_until(1)
        return self.told


def test_a_drivers_calls_are_told_with_what_they_come_to() -> None:
    error = OSError("full")

    assert Host().ask("online") == ["online of vm on node1", "ended: 'started'"]
    assert Host(error).ask("online") == ["online of vm on node1", f"ended: {error!r}"]


def test_a_drivers_checks_are_not_told() -> None:
    assert Host().ask("is_alive") == []


def test_what_a_driver_lacks_it_still_lacks() -> None:
    assert not hasattr(Host().driver, "offline")


# One at a time


@pytest.mark.parametrize(
    ("first", "second", "broken"),
    [
        (call(EntryPoint.ONLINE), call(EntryPoint.OPEN), True),
        (call(EntryPoint.OFFLINE), call(EntryPoint.OFFLINE), True),
        (call(EntryPoint.ONLINE), call(EntryPoint.TERMINATE), False),
        (call(EntryPoint.TERMINATE), call(EntryPoint.ONLINE), False),
        (call(EntryPoint.ONLINE), call(EntryPoint.ONLINE, "other"), False),
        (call(EntryPoint.ONLINE), call(EntryPoint.OPEN, driver=object()), False),
    ],
)
def test_calls_for_one_resource_do_not_overlap(first: DriverCall, second: DriverCall, broken: bool) -> None:
    told: list[str] = []
    watcher = OneCallAtATime(told=told.append)

    watcher.begun(first)
    watcher.begun(second)

    what = f"{second.entry_point} of vm begins on node1 while its {first.entry_point} is under way"
    assert told == [what] * broken


def test_a_call_that_has_ended_overlaps_with_none() -> None:
    told: list[str] = []
    watcher = OneCallAtATime(told=told.append)
    for one in (call(EntryPoint.OPEN), call(EntryPoint.ONLINE)):
        watcher.begun(one)
        watcher.ended(one, None)
    assert told == []


# Failed starts

FAILED = DriverStatus(state=ResourceState.FAILED)
ONLINE = DriverStatus(state=ResourceState.ONLINE)
PENDING = DriverStatus(state=ResourceState.ONLINE_PENDING)


def left_by(
    outcome: object,
    *then: EntryPoint,
    entry_point: EntryPoint = EntryPoint.ONLINE,
    told_of: HostReport | None = None,
) -> list[str]:
    """What is told when a call came to that, others followed, and the host settles the request."""
    told: list[str] = []
    watcher = FailedStartsAreTerminated(told=told.append)
    asked = call(entry_point)
    watcher.begun(asked)
    watcher.ended(asked, outcome)
    for one in then:
        watcher.begun(call(one))
    watcher.answered("node1", told_of or report(ResourceState.FAILED, 1, "it did not start"))
    return told


@pytest.mark.parametrize("outcome", [OSError("full"), FAILED, DriverStatus(state=ResourceState.OFFLINE)])
def test_a_start_that_went_wrong_is_terminated_before_it_is_failed(outcome: object) -> None:
    assert left_by(outcome) == ["vm is Failed on node1 after its online went wrong, and was not terminated"]
    assert left_by(outcome, EntryPoint.TERMINATE) == []


def test_a_start_that_may_not_be_wrong_needs_no_end() -> None:
    assert left_by(OrderRefused("too late")) == []
    assert left_by(ONLINE) == []
    assert left_by(PENDING) == []
    assert left_by(None) == []
    assert left_by(OSError("full"), entry_point=EntryPoint.OPEN) == []


def test_what_does_not_settle_a_start_as_failed_is_not_looked_at() -> None:
    error = OSError("full")

    assert left_by(error, told_of=report(ResourceState.FAILED)) == []
    assert left_by(error, told_of=report(ResourceState.OFFLINE, 1, "overtaken")) == []


# Silence

TOO_LONG_US = POLICY.pending_timeout_us * 102 // 100 + SECOND_US // 2


class Silence:
    """A driver is called at one second, and says nothing."""

    def __init__(self, entry_point: EntryPoint = EntryPoint.OFFLINE, *befell: Planned) -> None:
        self.clock = VirtualClock(start_us=SECOND_US)
        self.told: list[str] = []
        self.watcher = SilenceEndsACall(topology(), clock=self.clock, told=self.told.append)
        for one in befell:
            self.watcher.struck(one)
        self.call = call(entry_point)
        self.watcher.begun(self.call)

    def lasts(self, for_us: int = TOO_LONG_US) -> list[str]:
        self.clock.run_until(SECOND_US + for_us)
        return self.told


def test_a_silent_call_is_not_waited_for() -> None:
    told = "of vm on node1 is waited for after 2.540000 s of silence: its pending-timeout is 2 s"

    assert Silence().lasts() == [f"offline {told}"]
    assert Silence(EntryPoint.ONLINE).lasts() == [f"online {told}"]
    assert Silence().lasts(TOO_LONG_US - 1) == []
    assert Silence(EntryPoint.OPEN).lasts() == []


def test_a_call_that_returns_or_reports_is_not_silent() -> None:
    ended, reports = Silence(), Silence()
    ended.watcher.ended(ended.call, None)
    reports.watcher.answered("node1", report(ResourceState.OFFLINE_PENDING))

    assert ended.lasts() == []
    assert reports.lasts() == []


def test_the_end_of_one_call_does_not_end_the_next() -> None:
    silence = Silence()
    silence.watcher.ended(call(EntryPoint.OPEN), None)
    assert silence.lasts() != []


@pytest.mark.parametrize(
    ("kind", "broken"),
    [(FaultKind.FREEZE, False), (FaultKind.HOST_HANG, False), (FaultKind.VM_DEAF, True), (FaultKind.VMMS_HANG, True)],
)
def test_a_host_that_stands_still_cannot_stop_waiting(kind: FaultKind, broken: bool) -> None:
    assert (Silence(EntryPoint.OFFLINE, fault(kind, "node1", 0)).lasts() != []) == broken


def test_where_something_else_happens_silence_is_not_looked_at() -> None:
    silence = Silence()
    silence.watcher.disturbed()
    silence.watcher.begun(call(EntryPoint.ONLINE))
    assert silence.lasts(10 * TOO_LONG_US) == []


# Checks

HANG_US = 100 * SECOND_US
FOUND_US = POLICY.is_alive_interval_us * 102 // 100 + SECOND_US // 2
STANDS_STILL = ["VM vm stands still on node1 for 4.580000 s and is Online: it is to be checked every 4 s"]


class Hang:
    """A VM that is Online on node1, and is frozen after what `befell` it."""

    def __init__(self, *befell: Planned, policy: ResourcePolicy = POLICY, for_us: int = 10 * SECOND_US) -> None:
        self.clock = VirtualClock()
        self.told: list[str] = []
        self.host: int | None = 1
        self.box = SimulatedContainer(id="c1", name="vm", labels={label.NODE: "node1"}, host="n1")
        self.for_us = for_us
        instances: Any = SimpleNamespace(running=lambda vm: [self.box] if vm == "vm" else [])
        self.watcher = HangsAreFound(
            topology(policy),
            instances=instances,
            host_of=lambda _node: self.host,
            clock=self.clock,
            told=self.told.append,
        )
        self.ask(1)
        self.watcher.answered("node1", report(ResourceState.ONLINE, 1))
        for one in befell:
            self.clock.run_until(one.at_us)
            self.watcher.struck(one)

    def ask(self, number: int) -> None:
        self.watcher.asked("node1", request_of(SESSION, EntryPoint.ONLINE, number=number))

    def begin(self, meanwhile: Callable[["Hang"], None] = lambda _hang: None, *, look_us: int = FOUND_US) -> list[str]:
        """It hangs, and a second later something happens."""
        self.clock.run_until(HANG_US)
        self.watcher.struck(fault(FaultKind.VM_HANG, "vm", HANG_US, self.for_us))
        self.clock.run_until(HANG_US + SECOND_US)
        meanwhile(self)
        self.clock.run_until(HANG_US + look_us)
        return self.told


def test_a_vm_that_stands_still_is_found_by_the_next_check() -> None:
    seldom = ResourcePolicy(is_alive_interval_us=60 * SECOND_US, looks_alive_interval_us=4 * SECOND_US)

    assert Hang().begin() == STANDS_STILL
    assert Hang(policy=seldom).begin() == STANDS_STILL
    assert Hang().begin(look_us=FOUND_US - 1) == []
    assert Hang().begin(lambda hang: hang.watcher.answered("node1", report(ResourceState.FAILED))) == []


def test_a_hang_that_is_soon_over_may_be_missed() -> None:
    assert Hang(for_us=FOUND_US).begin() == []


@pytest.mark.parametrize(
    ("befell", "broken"),
    [
        (fault(FaultKind.VMMS_HANG, "node2", HANG_US - SECOND_US), True),
        (fault(FaultKind.CLOCK_DRIFT, "node1", HANG_US - SECOND_US), True),
        (fault(FaultKind.VMMS_HANG, "node1", HANG_US - 47 * SECOND_US), True),
        (fault(FaultKind.VMMS_HANG, "node1", HANG_US - 45 * SECOND_US), False),
        (fault(FaultKind.DRIVER_HANG, "node1", SECOND_US), False),
        (fault(FaultKind.VM_CRASH, "vm", HANG_US - SECOND_US), False),
        (fault(FaultKind.VM_HANG, "vm", HANG_US - SECOND_US), False),
    ],
)
def test_trouble_before_a_hang_may_hide_it(befell: Planned, broken: bool) -> None:
    assert Hang(befell).begin() == STANDS_STILL * broken


@pytest.mark.parametrize("target", ["node1", "vm"])
def test_trouble_after_a_hang_may_hide_it(target: str) -> None:
    kind = FaultKind.VM_STOP_BY_HAND if target == "vm" else FaultKind.HOST_HANG
    struck = fault(kind, target, HANG_US + SECOND_US)
    assert Hang().begin(lambda hang: hang.watcher.struck(struck)) == []


def test_a_hang_of_what_is_being_worked_on_is_not_looked_at() -> None:
    asked = Hang()
    asked.ask(2)

    assert asked.begin() == []
    assert Hang().begin(lambda hang: hang.ask(2)) == []


def test_a_host_that_is_new_begins_anew() -> None:
    def ends(hang: Hang) -> None:
        hang.host = 2

    away = Hang()
    away.host = None

    assert Hang().begin(ends) == []
    assert away.begin() == []


def test_a_vm_that_was_frozen_already_is_not_looked_at() -> None:
    frozen, offline = Hang(), Hang()
    frozen.box.paused = True
    offline.watcher.answered("node1", report(ResourceState.OFFLINE))

    assert frozen.begin() == []
    assert offline.begin() == []


def test_where_something_else_happens_hangs_are_not_looked_at() -> None:
    before = Hang()
    before.watcher.disturbed()

    assert before.begin() == []
    assert Hang().begin(lambda hang: hang.watcher.disturbed()) == []
