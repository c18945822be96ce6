"""The Node Manager: which of the voters' notices of changes it passes on."""

from itertools import count

from harness.cluster_service.messages import CallVoter, Tick, VoterAnswered, VotersKnown
from harness.cluster_service.node import NodeManager
from harness.database.protocol import CLUSTER_KEY, NO_BALLOT, Ballot, BeatAnswer, Notice, WriteCounts
from harness.model.session import Session
from harness.model.topology import Settings
from harness.model.voter_set import VoterSet

HERE = Session("node1", "c0ffee", "1")
NEWER = Ballot(5, "node2.1.1.0")
GROUP = "group/web"
VOTERS = VoterSet(version=1, members={"node1": "a", "node2": "b", "node3": "c"})


class Bench:
    """One manager; `seen` is what the database has read of each register, `to_be_read` what is kept in mind of it."""

    def __init__(self) -> None:
        self.seen: dict[str, Ballot] = {}
        self.to_be_read: dict[str, Ballot] = {}
        numbers = count(1)
        self.manager = NodeManager(
            rig="rig",
            session=HERE,
            settings=Settings(),
            seen=lambda key: self.seen.get(key, NO_BALLOT),
            to_be_read=lambda key: self.to_be_read.get(key, NO_BALLOT),
            numbers=lambda: next(numbers),
            writes=WriteCounts(),
        )
        actions = [*self.manager.handle(0, VotersKnown(voter_set=VOTERS)), *self.manager.handle(0, Tick())]
        self.beats = {action.voter: action for action in actions if isinstance(action, CallVoter)}

    def told_by(self, voter: str, *, cluster: Ballot = NO_BALLOT) -> list[str]:
        """The notices that go on, by their registers, when that voter has accepted `NEWER` for the group."""
        beat = self.beats[voter]
        answer = BeatAnswer(
            of=beat.call.to,  # type: ignore[union-attr]
            session=str(HERE),
            revision=7,
            cluster=cluster,
            leases=(),
            changed=(Notice(GROUP, NEWER, "node2"),),
        )
        self.manager.handle(10, VoterAnswered(number=beat.number, voter=voter, reply=answer, connection=1))
        noticed, self.manager.noticed[:] = list(self.manager.noticed), []
        return [notice.key for notice in noticed if notice.key != CLUSTER_KEY]


def test_one_notice_is_enough_when_what_it_tells_was_read() -> None:
    bench = Bench()

    assert bench.told_by("node1") == [GROUP]
    bench.seen[GROUP] = NEWER
    assert bench.told_by("node2") == []


def test_one_notice_is_enough_while_it_is_kept_in_mind() -> None:
    bench = Bench()

    assert bench.told_by("node1") == [GROUP]
    bench.to_be_read[GROUP] = NEWER
    assert bench.told_by("node2") == []


def test_every_voters_notice_counts_while_a_read_shows_what_was_there_before() -> None:
    bench = Bench()

    assert bench.told_by("node1") == [GROUP]
    bench.seen[GROUP] = Ballot(4, "node2.1.1.0")
    assert bench.told_by("node2") == [GROUP]
    assert bench.told_by("node3") == [GROUP]
