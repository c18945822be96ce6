"""What a node concludes of a voter from its answers."""

from harness.cluster_service.core.messages import VoterAnswered
from harness.cluster_service.membership.voter_health import VoterWatch
from harness.database.protocol import Address, RefusalReason, Refused, Reply

PATIENCE = 1_000_000


def watch() -> VoterWatch:
    made = VoterWatch(patience_us=PATIENCE)
    made.expect(0, {"node1": "node1-1", "node2": "node2-1"})
    return made


def refused_by(voter: str, incarnation: str, why: RefusalReason) -> Reply:
    of = Address(rig="rig", voter=voter, incarnation=incarnation, set_version=1)
    return Refused(of=of, why=why, voter_set=None)


def answered(reply: Reply) -> VoterAnswered:
    return VoterAnswered(number=1, voter="node2", reply=reply, connection=1)


def test_a_voter_that_comes_back_empty_is_lost() -> None:
    made = watch()
    made.handle(1, answered(refused_by("node2", "", RefusalReason.EMPTY)))

    assert made.lost("node2", "node2-1") == "it came back empty"


def test_an_answer_in_another_voters_name_is_no_answer_and_says_so() -> None:
    made = watch()
    made.handle(1, answered(refused_by("node1", "node1-1", RefusalReason.VOTER)))
    told = made.handle(1 + PATIENCE, answered(refused_by("node1", "node1-1", RefusalReason.VOTER)))

    assert made.lost("node2", "node2-1") == ""
    assert not made.answers(1 + PATIENCE, "node2", "node2-1")
    assert made.silent_for_us(1 + PATIENCE, "node2") == PATIENCE
    assert [action.message for action in told] == ["voter node2 does not answer: node1 answers in its place"]  # type: ignore[union-attr]


def test_the_first_answer_that_counts_is_news_even_if_it_says_what_was_known() -> None:
    made = watch()
    made.handle(1, answered(refused_by("node2", "node2-1", RefusalReason.SET_VERSION)))
    before = made.changes
    made.handle(2, answered(refused_by("node2", "node2-1", RefusalReason.SET_VERSION)))
    assert made.changes == before

    made.expect(3, {"node1": "node1-1", "node2": "node2-2"})
    made.handle(4, answered(refused_by("node2", "node2-1", RefusalReason.SET_VERSION)))

    assert made.changes == before + 1
    assert made.lost("node2", "node2-2") == "it came back as node2-1"
