"""The proposer against Python voters: one schedule at a time, then thousands."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from harness.database.acceptor import Acceptor
from harness.database.proposer import Proposer, Result, Settlement
from harness.database.protocol import (
    Accept,
    Accepted,
    Address,
    Ballot,
    Form,
    Prepare,
    Read,
    RefusalReason,
    Refused,
    VoterSet,
)
from harness.database.register import JsonCodec, Stored
from harness.model.changes import CreateRegister, Record, RecordRestart, Refusal, SetPersistentState
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry
from harness.model.session import Session
from harness.model.topology import GroupSpec, ResourceSpec, Settings

RIG = "rig"
KEY = "group/web"
OWNER = Session("node1", "c0ffee", "1")
MEMBERS = {"v1": "i1", "v2": "i2", "v3": "i3"}
SET = VoterSet(version=1, members=MEMBERS)


def first_record() -> GroupRecord:
    spec = GroupSpec(name="web", resources=(ResourceSpec(name="vm", type="virtual-machine"),))
    return GroupRecord(spec=spec, owner=OWNER, epoch=1, persistent={"vm": True})


def restart(failure: str) -> RecordRestart:
    return RecordRestart(
        session=OWNER, epoch=1, resource="vm", failure=failure, at_us=0, period_us=10**12
    )


def formed_voters() -> dict[str, Acceptor]:
    voters = {}
    for name, incarnation in MEMBERS.items():
        voter = voters[name] = Acceptor()
        to = Address(rig=RIG, voter=name, incarnation=incarnation, set_version=1)
        voter.handle(Form(to=to, members=MEMBERS), clock_us=0)
    return voters


@dataclass
class Bench:
    """Proposers and voters in one place; `carry` decides the fate of each call."""

    voters: dict[str, Acceptor] = field(default_factory=formed_voters)
    now: int = 0
    operations: int = 0
    _numbers: int = 0

    def proposer(self, identity: str) -> Proposer:
        return Proposer(
            identity=identity,
            rig=RIG,
            voter_set=SET,
            codec=JsonCodec(),
            jitter=lambda: 0.5,
            numbers=self._next_number,
        )

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def carry_all(self, proposer: Proposer, down: tuple[str, ...] = ()) -> None:
        while proposer.sends:
            send = proposer.sends.pop(0)
            if send.voter in down:
                proposer.failed(self.now, send.number, send.voter)
            else:
                reply = self.voters[send.voter].handle(send.call, clock_us=self.now)
                proposer.answered(self.now, send.number, reply)

    def carry_prepares(self, proposer: Proposer) -> None:
        """Until the accepts are about to leave."""
        for _ in range(100):
            while proposer.sends and isinstance(proposer.sends[0].call, Prepare):
                send = proposer.sends.pop(0)
                reply = self.voters[send.voter].handle(send.call, clock_us=self.now)
                proposer.answered(self.now, send.number, reply)
            if proposer.sends:
                return
            self.now = proposer.next_wake() or self.now
            proposer.tick(self.now)
        raise AssertionError("no accept came")

    def outdo(self, number: int) -> None:
        """Have every voter promise somebody else more than `number`."""
        ballot = Ballot(number + 1, "z")
        for name, incarnation in MEMBERS.items():
            to = Address(rig=RIG, voter=name, incarnation=incarnation, set_version=1)
            self.voters[name].handle(Prepare(to=to, key=KEY, ballot=ballot, seen=0), clock_us=self.now)

    def change(self, proposer: Proposer, change: object, down: tuple[str, ...] = ()) -> Settlement:
        self.operations += 1
        proposer.change(self.now, operation=self.operations, key=KEY, change=change, limit_us=10**6)  # type: ignore[arg-type]
        return self._finish(proposer, down)

    def read(self, proposer: Proposer, down: tuple[str, ...] = ()) -> Settlement:
        self.operations += 1
        proposer.read(self.now, operation=self.operations, key=KEY, limit_us=10**6)
        return self._finish(proposer, down)

    def _finish(self, proposer: Proposer, down: tuple[str, ...]) -> Settlement:
        for _ in range(100):
            self.carry_all(proposer, down)
            if proposer.settlements:
                return proposer.settlements.pop(0)
            wake = proposer.next_wake()
            assert wake is not None
            self.now = max(self.now, wake)
            proposer.tick(self.now)
        raise AssertionError("the operation did not end")


def failures_of(record: Record | None) -> list[str]:
    assert isinstance(record, GroupRecord)
    return [entry.failure for entry in record.restarts]


def test_a_change_is_read_by_another_proposer() -> None:
    bench = Bench()
    bench.change(bench.proposer("a"), CreateRegister(first=first_record()))

    seen = bench.read(bench.proposer("b"))

    assert seen.result is Result.DONE
    assert seen.stored is not None
    assert seen.stored.record == first_record()


def test_a_second_change_of_the_same_proposer_needs_one_round() -> None:
    bench = Bench()
    proposer = bench.proposer("a")
    bench.change(proposer, CreateRegister(first=first_record()))

    proposer.change(0, operation=99, key=KEY, change=restart("f1"), limit_us=10**6)

    assert [type(send.call) for send in proposer.sends] == [Accept, Accept, Accept]


def test_a_change_goes_on_while_one_of_three_voters_is_gone() -> None:
    bench = Bench()

    settled = bench.change(bench.proposer("a"), CreateRegister(first=first_record()), down=("v2",))

    assert settled.result is Result.DONE


def test_without_a_majority_a_change_that_sent_no_accept_is_certainly_not_done() -> None:
    bench = Bench()

    settled = bench.change(bench.proposer("a"), CreateRegister(first=first_record()), down=("v1", "v2"))

    assert settled.result is Result.NOT_DONE


def test_a_majority_lost_after_the_accept_left_means_unknown() -> None:
    bench = Bench()
    proposer = bench.proposer("a")
    proposer.change(0, operation=1, key=KEY, change=CreateRegister(first=first_record()), limit_us=10**6)
    bench.carry_prepares(proposer)

    settled = bench._finish(proposer, ("v1", "v2", "v3"))

    assert settled.result is Result.UNKNOWN


def test_a_change_of_unknown_fate_finds_its_own_effect_and_is_applied_once() -> None:
    bench = Bench()
    proposer = bench.proposer("a")
    bench.change(proposer, CreateRegister(first=first_record()))
    proposer.change(bench.now, operation=50, key=KEY, change=restart("f1"), limit_us=10**6)
    for send in list(proposer.sends):
        # All voters accept, and every answer is lost.
        bench.voters[send.voter].handle(send.call, clock_us=0)
        proposer.failed(bench.now, send.number, send.voter)
    proposer.sends = proposer.sends[3:]

    settled = bench._finish(proposer, ())

    assert settled.result is Result.DONE
    assert settled.stored is not None
    assert failures_of(settled.stored.record) == ["f1"]


def test_a_refused_change_tells_why_and_changes_nothing() -> None:
    bench = Bench()
    bench.change(bench.proposer("a"), CreateRegister(first=first_record()))
    stranger = Session("node2", "beef", "1")

    settled = bench.change(
        bench.proposer("b"),
        SetPersistentState(session=stranger, epoch=1, resource="vm", wanted=False),
    )

    assert settled.result is Result.REFUSED
    assert "the owner is node1@c0ffee/1" in settled.reason
    assert bench.read(bench.proposer("c")).stored.record == first_record()  # type: ignore[union-attr]


def test_a_refusal_is_never_decided_on_a_stale_copy() -> None:
    bench = Bench()
    early, late = bench.proposer("a"), bench.proposer("b")
    bench.change(early, CreateRegister(first=first_record()))
    moved = GroupRecord(spec=first_record().spec, owner=Session("node2", "x", "1"), epoch=2, persistent={"vm": True})
    bench.change(late, _Replace(moved))

    settled = bench.change(early, SetPersistentState(session=moved.owner, epoch=2, resource="vm", wanted=False))  # type: ignore[arg-type]

    assert settled.result is Result.DONE


def test_a_minority_accept_is_settled_by_an_identity_change_when_voters_disagree() -> None:
    bench = Bench()
    bench.change(bench.proposer("a"), CreateRegister(first=first_record()))
    other = bench.proposer("b")
    other.change(0, operation=7, key=KEY, change=restart("f1"), limit_us=10**6)
    bench.carry_prepares(other)
    accept = next(send for send in other.sends if send.voter == "v1")
    bench.voters["v1"].handle(accept.call, clock_us=0)

    seen = bench.read(bench.proposer("c"), down=("v3",))
    later = bench.read(bench.proposer("d"), down=("v1",))

    assert seen.stored == later.stored
    assert failures_of(later.stored.record) == ["f1"]  # type: ignore[union-attr]


def test_refused_is_not_told_while_an_own_accept_may_still_be_revived() -> None:
    bench = Bench()
    bench.change(bench.proposer("a"), CreateRegister(first=first_record()))
    other = bench.proposer("b")
    other.change(bench.now, operation=7, key=KEY, change=_Once("mine"), limit_us=10**6)
    bench.carry_prepares(other)
    # Its accept reaches v1 alone; meanwhile another change makes it refuse itself on the two that it will ask next.
    for send in list(other.sends):
        if send.voter == "v1":
            bench.voters["v1"].handle(send.call, clock_us=bench.now)
        other.failed(bench.now, send.number, send.voter)
    other.sends.clear()
    _Once.refuses = True
    try:
        settled = bench._finish(other, ("v1",))
    finally:
        _Once.refuses = False

    final = bench.read(bench.proposer("c"), down=("v3",))

    assert settled.result is Result.REFUSED
    assert failures_of(final.stored.record) == []  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("to", "why"),
    [
        (Address(rig="other", voter="v1", incarnation="i1", set_version=1), RefusalReason.RIG),
        (Address(rig=RIG, voter="v2", incarnation="i1", set_version=1), RefusalReason.VOTER),
        (Address(rig=RIG, voter="v1", incarnation="i9", set_version=1), RefusalReason.INCARNATION),
        (Address(rig=RIG, voter="v1", incarnation="i1", set_version=2), RefusalReason.SET_VERSION),
    ],
)
def test_a_voter_refuses_what_is_not_its_own(to: Address, why: RefusalReason) -> None:
    voter = formed_voters()["v1"]

    reply = voter.handle(Prepare(to=to, key=KEY, ballot=Ballot(1, "a")), clock_us=0)

    assert isinstance(reply, Refused)
    assert reply.why is why
    assert not voter.registers


def test_an_empty_voter_votes_on_nothing_until_it_is_formed() -> None:
    bench = Bench()
    bench.voters["v1"].wipe()
    to = Address(rig=RIG, voter="v1", incarnation="i1", set_version=1)

    replies = [
        bench.voters["v1"].handle(call, clock_us=0)
        for call in (
            Prepare(to=to, key=KEY, ballot=Ballot(1, "a")),
            Accept(to=to, key=KEY, ballot=Ballot(1, "a"), value="{}", promise=Ballot(2, "a")),
            Read(to=to, key=KEY),
        )
    ]

    assert all(isinstance(reply, Refused) and reply.why is RefusalReason.EMPTY for reply in replies)


def test_an_answer_of_another_ballot_counts_for_nothing() -> None:
    bench = Bench()
    proposer = bench.proposer("a")
    proposer.change(0, operation=1, key=KEY, change=CreateRegister(first=first_record()), limit_us=10**6)
    for send in list(proposer.sends[:2]):
        of = Address(rig=RIG, voter=send.voter, incarnation=MEMBERS[send.voter], set_version=1)
        proposer.answered(0, send.number, Accepted(of=of, key=KEY, ballot=Ballot(77, "z")))

    assert not proposer.settlements
    assert all(isinstance(send.call, Prepare) for send in proposer.sends)


def test_a_voter_that_never_answers_costs_no_time() -> None:
    bench = Bench()
    proposer = bench.proposer("a")
    for number in range(5):
        change = CreateRegister(first=first_record()) if number == 0 else restart(f"f{number}")
        proposer.change(bench.now, operation=number, key=KEY, change=change, limit_us=10**6)
        while proposer.sends:
            send = proposer.sends.pop(0)
            if send.voter != "v2":
                reply = bench.voters[send.voter].handle(send.call, clock_us=0)
                proposer.answered(bench.now, send.number, reply)

    assert bench.now == 0
    assert [settled.result for settled in proposer.settlements] == [Result.DONE] * 5


def test_a_read_does_not_wait_for_a_voter_that_failed_before() -> None:
    bench = Bench()
    bench.change(bench.proposer("a"), CreateRegister(first=first_record()), down=("v1",))
    reader = bench.proposer("b")
    bench.read(reader, down=("v3",))
    bench.voters["v1"].registers.clear()
    bench.now = 0

    reader.read(bench.now, operation=9, key=KEY, limit_us=10**6)
    for send in [send for send in reader.sends if send.voter != "v3"]:
        reader.answered(0, send.number, bench.voters[send.voter].handle(send.call, clock_us=0))

    assert any(isinstance(send.call, Prepare) for send in reader.sends)


def test_who_is_refused_for_an_old_number_tries_a_new_one_at_once() -> None:
    bench = Bench()
    bench.change(bench.proposer("a"), CreateRegister(first=first_record()))
    late = bench.proposer("b")
    asked_at = bench.now
    late.change(asked_at, operation=99, key=KEY, change=restart("f1"), limit_us=10**6)

    bench.carry_all(late)

    assert bench.now == asked_at
    assert [end.result for end in late.settlements] == [Result.DONE]


def test_who_is_refused_twice_waits_before_the_third_number() -> None:
    bench = Bench()
    bench.change(bench.proposer("a"), CreateRegister(first=first_record()))
    outdone = bench.proposer("b")
    numbers: list[int] = []
    outdone.change(bench.now, operation=99, key=KEY, change=restart("f1"), limit_us=10**6)

    while outdone.sends and len(numbers) < 5:
        round_of, outdone.sends = outdone.sends, []
        assert isinstance(round_of[0].call, Prepare)
        numbers.append(round_of[0].call.ballot.number)
        bench.outdo(numbers[-1])
        for send in round_of:
            outdone.answered(bench.now, send.number, bench.voters[send.voter].handle(send.call, clock_us=bench.now))

    assert len(numbers) == 2
    wake = outdone.next_wake()
    assert wake is not None
    assert wake > bench.now


def test_told_of_a_newer_set_a_round_begins_anew_under_it() -> None:
    bench = Bench()
    proposer = bench.proposer("a")
    proposer.change(0, operation=1, key=KEY, change=CreateRegister(first=first_record()), limit_us=10**6)
    old, proposer.sends = proposer.sends, []
    newer = VoterSet(version=2, members={"v1": "i1", "v2": "i2"})

    proposer.adopt(0, newer)
    for send in old:
        reply = bench.voters[send.voter].handle(send.call, clock_us=0)
        proposer.answered(0, send.number, reply)

    assert [send.call.to.set_version for send in proposer.sends] == [2, 2]
    assert all(isinstance(send.call, Prepare) for send in proposer.sends)
    assert not proposer.settlements


def test_no_prepare_is_skipped_across_versions() -> None:
    bench = Bench()
    proposer = bench.proposer("a")
    bench.change(proposer, CreateRegister(first=first_record()))

    proposer.adopt(bench.now, VoterSet(version=2, members={"v1": "i1", "v2": "i2"}))
    proposer.change(bench.now, operation=7, key=KEY, change=restart("f"), limit_us=10**6)

    assert all(isinstance(send.call, Prepare) for send in proposer.sends)


@pytest.mark.parametrize("seed", range(300))
def test_random_schedules_of_three_proposers_lose_no_acknowledged_change(seed: int) -> None:
    acknowledged, finals = _random_run(seed, _honest)

    assert acknowledged <= set(finals)


def test_the_random_schedules_find_a_ballot_that_is_used_twice() -> None:
    def lost(seed: int) -> bool:
        acknowledged, finals = _random_run(seed, _reusing_ballots)
        return not acknowledged <= set(finals)

    assert any(lost(seed) for seed in range(300))


@dataclass(frozen=True)
class _Once:
    """Writes a restart down, until something that it depends on has changed."""

    refuses: ClassVar[bool] = False
    failure: str

    def apply(self, record: Record | None) -> Record | Refusal:
        return Refusal("no longer") if _Once.refuses else restart(self.failure).apply(record)


@dataclass(frozen=True)
class _Replace:
    record: Record

    def apply(self, record: Record | None) -> Record | Refusal:
        assert record is not None
        return self.record


def _honest(proposer: Proposer) -> None:
    """Leave the proposer as it is."""


def _reusing_ballots(proposer: Proposer) -> None:
    """Plant the weaker rule: after an accept that was not clean, the next change takes the same ballot again."""
    propose, retry = proposer._propose, proposer._retry
    bases: dict[int, Any] = {}

    def remember(now: int, operation: Any, chosen: Any, **names: Any) -> None:
        bases[operation.number] = (operation.ballot, chosen, names["under"])
        propose(now, operation, chosen, **names)

    def keep_the_ballot(now: int, operation: Any, *, at_once: bool = False) -> None:
        failed_in_accept = operation.accept_sent and operation.phase == "accept"
        retry(now, operation, at_once=at_once)
        if failed_in_accept:
            proposer._fast[operation.key] = bases[operation.number]

    proposer._propose = remember  # type: ignore[method-assign]
    proposer._retry = keep_the_ballot  # type: ignore[method-assign]


def _random_run(seed: int, plant: Callable[[Proposer], None]) -> tuple[set[str], list[str]]:
    """Three proposers append under losses and delays; returns what was acknowledged and what the register holds at
    the end.
    """
    rng = random.Random(seed)
    bench = Bench()
    bench.change(bench.proposer("init"), CreateRegister(first=first_record()))
    proposers = [bench.proposer(name) for name in ("a", "b", "c")]
    for proposer in proposers:
        plant(proposer)
    acknowledged: set[str] = set()
    names: dict[tuple[int, int], str] = {}
    issued = 0
    for step in range(160):
        bench.now += rng.randint(0, 30_000)
        index = rng.randrange(3)
        proposer = proposers[index]
        if issued < 12 and not proposer.busy(KEY) and rng.random() < 0.2:
            issued += 1
            names[(index, issued)] = f"f{issued}"
            proposer.change(bench.now, operation=issued, key=KEY, change=restart(f"f{issued}"), limit_us=60_000)
        elif proposer.sends and step < 140:
            send = proposer.sends.pop(rng.randrange(len(proposer.sends)))
            fate = rng.random()
            if fate > 0.15:
                reply = bench.voters[send.voter].handle(send.call, clock_us=bench.now)
                if fate > 0.35:
                    proposer.answered(bench.now, send.number, reply)
                    continue
            proposer.failed(bench.now, send.number, send.voter)
        proposer.tick(bench.now)
        for index2, other in enumerate(proposers):
            for settled in other.settlements:
                if settled.result is Result.DONE and (index2, settled.operation) in names:
                    acknowledged.add(names[(index2, settled.operation)])
            other.settlements.clear()
    final = bench.read(bench.proposer("last"))
    assert final.stored is not None
    return acknowledged, failures_of(final.stored.record)


@pytest.mark.parametrize(("nodes", "kept"), [(0, 16), (3, 16), (8, 16), (64, 128)])
def test_a_register_knows_the_changes_that_all_can_have_made_meanwhile(nodes: int, kept: int) -> None:
    entries = tuple(NodeEntry(name=f"node{number}", address="") for number in range(1, nodes + 1))
    record: Record = first_record()
    if nodes:
        record = ClusterRecord(rig=RIG, nodes=entries, groups=(), settings=Settings())
    stored = Stored(version=1, ids=(), record=record)

    for number in range(200):
        stored = stored.after(f"a:{number}", record)

    assert stored.ids == tuple(f"a:{number}" for number in range(200 - kept, 200))
