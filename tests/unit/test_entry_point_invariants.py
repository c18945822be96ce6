"""The watchers of what is asked of resource hosts and what they answer, each with the smallest history that breaks its
rule, and with one that does not.
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from host_requests import report_of, request_of

from harness.cluster_service.resources.resource_control import START_PLACE_US, STARTS_AT_ONCE
from harness.model.host_messages import EntryPoint, HostReport, HostRequest
from harness.model.records import GroupRecord, Restart
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import GroupSpec, Priority, ResourcePolicy, ResourceSpec, Topology
from harness.simulation.invariants.entry_points import EntryPointsReturn, StartsAtOnce, TerminatedFirst, UrgentFirst
from harness.simulation.world.fault_kinds import FaultKind, Planned

SESSION = Session.parse("node1@000000000001/5.1")
OTHER = Session.parse("node1@000000000001/6.1")
TIMEOUT_US = 2_000_000


def request(number: int, entry_point: EntryPoint, resource: str = "vm", group: str = "web") -> HostRequest:
    return request_of(SESSION, entry_point, number=number, resource=resource, group=group)


def report(number: int | None, resource: str = "vm", error: str | None = None) -> HostReport:
    return report_of(ResourceState.ONLINE, resource=resource, number=number, error=error)


def topology(*groups: GroupSpec) -> Topology:
    return Topology(rig="r", subnet="", nodes=(), groups=groups)


class Host:
    """A resource host that was asked at a tenth of a second."""

    def __init__(self) -> None:
        policy = ResourcePolicy(deadlock_timeout_us=TIMEOUT_US)
        vm = ResourceSpec(name="vm", type="virtual-machine", policy=policy)
        self.now_us = 100_000
        self.since_us: int | None = 1
        self.told: list[str] = []
        self.watcher = EntryPointsReturn(
            topology(GroupSpec(name="web", resources=(vm,))),
            host_of=lambda _node: self.since_us,
            now=lambda: self.now_us,
            told=self.told.append,
        )

    def answers(self, number: int | None, *, after_us: int) -> list[str]:
        """So long after it was asked."""
        self.now_us = 100_000 + after_us
        self.watcher.answered("node1", report(number))
        return self.told


TOO_LONG_US = TIMEOUT_US * 102 // 100 + 500_001


@pytest.mark.parametrize(
    ("entry_point", "after_us", "broken"),
    [
        (EntryPoint.OPEN, TOO_LONG_US, True),
        (EntryPoint.CLOSE, TOO_LONG_US, True),
        (EntryPoint.TERMINATE, TOO_LONG_US, True),
        (EntryPoint.TERMINATE, TOO_LONG_US - 1, False),
        (EntryPoint.ONLINE, TOO_LONG_US, False),
        (EntryPoint.OFFLINE, TOO_LONG_US, False),
    ],
)
def test_what_does_not_return_is_not_waited_for(entry_point: EntryPoint, after_us: int, broken: bool) -> None:
    host = Host()
    host.watcher.asked("node1", request(1, entry_point))

    told = host.answers(1, after_us=after_us)

    assert told == [f"{entry_point} of vm on node1 took 2.540001 s: its deadlock-timeout is 2 s"] * broken
    assert host.answers(1, after_us=after_us + TOO_LONG_US) is host.told
    assert len(host.told) == broken


def test_what_waits_behind_another_call_may_take_longer() -> None:
    host = Host()
    host.watcher.asked("node1", request(1, EntryPoint.ONLINE))
    host.watcher.asked("node1", request(2, EntryPoint.CLOSE))
    assert host.answers(2, after_us=TOO_LONG_US) == []


def test_another_host_answers_for_itself() -> None:
    host = Host()
    host.watcher.asked("node1", request(1, EntryPoint.OPEN))
    host.since_us = 2
    assert host.answers(1, after_us=TOO_LONG_US) == []
    host.watcher.asked("node1", request(2, EntryPoint.OPEN))
    assert host.answers(2, after_us=2 * TOO_LONG_US) != []

    host = Host()
    host.since_us = None
    host.watcher.asked("node1", request(1, EntryPoint.OPEN))
    assert host.answers(1, after_us=TOO_LONG_US) == []


@pytest.mark.parametrize(
    ("kind", "broken"),
    [(FaultKind.FREEZE, False), (FaultKind.HOST_HANG, False), (FaultKind.PAUSE, False), (FaultKind.DRIVER_HANG, True)],
)
def test_a_host_that_stands_still_answers_later(kind: FaultKind, broken: bool) -> None:
    host = Host()
    host.watcher.struck(Planned(at_us=50_000, kind=kind, target="node1", duration_us=20_000))
    host.watcher.asked("node1", request(1, EntryPoint.OPEN))
    assert (host.answers(1, after_us=TOO_LONG_US) != []) == broken


def group(name: str, priority: Priority) -> GroupSpec:
    ip = ResourceSpec(name=f"{name}-ip", type="ip-address")
    other = replace(ip, name=f"{name}-ip-b")
    vm = ResourceSpec(name=f"{name}-vm", type="virtual-machine", depends_on=((ip.name, other.name),))
    return GroupSpec(name=name, resources=(ip, other, vm), priority=priority)


class Starts:
    """Two groups of one owner; what the urgent one has was opened, and one of its addresses is Online, at zero."""

    def __init__(
        self,
        *,
        urgent: Priority = Priority.HIGH,
        opened: bool = True,
        address: str = "mail-ip-b",
        **record: Any,
    ) -> None:
        specs = {"web": group("web", Priority.MEDIUM), "mail": group("mail", urgent)}
        self.told: list[str] = []
        self.now_us = 0
        given = {"owner": SESSION, "epoch": 1, "persistent": {"mail-vm": True}, **record}
        records = {f"group/{name}": GroupRecord(spec=spec, **given) for name, spec in specs.items()}
        chosen: Any = SimpleNamespace(newest=records.get)
        self.watcher = UrgentFirst(
            topology(*specs.values()), chosen=chosen, now=lambda: self.now_us, told=self.told.append
        )
        self.ask(1, EntryPoint.OPEN, "mail-vm", error=None if opened else "it cannot be opened")
        if address:
            self.ask(2, EntryPoint.ONLINE, address)

    def ask(self, number: int, entry_point: EntryPoint, resource: str, error: str | None = None) -> None:
        """And hear the answer."""
        self.watcher.asked("node1", request(number, entry_point, resource, resource.partition("-")[0]))
        self.watcher.answered("node1", report(None, resource))
        self.watcher.answered("node1", report(number, resource, error))

    def start(self, *, at_us: int = 100_001) -> list[str]:
        """Of the other group's VM."""
        self.now_us = at_us
        self.watcher.asked("node1", request(9, EntryPoint.ONLINE, "web-vm"))
        return self.told


TOLD = ["web-vm is started on node1 before mail-vm, whose group is more urgent"]


def test_the_vm_of_the_more_urgent_group_goes_first() -> None:
    assert Starts().start() == TOLD


def test_a_vm_that_could_not_be_started_yet_is_not_waited_for() -> None:
    assert Starts().start(at_us=100_000) == []
    assert Starts(opened=False).start() == []
    assert Starts(address="").start() == []


def test_a_vm_that_shall_not_be_started_there_is_not_waited_for() -> None:
    assert Starts(urgent=Priority.MEDIUM).start() == []
    assert Starts(urgent=Priority.LOW).start() == []
    assert Starts(owner=OTHER).start() == []
    assert Starts(epoch=2).start() == []
    assert Starts(persistent={"mail-vm": False}).start() == []


def test_a_vm_that_was_started_is_not_waited_for() -> None:
    starts = Starts()
    starts.watcher.asked("node1", request(3, EntryPoint.ONLINE, "mail-vm", "mail"))
    assert starts.start() == []


def test_with_the_first_fault_the_order_is_no_longer_looked_at() -> None:
    starts = Starts()
    starts.watcher.struck(Planned(at_us=0, kind=FaultKind.CLOCK_DRIFT, target="node1", duration_us=1))
    assert starts.start() == TOLD

    starts = Starts()
    starts.watcher.struck(Planned(at_us=0, kind=FaultKind.VM_CRASH, target="web-vm", duration_us=1))
    assert starts.start() == []


def test_where_something_else_happens_neither_order_nor_time_is_looked_at() -> None:
    starts, host = Starts(), Host()
    host.watcher.asked("node1", request(1, EntryPoint.OPEN))
    starts.watcher.disturbed()
    host.watcher.disturbed()
    host.watcher.asked("node1", request(2, EntryPoint.CLOSE))

    assert starts.start() == []
    assert host.answers(1, after_us=TOO_LONG_US) == []
    assert host.answers(2, after_us=2 * TOO_LONG_US) == []


class AtOnce:
    """A node that starts VMs, each at its time."""

    def __init__(self) -> None:
        self.life: object | None = 1
        self.now_us = 0
        self.told: list[str] = []
        vms = tuple(ResourceSpec(name=f"vm{number}", type="virtual-machine") for number in range(20))
        address = ResourceSpec(name="ip", type="ip-address")
        self.watcher = StartsAtOnce(
            topology(GroupSpec(name="web", resources=(*vms, address))),
            life_of=lambda _node: self.life,
            now=lambda _node: self.now_us,
            told=self.told.append,
        )
        self.started = 0

    def start(self, times: int = STARTS_AT_ONCE, *, node: str = "node1", resource: str = "") -> list[str]:
        for _ in range(times):
            self.watcher.asked(node, request(self.started, EntryPoint.ONLINE, resource or f"vm{self.started}"))
            self.started += 1
        return self.told


TOO_MANY = ["node1 starts 9 VMs at once, vm8 the last: no more than 8 shall be"]


def test_a_node_starts_only_so_many_vms_at_once() -> None:
    at_once = AtOnce()

    assert at_once.start() == []
    assert at_once.start(1) == TOO_MANY


def test_a_start_that_is_answered_makes_room_for_another() -> None:
    at_once = AtOnce()
    at_once.start()

    at_once.watcher.answered("node1", report(None, "vm3"))
    at_once.watcher.answered("node2", report(3, "vm3"))
    at_once.watcher.answered("node1", report(3, "vm3"))

    assert at_once.start(1) == []
    assert at_once.start(1) != []


def test_a_start_that_takes_long_holds_up_no_others() -> None:
    for after_us, told in ((START_PLACE_US - 1, TOO_MANY), (START_PLACE_US, [])):
        at_once = AtOnce()
        at_once.start()
        at_once.now_us = after_us
        assert at_once.start(1) == told


def test_starts_elsewhere_and_of_other_things_do_not_count() -> None:
    at_once = AtOnce()
    at_once.start()

    assert at_once.start(1, resource="ip") == []
    assert at_once.start(1, node="node2") == []
    at_once.watcher.asked("node1", request(99, EntryPoint.OPEN, "vm9"))
    assert at_once.told == []


def test_whoever_begins_anew_counts_anew() -> None:
    lapsed, restarted, away = AtOnce(), AtOnce(), AtOnce()
    for at_once in (lapsed, restarted):
        at_once.start()
    lapsed.watcher.lapsed("node1")
    restarted.life = 2
    away.life = None

    assert lapsed.start() == []
    assert restarted.start() == []
    assert away.start(STARTS_AT_ONCE + 1) == []


class Failed:
    """A VM that has failed on node1, and whose restart is recorded."""

    def __init__(self, *, session: Session = SESSION, state: ResourceState = ResourceState.FAILED) -> None:
        self.told: list[str] = []
        self.watcher = TerminatedFirst(told=self.told.append)
        self.tell(state)
        self.record_restart(session)

    def record_restart(self, session: Session = SESSION) -> None:
        before = GroupRecord(spec=group("web", Priority.MEDIUM), owner=SESSION, epoch=1, persistent={"vm": True})
        after = replace(before, restarts=(Restart(resource="vm", session=session, at_us=1, failure="1"),))
        self.watcher.changed("group/web", before, after)

    def tell(self, state: ResourceState) -> None:
        self.watcher.answered("node1", replace(report(None), state=state))

    def ask(self, *entry_points: EntryPoint, node: str = "node1") -> list[str]:
        for entry_point in entry_points:
            self.watcher.asked(node, request(1, entry_point))
        return self.told


def test_what_failed_is_terminated_before_it_is_restarted() -> None:
    assert Failed().ask(EntryPoint.ONLINE) == ["vm is Failed on node1, and is brought Online without being terminated"]
    assert Failed().ask(EntryPoint.TERMINATE, EntryPoint.ONLINE) == []
    assert Failed().ask(EntryPoint.OPEN, EntryPoint.ONLINE) == []


def test_what_is_not_certainly_a_restart_needs_no_end() -> None:
    recovered = Failed()
    recovered.tell(ResourceState.ONLINE)

    assert recovered.ask(EntryPoint.ONLINE) == []
    assert Failed(state=ResourceState.OFFLINE).ask(EntryPoint.ONLINE) == []
    assert Failed(session=Session.parse("node2@000000000002/5.1")).ask(EntryPoint.ONLINE) == []
    assert Failed().ask(EntryPoint.ONLINE, node="node2") == []


def test_a_failure_before_the_host_was_asked_anew_is_over() -> None:
    failed = Failed(state=ResourceState.ONLINE)
    failed.tell(ResourceState.FAILED)
    failed.ask(EntryPoint.OPEN)

    failed.record_restart()

    assert failed.ask(EntryPoint.ONLINE) == []
