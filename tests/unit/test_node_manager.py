"""The Node Manager: which of the voters' notices of changes it passes on, and when it sends beats beyond the usual."""

from itertools import count

from harness.cluster_service.core.messages import CallVoter, RegisterSeen, Tick, VoterAnswered, VoterFailed, VotersKnown
from harness.cluster_service.membership.node import NodeManager
from harness.cluster_service.membership.sharding import ShardAssignment
from harness.database.protocol import NO_BALLOT, Ballot, BeatAnswer, Notice, WriteCounts
from harness.database.subscription import interest_in
from harness.model.records import ClusterRecord, NodeEntry, SessionState
from harness.model.register_keys import CLUSTER_KEY
from harness.model.session import Session
from harness.model.topology import Settings
from harness.model.voter_set import VoterSet

HERE = Session("node1", "c0ffee", "1")
NEWER = Ballot(5, "node2.1.1.0")
GROUP = "group/web"
REVISION = 7
SECOND = 1_000_000
VOTERS = VoterSet(version=1, members={"node1": "a", "node2": "b", "node3": "c"})


class Bench:
    """One manager; `seen` is what the database has read of each register, `to_be_read` what is kept in mind of it."""

    def __init__(self) -> None:
        self.seen: dict[str, Ballot] = {}
        self.to_be_read: dict[str, Ballot] = {}
        self.watch = ShardAssignment("node1")
        numbers = count(1)
        self.manager = NodeManager(
            rig="rig",
            session=HERE,
            settings=Settings(),
            seen=lambda key: self.seen.get(key, NO_BALLOT),
            to_be_read=lambda key: self.to_be_read.get(key, NO_BALLOT),
            numbers=lambda: next(numbers),
            writes=WriteCounts(),
            watch=self.watch,
        )
        actions = [*self.manager.handle(0, VotersKnown(voter_set=VOTERS)), *self.manager.handle(0, Tick())]
        self.beats = {action.voter: action for action in actions if isinstance(action, CallVoter)}

    def beats_at(self, now: int, voter: str) -> list[CallVoter]:
        """What is sent to that voter then."""
        actions = self.manager.handle(now, Tick())
        return [action for action in actions if isinstance(action, CallVoter) and action.voter == voter]

    def told_by(
        self, voter: str, *, cluster: Ballot = NO_BALLOT, beat: CallVoter | None = None, revision: int = REVISION
    ) -> list[str]:
        """The notices that go on, by their registers, when that voter has accepted `NEWER` for the group."""
        beat = beat or self.beats[voter]
        answer = BeatAnswer(
            of=beat.call.to,  # type: ignore[union-attr]
            session=str(HERE),
            revision=revision,
            cluster=cluster,
            clock_us=0,
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


def test_what_is_told_under_an_interest_that_has_changed_is_asked_for_again() -> None:
    bench = Bench()
    bench.told_by("node1")  # before anything is of interest, which counts for nothing
    bench.watch.interest = interest_in("node1", ("3",))
    (first,) = bench.beats_at(SECOND // 2, "node1")
    bench.told_by("node1", beat=first)
    (old,) = bench.beats_at(SECOND, "node1")

    bench.watch.interest = interest_in("node1", ("7",))
    bench.told_by("node1", beat=old, revision=REVISION + 2)
    (new,) = bench.beats_at(2 * SECOND, "node1")
    bench.told_by("node1", beat=new, revision=REVISION + 2)
    (later,) = bench.beats_at(3 * SECOND, "node1")

    asked = [(beat.call.since, beat.call.interest) for beat in (first, old, new, later)]  # type: ignore[union-attr]
    assert asked == [(0, "node1|3"), (REVISION, "node1|3"), (REVISION, "node1|7"), (REVISION + 2, "node1|7")]


def lost_peer() -> RegisterSeen:
    """The cluster's register with a session that is Down and not fenced yet."""
    down = Session("node2", "b0b", "1")
    entries = (
        NodeEntry(name="node1", address="", session=HERE, state=SessionState.UP),
        NodeEntry(name="node2", address="", session=down, state=SessionState.DOWN),
    )
    record = ClusterRecord(rig="rig", nodes=entries, groups=(), settings=Settings())
    return RegisterSeen(key=CLUSTER_KEY, record=record, version=1, ballot=NEWER)


def answer_to(beat: CallVoter) -> VoterAnswered:
    answer = BeatAnswer(
        of=beat.call.to,  # type: ignore[union-attr]
        session=str(HERE),
        revision=REVISION,
        cluster=NO_BALLOT,
        clock_us=0,
        leases=(),
        changed=(),
    )
    return VoterAnswered(number=beat.number, voter=beat.voter, reply=answer, connection=1)


def test_extra_beat_waits_for_the_answers_to_the_last() -> None:
    """Voters that are slow to answer would only become slower by twenty beats a second."""
    bench = Bench()
    bench.manager.handle(10_000, lost_peer())
    beats = [action for action in bench.manager.handle(50_000, Tick()) if isinstance(action, CallVoter)]

    unanswered = bench.beats_at(100_000, "node1")
    bench.manager.handle(120_000, answer_to(beats[0]))
    minority = bench.beats_at(130_000, "node1")
    after = bench.manager.handle(140_000, answer_to(beats[1]))

    assert len(beats) == len(VOTERS.members)
    assert (unanswered, minority) == ([], [])
    assert sum(isinstance(action, CallVoter) for action in after) == len(VOTERS.members), "a majority has answered"


def test_regular_beat_waits_for_no_answer() -> None:
    bench = Bench()
    bench.manager.handle(10_000, lost_peer())
    bench.manager.handle(50_000, Tick())

    assert bench.beats_at(50_000 + Settings().beat_us - 1, "node1") == []
    assert len(bench.beats_at(50_000 + Settings().beat_us, "node1")) == 1


def test_voter_that_fails_holds_back_no_extra_beat() -> None:
    bench = Bench()
    bench.manager.handle(10_000, lost_peer())
    beats = [action for action in bench.manager.handle(50_000, Tick()) if isinstance(action, CallVoter)]

    bench.manager.handle(60_000, VoterFailed(number=beats[0].number, voter=beats[0].voter))
    bench.manager.handle(60_000, answer_to(beats[1]))

    assert len(bench.beats_at(100_000, "node1")) == 1
