"""The watchers of what is asked of resource hosts and what they answer, each with the smallest history that breaks its
rule, and with one that does not.
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from harness.model.host import EntryPoint, HostReport, HostRequest, Why
from harness.model.records import GroupRecord
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import GroupSpec, Priority, ResourcePolicy, ResourceSpec, Topology
from harness.simulation.fault_kinds import FaultKind, Planned
from harness.simulation.watch_entry_points import EntryPointsReturn, UrgentFirst

SESSION = Session.parse("node1@000000000001/5.1")
OTHER = Session.parse("node1@000000000001/6.1")
TIMEOUT_US = 2_000_000


def request(number: int, entry_point: EntryPoint, resource: str = "vm", group: str = "web") -> HostRequest:
    return HostRequest(
        number=number,
        entry_point=entry_point,
        resource=resource,
        group=group,
        session=SESSION,
        epoch=1,
        not_after_us=0,
        why=Why.START,
    )


def report(number: int | None, resource: str = "vm", error: str | None = None) -> HostReport:
    return HostReport(
        sequence=1,
        resource=resource,
        group="",
        epoch=1,
        state=ResourceState.ONLINE,
        at_us=0,
        number=number,
        error=error,
    )


def topology(*groups: GroupSpec) -> Topology:
    return Topology(rig="r", subnet="", nodes=(), groups=groups)


class Host:
    """A resource host that was asked at a tenth of a second."""

    def __init__(self) -> None:
        policy = ResourcePolicy(deadlock_timeout_us=TIMEOUT_US)
        machine = ResourceSpec(name="vm", type="virtual-machine", policy=policy)
        self.now_us = 100_000
        self.since_us: int | None = 1
        self.told: list[str] = []
        self.watcher = EntryPointsReturn(
            topology(GroupSpec(name="web", resources=(machine,))),
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
    machine = ResourceSpec(name=f"{name}-vm", type="virtual-machine", depends_on=((ip.name, other.name),))
    return GroupSpec(name=name, resources=(ip, other, machine), priority=priority)


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
        """Of the other group's machine."""
        self.now_us = at_us
        self.watcher.asked("node1", request(9, EntryPoint.ONLINE, "web-vm"))
        return self.told


TOLD = ["web-vm is started on node1 before mail-vm, whose group is more urgent"]


def test_the_machine_of_the_more_urgent_group_goes_first() -> None:
    assert Starts().start() == TOLD


def test_a_machine_that_could_not_be_started_yet_is_not_waited_for() -> None:
    assert Starts().start(at_us=100_000) == []
    assert Starts(opened=False).start() == []
    assert Starts(address="").start() == []


def test_a_machine_that_shall_not_be_started_there_is_not_waited_for() -> None:
    assert Starts(urgent=Priority.MEDIUM).start() == []
    assert Starts(urgent=Priority.LOW).start() == []
    assert Starts(owner=OTHER).start() == []
    assert Starts(epoch=2).start() == []
    assert Starts(persistent={"mail-vm": False}).start() == []


def test_a_machine_that_was_started_is_not_waited_for() -> None:
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
