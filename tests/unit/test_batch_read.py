"""Reading many registers at once: what a majority agrees upon is told, once, and the rest is left."""

from itertools import count

from harness.database.batch_read import BatchRead
from harness.database.proposer import READ_PATIENCE_US
from harness.database.protocol import (
    NO_BALLOT,
    Address,
    Ballot,
    Content,
    ReadMany,
    ReadManyAnswer,
    RefusalReason,
    Refused,
)
from harness.model.voter_set import VoterSet

VOTERS = VoterSet(version=3, members={"node1": "a", "node2": "b", "node3": "c"})
OLD, NEW = Ballot(1, "p"), Ballot(2, "p")


def survey(*keys: str) -> BatchRead:
    numbers = count(1)
    return BatchRead(
        keys=keys, voter_set=VOTERS, rig="rig", numbers=lambda: next(numbers), seen=lambda voter, _life: len(voter)
    )


def answer(voter: str, **found: Ballot) -> ReadManyAnswer:
    of = Address(rig="rig", voter=voter, incarnation=VOTERS.members[voter], set_version=3)
    contents = (Content(key=key, accepted=ballot, value=f"{key}{ballot.number}") for key, ballot in found.items())
    return ReadManyAnswer(of=of, contents=tuple(contents))


def test_every_voter_is_asked_once_for_everything() -> None:
    calls = survey("x", "y").calls

    assert [(number, voter) for number, voter, _ in calls] == [(1, "node1"), (2, "node2"), (3, "node3")]
    assert all(isinstance(call, ReadMany) and call.keys == ("x", "y") and call.seen == 5 for _, _, call in calls)


def test_what_a_majority_has_alike_is_told_once_and_the_rest_when_it_is_agreed_or_never() -> None:
    made = survey("x", "y", "z")

    assert made.answered(0, 1, answer("node1", x=NEW, y=NEW, z=NEW)) == []
    assert made.answered(0, 2, answer("node2", x=NEW, y=OLD, z=OLD)) == [("x", NEW, "x2")]
    assert (list(made.left), made.over(READ_PATIENCE_US - 1)) == (["y", "z"], False)
    assert made.answered(0, 3, answer("node3", x=OLD, y=OLD, z=NO_BALLOT)) == [("y", OLD, "y1")]
    assert (list(made.left), made.over(0)) == (["z"], True)


def test_a_refusal_a_failure_and_an_answer_of_another_life_count_for_nothing() -> None:
    made = survey("x")
    stranger = Address(rig="rig", voter="node2", incarnation="old", set_version=3)

    assert made.answered(0, 1, Refused(of=stranger, why=RefusalReason.BEHIND, voter_set=None)) == []
    assert made.answered(0, 2, ReadManyAnswer(of=stranger, contents=answer("node2", x=NEW).contents)) == []
    made.failed(3)

    assert (list(made.left), made.over(0)) == (["x"], True)


def test_an_answer_that_was_counted_is_not_counted_twice() -> None:
    made = survey("x")

    assert made.answered(0, 1, answer("node1", x=NEW)) == []
    assert made.answered(0, 1, answer("node1", x=NEW)) == []
    assert not made.over(0)


def test_when_a_majority_was_heard_the_others_have_a_moment_and_no_more() -> None:
    made = survey("x")

    made.answered(0, 1, answer("node1", x=NEW))
    assert (made.ends_us, made.over(10**6)) == (None, False)
    made.answered(100, 2, answer("node2", x=OLD))

    assert made.ends_us == 100 + READ_PATIENCE_US
    assert not made.over(made.ends_us - 1)
    assert made.over(made.ends_us)
