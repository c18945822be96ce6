"""The watchers of recovery and of ownership, each with the smallest history that breaks its rule."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from host_requests import request_of

from harness.database.protocol import NO_BALLOT, Accept, Address, Ballot, Beat, BeatAnswer
from harness.database.register import JsonCodec, Stored
from harness.model import labels as label
from harness.model.changes import Record
from harness.model.host_messages import EntryPoint, HostRequest
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry, SessionState
from harness.model.register_keys import CLUSTER_KEY
from harness.model.session import Session
from harness.model.topology import Fencing, GroupSpec, ResourceSpec, Settings
from harness.model.voter_set import VoterSet
from harness.simulation.invariants.recovery import (
    AdoptsItsOwn,
    FenceOrdersRespected,
    OnlyLeaseholdersDeclareDown,
    OwnersWrite,
    OwnLeases,
    TurnsPass,
)
from harness.simulation.invariants.starts import LeaseOracle
from harness.simulation.kernel.runtime import VirtualClock
from harness.simulation.twins.container import SimulatedContainer

LEASE_US = 2_000_000
NAMES = ("node1", "node2", "node3")
SESSIONS = {name: Session(name, f"00000000000{name[-1]}", "5.1") for name in NAMES}
NEXT = Session("node3", "000000000003", "9.2")
VOTERS = VoterSet(version=1, members={name: f"{name}-1" for name in NAMES})


def entry(name: str, state: SessionState = SessionState.UP, **changed: Any) -> NodeEntry:
    return NodeEntry(**{"name": name, "address": "", "session": SESSIONS[name], "state": state, **changed})


UP = ClusterRecord(rig="r", nodes=tuple(entry(name) for name in NAMES), groups=("web",), settings=Settings())
DOWN = UP.with_node(entry("node3", SessionState.DOWN))
FENCED = UP.with_node(entry("node3", SessionState.DOWN, fenced=True))
REJOINED = UP.with_node(entry("node3", session=NEXT))
SPEC = GroupSpec(name="web", resources=(ResourceSpec(name="vm", type="virtual-machine"),))
WANTED = GroupRecord(spec=SPEC, owner=SESSIONS["node3"], epoch=4, persistent={"vm": True})


def stored(version: int, *ids: str, record: Record = UP) -> Stored:
    return Stored(version=version, ids=ids, record=record)


class Leases:
    """What voters hear of node1, and what it says of node3."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.clock = VirtualClock()
        self.leases = LeaseOracle(
            sets={1: VOTERS, 2: VOTERS.without("node3")},
            lease_us=LEASE_US,
            pause_us=LEASE_US // 2,
            now=lambda: self.clock.now_us,
            told=self.told.append,
        )
        self.watcher = OnlyLeaseholdersDeclareDown(
            codec=JsonCodec(), leases=self.leases, lease_us=LEASE_US, told=self.told.append
        )

    def beat(self, at_us: int, *voters: str, version: int = 1) -> None:
        self.clock.run_until(at_us)
        session = str(SESSIONS["node1"])
        for name in voters:
            to = Address(rig="r", voter=name, incarnation=f"{name}-1", set_version=version)
            answer = BeatAnswer(
                of=to, session=session, revision=0, cluster=NO_BALLOT, clock_us=0, leases=(), changed=()
            )
            voter: Any = SimpleNamespace(node=name)
            self.leases.saw(voter, Beat(to=to, session=session, since=0), answer)

    def declare(self, at_us: int, change: str = "node1.1.1.0:7") -> None:
        self.clock.run_until(at_us)
        newer = stored(2, change, record=DOWN)
        to = Address(rig="r", voter="node1", incarnation="node1-1", set_version=1)
        ballot = Ballot(3, "node1.1.1.0")
        value = JsonCodec().encode(newer)
        self.watcher.proposed(Accept(to=to, key=CLUSTER_KEY, ballot=ballot, value=value, promise=ballot))
        self.watcher.chose(CLUSTER_KEY, stored(1), newer)


@pytest.mark.parametrize(
    ("beats", "declared_us", "unbroken_s"),
    [
        ([(0, "node1 node2"), (1_000_000, "node1 node2")], 2_000_000, None),
        ([(0, "node1 node2"), (1_000_000, "node1 node2")], 1_500_000, "1.500000"),
        ([(0, "node1"), (1_000_000, "node2"), (1_500_000, "node1 node3")], 2_500_000, "1.500000"),
        ([(0, "node1 node2"), (2_000_000, "node1 node2")], 3_000_000, "1.000000"),
        ([(0, "node1 node2"), (1_900_000, "node1 node2"), (3_800_000, "node1 node2")], 4_000_000, None),
        ([], 2_000_000, "0.000000"),
    ],
)
def test_others_are_judged_by_who_has_held_a_lease_for_a_whole_lease(
    beats: list[tuple[int, str]], declared_us: int, unbroken_s: str | None
) -> None:
    leases = Leases()
    for at_us, voters in beats:
        leases.beat(at_us, *voters.split())

    leases.declare(declared_us)

    assert [f"for {unbroken_s} s" in text for text in leases.told] == [True] * (unbroken_s is not None)


def test_what_was_renewed_under_two_versions_of_the_set_makes_no_lease() -> None:
    leases, session = Leases(), str(SESSIONS["node1"])
    leases.beat(1_000_000, "node1", "node2")
    leases.beat(2_000_000, "node1")
    leases.beat(2_500_000, "node2", version=2)
    assert leases.leases.ends_us(session) == 1_000_000 + LEASE_US

    leases.beat(2_600_000, "node1", version=2)
    assert leases.leases.ends_us(session) == 2_500_000 + LEASE_US


def test_what_another_has_proposed_is_not_laid_to_who_proposes_it_again() -> None:
    leases = Leases()

    leases.declare(2_000_000, change="node2.1.1.0:7")

    assert leases.told == []


class Power:
    """node1, which fences node3, and the watcher of the switch."""

    def __init__(self, cluster: ClusterRecord, *, session: Session = SESSIONS["node3"]) -> None:
        self.told: list[str] = []
        self.clock = VirtualClock()
        labels = {label.NODE: "node3"}
        self.box = SimulatedContainer(id=f"{session.container}ff", name="r-node3", labels=labels)
        self.box.started = session.started
        self.engine: Any = SimpleNamespace(boxes={self.box.id: self.box}, node=lambda _name: self.box, held={})
        self.chosen: Any = SimpleNamespace(newest=lambda _key: cluster)
        leases: Any = SimpleNamespace(ends_us=lambda _session: self.clock.now_us + LEASE_US)
        self.sent: list[tuple[str, int]] = []
        self.client: Any = SimpleNamespace(kill=self._kill)
        self.watcher = FenceOrdersRespected(
            engine=self.engine,
            chosen=self.chosen,
            leases=leases,
            rig="r",
            clock=self.clock,
            lease_us=LEASE_US,
            told=self.told.append,
        )
        self.watcher.listen("node1", self.client)

    async def _kill(self, container: str, *, signal: int = 9) -> None:
        self.sent.append((container, signal))

    def kill(self, at_us: int) -> None:
        self.clock.run_until(at_us)
        asyncio.run(self.client.kill(self.box.id))


@pytest.mark.parametrize(("after_us", "broken"), [(LEASE_US, False), (LEASE_US + 1, True)])
def test_a_kill_is_sent_within_the_lease_under_which_it_was_ordered(after_us: int, broken: bool) -> None:
    power = Power(DOWN)
    power.watcher.ordered(SESSIONS["node1"], SESSIONS["node3"])

    power.kill(after_us)

    assert power.told == ["node1 switches node3 off 0.000001 s after the end of the lease of its order"] * broken
    assert power.sent == [(power.box.id, 9)]


@pytest.mark.parametrize(
    ("session", "after_us", "broken"),
    [(NEXT, LEASE_US, False), (NEXT, LEASE_US + 1, True), (SESSIONS["node3"], LEASE_US + 1, False)],
)
def test_a_session_that_has_joined_is_not_killed_when_all_must_know_of_it(
    session: Session, after_us: int, broken: bool
) -> None:
    power = Power(REJOINED, session=session)
    power.watcher.chose(CLUSTER_KEY, stored(1, record=FENCED), stored(2, record=REJOINED))
    power.clock.run_until(after_us)
    power.watcher.ordered(SESSIONS["node1"], SESSIONS["node3"])

    power.kill(after_us)

    assert [f"{NEXT} has been a member for 2.000001 s" in text for text in power.told] == [True] * broken


@pytest.mark.parametrize(
    ("cluster", "running", "held", "off_again_us", "seconds"),
    [
        (FENCED, False, False, 0, "20.000000"),
        (FENCED, False, False, 9_000_000, None),
        (FENCED, True, False, 0, None),
        (FENCED, False, True, 0, None),
        (REJOINED, False, False, 0, None),
    ],
)
def test_a_fenced_node_is_switched_on_again_unless_it_is_held(
    cluster: ClusterRecord, running: bool, held: bool, off_again_us: int, seconds: str | None
) -> None:
    power = Power(cluster)
    power.box.running = running
    power.engine.held = {"r": {"node3"} if held else set()}
    power.watcher.down("node3")
    power.watcher.chose(CLUSTER_KEY, stored(1, record=DOWN), stored(2, record=FENCED))
    power.clock.run_until(off_again_us)
    if off_again_us:
        power.watcher.down("node3")

    power.clock.run_until(21_000_000)

    assert [f"off for {seconds} s" in text for text in power.told] == [True] * (seconds is not None)


def test_where_something_else_happens_a_node_may_be_left_off() -> None:
    power = Power(FENCED)
    power.box.running = False
    power.watcher.down("node3")
    power.watcher.chose(CLUSTER_KEY, stored(1, record=DOWN), stored(2, record=FENCED))
    power.watcher.disturbed()

    power.clock.run_until(21_000_000)

    assert power.told == []


@pytest.mark.parametrize(
    ("cluster", "pets_until_us", "gap", "orders", "since_us", "broken"),
    [
        (DOWN, 5_000_000, False, False, 0, True),
        (DOWN, 5_000_000, False, True, 0, False),
        (DOWN, 5_000_000, True, False, 0, False),
        (DOWN, 3_000_000, False, False, 0, False),
        (DOWN, 5_000_000, False, False, 2_000_000, False),
        (FENCED, 5_000_000, False, False, 0, False),
    ],
)
def test_who_holds_a_lease_all_the_time_takes_its_turn_to_fence(
    cluster: ClusterRecord, pets_until_us: int, gap: bool, orders: bool, since_us: int, broken: bool
) -> None:
    told: list[str] = []
    clock = VirtualClock()
    chosen: Any = SimpleNamespace(newest=lambda _key: cluster)
    settings = Settings(lease_us=LEASE_US, fencing=Fencing.POWER)
    own = OwnLeases(settings, since=lambda _node: since_us, now=lambda: clock.now_us)
    watcher = TurnsPass(settings, chosen=chosen, own=own, clock=clock, told=told.append)
    own.petted(SESSIONS["node1"], LEASE_US)
    for at_us in range(500_000, pets_until_us, 500_000):
        clock.run_until(at_us)
        if at_us == 500_000:
            watcher.chose(CLUSTER_KEY, stored(1), stored(2, record=DOWN))
        if not (gap and 1_000_000 <= at_us < 2_000_000):
            own.petted(SESSIONS["node1"], LEASE_US)
    if orders:
        watcher.ordered(SESSIONS["node1"], SESSIONS["node3"])

    clock.run_until(6_000_000)

    assert [f"{SESSIONS['node1']} has not taken its turn" in text for text in told] == [True] * broken


@pytest.mark.parametrize(
    ("cluster", "writer", "owner", "broken"),
    [
        (UP, "node2", SESSIONS["node3"], True),
        (UP, "node3", SESSIONS["node3"], False),
        (FENCED, "node2", SESSIONS["node3"], False),
        (UP, "node2", None, False),
    ],
)
def test_while_the_owner_is_up_nobody_else_changes_what_is_wanted(
    cluster: ClusterRecord, writer: str, owner: Session | None, broken: bool
) -> None:
    told: list[str] = []
    chosen: Any = SimpleNamespace(newest=lambda _key: cluster)
    watcher = OwnersWrite(chosen=chosen, told=told.append)
    before = replace(WANTED, owner=owner)
    after = replace(before, persistent={"vm": False})

    watcher.chose("group/web", stored(1, record=before), stored(2, f"{writer}.1.1.0:7", record=after))

    assert [text.startswith("register group/web: node2 changes the PersistentState of vm") for text in told] == (
        [True] * broken
    )


def opened(**changed: Any) -> HostRequest:
    return request_of(**{"session": SESSIONS["node3"], "entry_point": EntryPoint.OPEN, "epoch": 4, **changed})


@pytest.mark.parametrize(
    ("request_of", "record", "runs_for", "broken"),
    [
        ({}, WANTED, SESSIONS["node3"], True),
        ({"adopt": True}, WANTED, SESSIONS["node3"], False),
        ({"epoch": 3}, WANTED, SESSIONS["node3"], False),
        ({"entry_point": EntryPoint.TERMINATE}, WANTED, SESSIONS["node3"], False),
        ({}, replace(WANTED, persistent={"vm": False}), SESSIONS["node3"], False),
        ({}, replace(WANTED, owner=SESSIONS["node1"]), SESSIONS["node3"], False),
        ({}, WANTED, NEXT, False),
    ],
)
def test_what_runs_and_is_wanted_is_adopted_by_the_session_that_owns_it(
    request_of: dict[str, Any], record: GroupRecord, runs_for: Session, broken: bool
) -> None:
    told: list[str] = []
    labels = {label.NODE: "node3", label.RESOURCE: "vm", label.SESSION: str(runs_for)}
    box = SimulatedContainer(id="c1", name="vm", labels=labels, host="n3")
    chosen: Any = SimpleNamespace(newest=lambda _key: record)
    instances: Any = SimpleNamespace(running=lambda _vm: [box])
    watcher = AdoptsItsOwn(chosen=chosen, instances=instances, told=told.append)

    watcher.asked("node3", opened(**request_of))

    assert told == [f"VM vm runs on node3, owned by {SESSIONS['node3']}, and is not adopted"] * broken
