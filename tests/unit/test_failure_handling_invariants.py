"""The watchers of why the cluster does something, each with the smallest history that breaks its rule, and with one
that does not.
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from host_requests import request_of

from harness.model import labels as label
from harness.model.host_messages import EntryPoint, HostRequest
from harness.model.records import ClusterRecord, GroupRecord, Move, MoveCause, NodeEntry, Restart, SessionState
from harness.model.session import Session
from harness.model.states import DrainState
from harness.model.topology import (
    SECOND_US,
    GroupSpec,
    NodeSpec,
    ResourcePolicy,
    ResourceSpec,
    RestartAction,
    Settings,
    ShutdownAction,
    Topology,
)
from harness.simulation.invariants.failure_handling import (
    DisturbanceTracker,
    DrainedOwnsNothing,
    FailuresCount,
    RestartActions,
    RunningStays,
    StartsAreWishes,
    StopsAreWishes,
)
from harness.simulation.twins.container import SimulatedContainer
from harness.simulation.world.fault_kinds import FaultKind, Planned

SESSION = Session.parse("node1@000000000001/5.1")
OTHER = Session.parse("node2@000000000002/5.1")
FAILED = Move(target="node2", reason="vm failed and its restarts are used up")


def owned(policy: ResourcePolicy | None = None, **more: Any) -> GroupRecord:
    vm = ResourceSpec(name="vm", type="virtual-machine", policy=policy or ResourcePolicy())
    other = ResourceSpec(name="vm-b", type="virtual-machine")
    spec = GroupSpec(name="web", resources=(vm, other))
    given = {"spec": spec, "owner": SESSION, "epoch": 1, "persistent": {"vm": True}, **more}
    return GroupRecord(**given)


def content(record: Any, version: int = 1) -> Any:
    return SimpleNamespace(record=record, version=version)


@pytest.mark.parametrize(
    ("action", "resource", "broken"),
    [
        (RestartAction.NONE, "vm", True),
        (RestartAction.NONE, "vm-b", False),
        (RestartAction.RESTART, "vm", False),
        (RestartAction.RESTART_THEN_FAILOVER, "vm", False),
    ],
)
def test_what_shall_stay_failed_is_not_restarted(action: RestartAction, resource: str, broken: bool) -> None:
    told: list[str] = []
    before = owned(ResourcePolicy(restart_action=action))
    after = replace(before, restarts=(Restart(resource=resource, session=SESSION, at_us=1, failure="1"),))

    watcher = RestartActions(told=told.append)
    watcher.chose("group/web", content(before), content(after))
    watcher.chose("group/web", content(after), content(replace(after, epoch=2)))

    assert told == ["register group/web: vm is restarted, and its restart-action is none"] * broken


@pytest.mark.parametrize(
    ("action", "move", "broken"),
    [
        (RestartAction.RESTART, FAILED, True),
        (RestartAction.NONE, replace(FAILED, reason="vm cannot be opened here"), True),
        (RestartAction.RESTART, replace(FAILED, reason="vm-b failed and its restarts are used up"), False),
        (RestartAction.RESTART, replace(FAILED, cause=MoveCause.REQUEST), False),
        (RestartAction.RESTART_THEN_FAILOVER, FAILED, False),
    ],
)
def test_what_may_not_move_moves_nothing(action: RestartAction, move: Move, broken: bool) -> None:
    told: list[str] = []
    before = owned(ResourcePolicy(restart_action=action))

    RestartActions(told=told.append).chose("group/web", content(before), content(replace(before, move=move)))

    assert told == [f"register group/web: moved for vm, and its restart-action is {action}"] * broken


@pytest.mark.parametrize(
    ("change", "version", "broken"),
    [
        ({"move": FAILED, "failovers": (1,)}, 2, ""),
        ({"move": FAILED}, 2, "is not counted"),
        ({"move": replace(FAILED, cause=MoveCause.DRAIN)}, 2, ""),
        ({"move": replace(FAILED, cause=MoveCause.DRAIN), "failovers": (1,)}, 2, "it stays where it is"),
        ({"owner": OTHER, "epoch": 2, "failovers": (1,)}, 2, f"{SESSION} became {OTHER}"),
        ({"owner": OTHER, "epoch": 2}, 2, ""),
        ({"owner": OTHER, "epoch": 2, "failovers": (1,)}, 3, ""),
    ],
)
def test_moves_for_failures_count_as_failovers_and_nothing_else_does(
    change: dict[str, Any], version: int, broken: str
) -> None:
    told: list[str] = []
    before = owned()

    FailuresCount(told=told.append).chose("group/web", content(before), content(replace(before, **change), version))

    assert [broken in text for text in told] == ([True] if broken else [])


@pytest.mark.parametrize(
    ("owner", "outcome", "proposed_us", "broken"),
    [
        (SESSION, DrainState.COMPLETED, 4_000_001, True),
        (SESSION, DrainState.COMPLETED, 4_000_000, False),
        (SESSION, DrainState.FAILED, 9_000_000, False),
        (OTHER, DrainState.COMPLETED, 9_000_000, False),
    ],
)
def test_a_drain_is_completed_when_the_node_owns_nothing_that_it_can_know_of(
    owner: Session, outcome: DrainState, proposed_us: int, broken: bool
) -> None:
    told: list[str] = []
    record = owned(owner=owner)
    chosen: Any = SimpleNamespace(proposed_us=proposed_us, newest=lambda key: record if key == "group/web" else None)
    watcher = DrainedOwnsNothing(chosen=chosen, seen_us=3_000_000, now=lambda: 1_000_000, told=told.append)
    entry = NodeEntry(name="node1", address="", session=SESSION, state=SessionState.UP, drain=DrainState.IN_PROGRESS)
    before = ClusterRecord(rig="r", nodes=(entry,), groups=("web",), settings=Settings())
    after = before.with_node(replace(entry, drain=outcome))

    watcher.chose("group/web", content(replace(record, owner=None)), content(record))
    watcher.chose("cluster", content(before), content(after))
    watcher.chose("cluster", content(after), content(after))

    assert told == ["register cluster: the drain of node1 is Completed, and it owns web"] * broken


STOP_US = 30 * SECOND_US


class Stopped:
    """A VM that has run for long on node1, and is stopped by hand after what `befell` it."""

    def __init__(self, *befell: Planned, policy: ResourcePolicy | None = None, **record: Any) -> None:
        self.told: list[str] = []
        self.now_us = 0
        self.record = owned(policy, **record)
        labels = {label.NODE: "node1", label.RESOURCE: "vm", label.SESSION: str(SESSION), label.GROUP: "web"}
        self.box = SimulatedContainer(id="c1", name="vm", labels=labels, host="n1")
        self.box.started_us = SECOND_US
        instances: Any = SimpleNamespace(running=lambda vm: [self.box] if vm == "vm" else [])
        chosen: Any = SimpleNamespace(newest=lambda _key: self.record)
        nodes = (NodeSpec(name="node1", address="", voter=True),)
        self.troubles = DisturbanceTracker(now=lambda: self.now_us)
        self.watcher = StopsAreWishes(
            Topology(rig="r", subnet="", nodes=nodes, groups=(self.record.spec,)),
            instances=instances,
            chosen=chosen,
            troubles=self.troubles,
            now=lambda: self.now_us,
            told=self.told.append,
        )
        for fault in (*befell, fault_of(FaultKind.VM_STOP_BY_HAND, "vm", STOP_US)):
            self.now_us = fault.at_us
            self.strike(fault)
        self.watcher.by_hand("vm", False)

    def strike(self, fault: Planned) -> None:
        """A fault strikes, now."""
        self.watcher.struck(fault)
        self.troubles.struck(fault)

    def start(self) -> list[str]:
        """Order it to start again, a second later."""
        self.watcher.ordered(self.box, self.now_us + SECOND_US)
        return self.told


def fault_of(kind: FaultKind, target: str, at_us: int) -> Planned:
    return Planned(at_us=at_us, kind=kind, target=target, duration_us=1_000)


TOLD = ["VM vm is ordered to start on node1 1.000000 s after somebody stopped it there"]
JUST_BEFORE_US = STOP_US - SECOND_US


BEFORE_AN_ACT = [
    ((), True),
    ((fault_of(FaultKind.VMMS_KILL, "node2", JUST_BEFORE_US),), True),
    ((fault_of(FaultKind.VMMS_KILL, "node1", JUST_BEFORE_US - 10 * SECOND_US),), True),
    ((fault_of(FaultKind.CLOCK_DRIFT, "node1", JUST_BEFORE_US),), True),
    ((fault_of(FaultKind.COMMAND, "node1/mail", JUST_BEFORE_US),), True),
    ((fault_of(FaultKind.VMMS_KILL, "node1", JUST_BEFORE_US),), False),
    ((fault_of(FaultKind.COMMAND, "node2/web", JUST_BEFORE_US),), False),
    ((fault_of(FaultKind.COMMAND, "node2", JUST_BEFORE_US),), False),
]
"""What befell before something was done by hand, and whether that still counts as a wish."""


@pytest.mark.parametrize(
    ("befell", "broken"),
    [*BEFORE_AN_ACT, ((fault_of(FaultKind.VM_HANG, "vm", JUST_BEFORE_US),), False)],
)
def test_a_vm_that_somebody_stopped_is_not_started_again(befell: tuple[Planned, ...], broken: bool) -> None:
    assert Stopped(*befell).start() == TOLD * broken


def test_a_stop_that_is_no_wish_is_not_looked_at() -> None:
    assert Stopped(policy=ResourcePolicy(shutdown_action=ShutdownAction.FAIL)).start() == []
    assert Stopped(owner=OTHER).start() == []
    assert Stopped(move=FAILED).start() == []
    assert Stopped(persistent={"vm": False}).start() == []


def test_after_a_stop_somebody_may_want_it_again() -> None:
    stopped = Stopped()
    wanted_no_more = replace(stopped.record, persistent={"vm": False})
    stopped.watcher.chose("group/web", content(stopped.record), content(wanted_no_more))
    assert stopped.start() == []

    stopped = Stopped()
    stopped.watcher.by_hand("vm", True)
    assert stopped.start() == []


def test_after_a_stop_trouble_may_hide_it() -> None:
    for befallen in ("node1", "vm", "node3/web"):
        stopped = Stopped()
        kind = FaultKind.COMMAND if "/" in befallen else FaultKind.SERVICE_KILL
        stopped.strike(fault_of(kind, befallen, STOP_US + 1))
        assert stopped.start() == []

    stopped = Stopped()
    stopped.troubles.lapsed("node2")
    assert stopped.start() == TOLD
    stopped = Stopped()
    stopped.troubles.lapsed("node1")
    assert stopped.start() == []


def test_after_a_stop_the_next_owner_may_not_know_of_it() -> None:
    stopped = Stopped()
    stopped.record = replace(stopped.record, epoch=2)
    assert stopped.start() == []


PAUSED = Move(target="node2", reason="", cause=MoveCause.PAUSED)


@pytest.mark.parametrize(
    ("befell", "record", "move", "runs_as", "broken"),
    [
        ((), {}, PAUSED, SESSION, True),
        ((fault_of(FaultKind.VMMS_KILL, "node2", JUST_BEFORE_US),), {}, PAUSED, SESSION, True),
        ((fault_of(FaultKind.VMMS_KILL, "node1", JUST_BEFORE_US),), {}, PAUSED, SESSION, False),
        ((fault_of(FaultKind.VM_HANG, "vm", JUST_BEFORE_US),), {}, PAUSED, SESSION, False),
        ((fault_of(FaultKind.COMMAND, "node2/web", JUST_BEFORE_US),), {}, PAUSED, SESSION, False),
        ((), {"persistent": {"vm": False}}, PAUSED, SESSION, False),
        ((), {"persistent": {"vm": True, "vm-b": True}}, PAUSED, SESSION, False),
        ((), {}, replace(PAUSED, cause=MoveCause.DRAIN), SESSION, False),
        ((), {"move": PAUSED}, PAUSED, SESSION, False),
        ((), {"owner": None}, PAUSED, SESSION, False),
        ((), {}, PAUSED, OTHER, False),
    ],
)
def test_what_runs_on_a_paused_node_stays_there(
    befell: tuple[Planned, ...], record: dict[str, Any], move: Move, runs_as: Session, broken: bool
) -> None:
    stopped = Stopped(*befell, **record)
    told: list[str] = []
    stopped.box.labels = {**stopped.box.labels, label.SESSION: str(runs_as)}
    instances: Any = SimpleNamespace(running=lambda vm: [stopped.box] if vm == "vm" else [])
    troubles = DisturbanceTracker(now=lambda: STOP_US)
    watcher = RunningStays(instances=instances, troubles=troubles, now=lambda: STOP_US, told=told.append)
    for fault in befell:
        troubles.struck(fault)

    watcher.chose("group/web", content(stopped.record), content(replace(stopped.record, move=move)))
    assert told == ["register group/web: leaves node1, which is Paused, although vm runs there"] * broken

    watcher.disturbed()
    watcher.chose("group/web", content(stopped.record), content(replace(stopped.record, move=move)))
    assert len(told) == broken


class Started:
    """A VM that nobody wants, opened on node1 at zero, and started there by hand after what `befell` it."""

    def __init__(self, *befell: Planned, asked_us: int | None = 0, foreign: bool = True, **record: Any) -> None:
        self.told: list[str] = []
        self.now_us = 0
        self.record = owned(**{"persistent": {"vm": False}, **record})
        labels = {label.NODE: "node1", label.RESOURCE: "vm", label.SESSION: str(SESSION), label.GROUP: "web"}
        self.box = SimulatedContainer(id="c1", name="vm", labels=labels, host="n1")
        instances: Any = SimpleNamespace(foreign={"c1"} if foreign else set())
        chosen: Any = SimpleNamespace(newest=lambda _key: self.record)
        self.troubles = DisturbanceTracker(now=lambda: self.now_us, meant=FaultKind.VM_START_BY_HAND)
        self.watcher = StartsAreWishes(
            Topology(rig="r", subnet="", nodes=(), groups=(self.record.spec,)),
            instances=instances,
            chosen=chosen,
            troubles=self.troubles,
            now=lambda: self.now_us,
            told=self.told.append,
        )
        if asked_us is not None:
            self.now_us = asked_us
            self.watcher.asked("node1", asking(EntryPoint.OPEN))
        for fault in (*befell, fault_of(FaultKind.VM_START_BY_HAND, "vm", STOP_US)):
            self.now_us = fault.at_us
            self.troubles.struck(fault)
        self.watcher.started(self.box, STOP_US)

    def end(self, entry_point: EntryPoint = EntryPoint.OFFLINE, *, node: str = "node1", epoch: int = 1) -> list[str]:
        """Ask for it, a second later."""
        self.now_us = STOP_US + SECOND_US
        self.watcher.asked(node, replace(asking(entry_point), epoch=epoch))
        return self.told


def asking(entry_point: EntryPoint) -> HostRequest:
    return request_of(SESSION, entry_point)


ENDED = ["VM vm is ended on node1 1.000000 s after somebody started it there"]


@pytest.mark.parametrize(
    ("befell", "broken"),
    [*BEFORE_AN_ACT, ((fault_of(FaultKind.VM_STOP_BY_HAND, "vm", JUST_BEFORE_US),), False)],
)
def test_a_vm_that_somebody_started_is_not_ended_again(befell: tuple[Planned, ...], broken: bool) -> None:
    assert Started(*befell).end() == ENDED * broken
    assert Started(*befell).end(EntryPoint.TERMINATE) == ENDED * broken


def test_a_start_that_is_no_wish_is_not_looked_at() -> None:
    assert Started(owner=OTHER).end() == []
    assert Started(move=FAILED).end() == []
    assert Started(persistent={"vm": True}).end() == []
    assert Started(foreign=False).end() == []


def test_a_start_while_something_is_asked_of_the_vm_may_be_missed() -> None:
    assert Started(asked_us=None).end() == []
    assert Started(asked_us=STOP_US - 3 * SECOND_US).end() == []
    assert Started(asked_us=STOP_US - 3 * SECOND_US - 1).end() == ENDED


def test_what_is_asked_after_a_start_may_be_something_else() -> None:
    assert Started().end(EntryPoint.OPEN) == []
    assert Started().end(node="node2") == []
    assert Started().end(epoch=2) == []


def test_after_a_start_somebody_may_want_it_no_more() -> None:
    started = Started()
    started.watcher.chose("group/web", content(started.record), content(replace(started.record, epoch=2)))
    assert started.end() == []


def test_after_a_start_trouble_may_hide_it() -> None:
    crashed, lapsed, elsewhere, disturbed = Started(), Started(), Started(), Started()
    crashed.troubles.struck(fault_of(FaultKind.VM_CRASH, "vm", STOP_US + 1))
    lapsed.troubles.lapsed("node1")
    elsewhere.troubles.lapsed("node2")
    disturbed.watcher.disturbed()

    assert crashed.end() == []
    assert lapsed.end() == []
    assert elsewhere.end() == ENDED
    assert disturbed.end() == []
