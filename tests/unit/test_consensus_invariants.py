"""The watchers of rounds and of the voter set, each with the smallest history that breaks its rule."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from harness.database.acceptor import Acceptor
from harness.database.protocol import Accept, Address, Ballot, Call, Form, Prepare, Raise, Reply
from harness.database.register import Stored
from harness.model.changes import Record
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry, SessionState
from harness.model.register_keys import CLUSTER_KEY
from harness.model.session import Session
from harness.model.topology import GroupSpec, ResourceSpec, Settings, Topology
from harness.model.voter_set import VoterSet
from harness.simulation.invariants.consensus import (
    AbsentVotes,
    AnsweredIsMade,
    BehindTheirCount,
    PromisedFirst,
    SetChanges,
)
from harness.simulation.invariants.reads import MadeOnce
from harness.simulation.invariants.recovery import OwnLeases
from harness.simulation.kernel.runtime import VirtualClock
from harness.simulation.plants_of_rounds import AcceptCarriesNoPromise, BehindItsCountItVotes, OlderSetsAreAnswered
from harness.simulation.twins.voters import SimulatedVoter

NAMES = ("node1", "node2", "node3")
FIRST = VoterSet(version=1, members={name: f"{name}-1" for name in NAMES})
TWO = FIRST.without("node3")
CLUSTER = ClusterRecord(rig="r", nodes=(), groups=("web",), settings=Settings(), voter_set=FIRST)
VM = ResourceSpec(name="vm", type="virtual-machine")
KEYS = (CLUSTER_KEY, "group/web")


class Voters:
    """Three voters that were formed, and the one watcher that hears what they carry out."""

    def __init__(self, watcher: PromisedFirst | SetChanges | BehindTheirCount, acceptor: type[Acceptor] = Acceptor):
        self._voters = {name: SimulatedVoter(VirtualClock(), acceptor(), node=name) for name in NAMES}
        for name, voter in self._voters.items():
            voter.start()
            self.ask(name, Form(to=self.to(name), members=FIRST.members))
            voter.watch(watcher.saw, watcher.HEARS)

    @staticmethod
    def to(name: str, version: int = 1) -> Address:
        return Address(rig="r", voter=name, incarnation=f"{name}-1", set_version=version)

    def ask(self, name: str, call: Call) -> Reply:
        replies: list[Reply] = []
        voter = self._voters[name]
        voter.take([call], voter.runs, replies.extend)
        return replies[0]

    def prepare(self, name: str, number: int, *, version: int = 1, key: str = CLUSTER_KEY, seen: int = 0) -> None:
        self.ask(name, Prepare(to=self.to(name, version), key=key, ballot=Ballot(number, "p"), seen=seen))

    def accept(self, name: str, number: int, *, version: int = 1, key: str = CLUSTER_KEY) -> None:
        ballot, promise = Ballot(number, "p"), Ballot(number + 1, "p")
        self.ask(name, Accept(to=self.to(name, version), key=key, ballot=ballot, value="v", promise=promise))

    def rise(self, name: str) -> None:
        self.ask(name, Raise(to=self.to(name, TWO.version), members=TWO.members))


def stored(version: int, *ids: str, record: Record = CLUSTER) -> Stored:
    return Stored(version=version, ids=ids, record=record)


def test_a_change_is_acknowledged_once_a_majority_has_accepted_it() -> None:
    told: list[str] = []
    watcher = MadeOnce(told=told.append)

    watcher.chose("cluster", stored(1, "a"), stored(3, "a", "b", "c"))
    watcher.acknowledged("cluster", "b")
    watcher.acknowledged("cluster", "c")
    assert told == []
    watcher.acknowledged("group/web", "b")

    assert told == ["register group/web: the change b was acknowledged, and no majority of a set accepted it"]


def test_a_change_is_made_once() -> None:
    told: list[str] = []
    watcher = MadeOnce(told=told.append)

    watcher.chose("cluster", stored(1, "a"), stored(2, "a", "b"))
    watcher.chose("cluster", stored(2, "a", "b"), stored(3, "a", "b", "c"))
    assert told == []
    watcher.chose("cluster", stored(3, "a", "b", "c"), stored(4, "a", "c", "b"))

    assert told == ["register cluster: the change b is made again in version 4"]


def group(wanted: bool) -> GroupRecord:
    spec = GroupSpec(name="web", resources=(VM,))
    return GroupRecord(spec=spec, owner=None, epoch=0, persistent={"vm": wanted})


@pytest.mark.parametrize(
    ("chosen", "asked_us", "broken"),
    [
        ([(10, 2, True)], 5, True),
        ([(10, 2, False)], 5, False),
        ([(10, 2, False), (20, 3, True)], 5, False),
        ([(10, 2, False), (20, 3, True)], 20, False),
        ([(10, 2, False), (20, 3, True)], 21, True),
        ([(10, 2, True), (20, 4, True)], 15, False),
    ],
)
def test_what_is_answered_as_done_was_so_since_it_was_asked_for(
    chosen: list[tuple[int, int, bool]], asked_us: int, broken: bool
) -> None:
    told: list[str] = []
    now_us, older = 0, stored(1, record=group(True))
    topology = Topology(rig="r", subnet="", nodes=(), groups=(group(True).spec,))
    watcher = AnsweredIsMade(topology, now=lambda: now_us, told=told.append)
    for at_us, version, wanted in chosen:
        now_us, newer = at_us, stored(version, record=group(wanted))
        watcher.chose("group/web", older, newer)
        older = newer

    watcher.done("vm", False, asked_us)

    assert [text.startswith("PersistentState 0 of vm, asked for at 0.0000") for text in told] == [True] * broken


def test_a_ballot_is_promised_by_a_majority_before_it_is_used() -> None:
    told: list[str] = []
    voters = Voters(PromisedFirst(sets={1: FIRST}, told=told.append))

    voters.prepare("node1", 1)
    voters.prepare("node2", 1)
    voters.accept("node1", 1)
    voters.accept("node3", 1)
    voters.accept("node1", 2)
    assert told == []
    voters.accept("node1", 4)

    assert told == ["register cluster: ballot 4.p is accepted in set 1, and promised by nobody"]


def test_an_accept_promises_what_the_voter_took_on_with_it() -> None:
    told: list[str] = []
    voters = Voters(PromisedFirst(sets={1: FIRST}, told=told.append), type(AcceptCarriesNoPromise().acceptor()))
    for name in ("node1", "node2"):
        voters.prepare(name, 1)
    for name in ("node1", "node2"):
        voters.accept(name, 1)
    assert told == []

    voters.accept("node1", 2)

    assert told == ["register cluster: ballot 2.p is accepted in set 1, and promised by nobody"]


def test_what_was_promised_under_another_set_does_not_count() -> None:
    told: list[str] = []
    voters = Voters(PromisedFirst(sets={1: FIRST, 2: TWO}, told=told.append))
    for name in ("node1", "node2"):
        voters.prepare(name, 1)
        voters.rise(name)
    voters.prepare("node2", 2, version=2)

    voters.accept("node2", 2, version=2)

    assert told == ["register cluster: ballot 2.p is accepted in set 2, and promised by node2"]


@pytest.mark.parametrize(("plant", "broken"), [(None, False), (OlderSetsAreAnswered, True)])
def test_a_voter_with_a_newer_set_takes_no_round_of_an_older_one(
    plant: type[OlderSetsAreAnswered] | None, broken: bool
) -> None:
    told: list[str] = []
    acceptor = type(plant().acceptor()) if plant is not None else Acceptor
    voters = Voters(SetChanges(Topology(rig="r", subnet="", nodes=(), groups=()), told=told.append), acceptor)
    voters.prepare("node1", 1)
    assert told == []
    voters.rise("node1")

    voters.prepare("node1", 2)

    assert told == ["register cluster: voter node1 takes a round of set 1, and has 2"] * broken


def set_changes(told: list[str]) -> tuple[SetChanges, Voters]:
    watcher = SetChanges(Topology(rig="r", subnet="", nodes=(), groups=(GroupSpec(name="web"),)), told=told.append)
    return watcher, Voters(watcher)


@pytest.mark.parametrize(("left", "broken"), [("", ""), ("group/web", "group/web"), ("cluster", "cluster")])
def test_a_set_is_settled_when_each_register_was_rewritten_under_it(left: str, broken: str) -> None:
    told: list[str] = []
    watcher, voters = set_changes(told)
    pending = stored(2, record=replace(CLUSTER, pending_set=TWO))
    watcher.chose(CLUSTER_KEY, stored(1), pending)
    for name in ("node1", "node2"):
        voters.rise(name)
        for key in KEYS:
            voters.prepare(name, 1, version=2, key=key)
            if key != left or name == "node1":
                voters.accept(name, 1, version=2, key=key)

    watcher.chose(CLUSTER_KEY, pending, stored(3, record=replace(CLUSTER, voter_set=TWO)))

    assert told == [f"voter set 2 is settled, and nobody has rewritten {broken} under it"] * bool(broken)


@pytest.mark.parametrize(
    ("before", "proposed", "broken"),
    [
        (None, TWO, ""),
        (None, replace(TWO.without("node2"), version=2), "voter set 2 differs from 1 by more than one voter"),
        (None, replace(FIRST, version=2, members={**FIRST.members, "node3": "b"}), "by more than one voter"),
        (TWO, TWO.plus("node3", "b"), "voter set 3 is proposed, and 2 is not settled"),
    ],
)
def test_sets_change_by_one_voter_and_one_after_the_other(
    before: VoterSet | None, proposed: VoterSet, broken: str
) -> None:
    told: list[str] = []
    watcher, _ = set_changes(told)
    older = stored(1, record=replace(CLUSTER, pending_set=before))

    watcher.chose(CLUSTER_KEY, older, stored(2, record=replace(CLUSTER, pending_set=proposed)))

    assert [broken in text for text in told] == [True] * bool(broken)


def test_a_voter_that_has_lost_writes_does_not_vote() -> None:
    told: list[str] = []
    watcher = BehindTheirCount(told=told.append)
    honest = Voters(watcher)
    honest.prepare("node1", 1, seen=0)
    honest.prepare("node1", 2, seen=1)
    honest.prepare("node1", 3, seen=5)
    assert told == []

    Voters(watcher, BehindItsCountItVotes().acceptor).prepare("node1", 1, seen=5)  # type: ignore[arg-type]

    assert told == ["register cluster: voter node1 votes with 0 writes, and has told of 5"]


FIVE = tuple(f"node{number}" for number in range(1, 6))
SESSIONS = {name: Session(name, f"00000000000{name[-1]}", "5.1") for name in FIVE}
OF_FIVE = VoterSet(version=1, members={name: f"{name}-1" for name in FIVE})
UP_US, DOWN_US, LATE_US = 500_000, 5_000_000, 27_000_000


def of_five(*down: str, votes: VoterSet = OF_FIVE, pending: VoterSet | None = None) -> ClusterRecord:
    entries = tuple(
        NodeEntry(
            name=name,
            address="",
            session=SESSIONS[name],
            state=SessionState.DOWN if name in down else SessionState.UP,
        )
        for name in FIVE
    )
    return replace(CLUSTER, nodes=entries, voter_set=votes, pending_set=pending)


class Absent:
    """Node5 is declared Down, and what others have heard since."""

    def __init__(self, *, dynamic: bool = True) -> None:
        self.told: list[str] = []
        self.clock = VirtualClock()
        self.cluster = of_five()
        self.beats: dict[str, tuple[int, int]] = dict.fromkeys(FIVE[:-1], (UP_US, LATE_US))
        settings = Settings(dynamic_quorum=dynamic)
        chosen: Any = SimpleNamespace(newest=lambda _key: self.cluster)
        leases: Any = SimpleNamespace(heard=lambda _session: self.beats, pause_us=settings.lease_us // 2)
        self.own = OwnLeases(settings, since=lambda _node: 0, now=lambda: self.clock.now_us)
        self.watcher = AbsentVotes(
            settings, chosen=chosen, own=self.own, leases=leases, clock=self.clock, told=self.told.append
        )

    def choose(self, newer: ClusterRecord) -> None:
        older, self.cluster = self.cluster, newer
        self.watcher.chose(CLUSTER_KEY, stored(1, record=older), stored(2, record=newer))

    def run(self, *lives: str, until_us: int = LATE_US, then: ClusterRecord | None = None) -> list[str]:
        """These nodes hold their leases; `then` is what becomes of the cluster's register a second later."""
        for at_us in range(UP_US, until_us, UP_US):
            self.clock.run_until(at_us)
            for name in lives:
                self.own.petted(SESSIONS[name], 2_000_000)
            if at_us == DOWN_US:
                self.choose(of_five("node5"))
            if at_us == DOWN_US + 1_000_000 and then is not None:
                self.choose(then)
        return self.told


def still_votes(after_s: int, by: str) -> str:
    lost, first = SESSIONS["node5"], SESSIONS[by]
    return f"{lost} is Down for {after_s}.000000 s and still votes, and {first} does not change that"


def test_a_voter_whose_node_stays_down_is_taken_out() -> None:
    assert Absent().run(*FIVE[:-1], until_us=18_500_000) == [still_votes(13, "node1")]
    assert Absent().run("node1", "node2", until_us=17_900_000) == []


def test_whose_turn_comes_later_has_more_time() -> None:
    assert Absent().run("node3") == [still_votes(21, "node3")]


@pytest.mark.parametrize(
    "then",
    [
        of_five("node5", votes=OF_FIVE.without("node5")),
        of_five("node5", pending=OF_FIVE.without("node4")),
        of_five(),
        of_five("node5", votes=VoterSet(version=1, members={"node4": "node4-1", "node5": "node5-1"})),
    ],
)
def test_a_vote_may_be_out_or_another_change_comes_first(then: ClusterRecord) -> None:
    assert Absent().run(*FIVE[:-1], then=then) == []


def test_a_vote_stays_where_nobody_can_take_it_out_or_has_to() -> None:
    assert Absent(dynamic=False).run(*FIVE[:-1]) == []
    assert Absent().run() == []

    answers = Absent()
    answers.beats["node5"] = (UP_US, LATE_US)
    assert answers.run(*FIVE[:-1]) == []

    for beats in ((UP_US, UP_US), (DOWN_US + 1, LATE_US)):
        hardly_heard = Absent()
        hardly_heard.beats |= dict.fromkeys(FIVE[:2], beats)
        assert hardly_heard.run(*FIVE[:-1]) == []
