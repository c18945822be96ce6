"""Watchers of rounds and of the voter set, fed like those of `watch` with every event.

- Answered: what an administrator is told to be done was so in truth at some moment since it was asked for.
- Promised first: nothing is accepted under a ballot that no majority of the set has promised under its version, by a
  prepare or with the accept before.
- Set changes: one voter at a time and one change at a time, no round of an older set at a voter that has a newer one,
  and every register rewritten under the new set before the change is settled.
- Absent votes: of more than three voters one whose node stays Down is taken out.
- Behind: no voter votes that has counted fewer writes than it has told of.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from harness.cluster_service.core.messages import AnswerCode, RequestAnswered
from harness.cluster_service.membership.voter_set import ABSENT_US, MIN_WITH_ABSENT
from harness.database.protocol import Accept, Accepted, Ballot, Call, Prepare, Promise, Reply
from harness.database.register import Stored
from harness.model.records import ClusterRecord, GroupRecord
from harness.model.register_keys import CLUSTER_KEY, group_key
from harness.model.session import Session
from harness.model.topology import SECOND_US, Settings, Topology
from harness.model.voter_set import VoterSet
from harness.simulation.invariants.recovery import OwnLeases, newly_down
from harness.simulation.invariants.starts import ChosenValueOracle, ClusterRegisterMonitor, LeaseOracle
from harness.simulation.kernel.runtime import Clock
from harness.simulation.twins.voters import SimulatedVoter
from harness.simulation.world.administrator import Administrator

__all__ = ["AbsentVotes", "AnsweredIsMade", "BehindTheirCount", "PromisedFirst", "SetChanges", "WatchedAdministrator"]

PROMISES_KEPT = 64
"""Of each register, by ballots, that were given last."""


class AnsweredIsMade:
    """Hook `done` to the answers that administrators get, and `chose` to the chosen values."""

    def __init__(self, topology: Topology, *, now: Callable[[], int], told: Callable[[str], None]) -> None:
        self._now = now
        self._told = told
        self._is: dict[str, bool] = {}
        self._until_us = {
            resource.name: dict.fromkeys((True, False), 0) for group in topology.groups for resource in group.resources
        }
        """By PersistentState, until when it was so last, unless it is so now."""

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        del key
        before, after = older.record, newer.record
        if not isinstance(before, GroupRecord) or not isinstance(after, GroupRecord):
            return
        skipped = newer.version > older.version + 1
        for name, wanted in after.persistent.items():
            self._is[name] = wanted
            if skipped or before.persistent.get(name) is not wanted:
                self._until_us[name][not wanted] = self._now()

    def done(self, resource: str, wanted: bool, asked_us: int) -> None:
        """Somebody who asked for that then is told that it is done."""
        if self._is.get(resource, wanted) is not wanted and self._until_us[resource][wanted] < asked_us:
            what = f"PersistentState {wanted:d} of {resource}, asked for at {asked_us / 1e6:.6f} s"
            self._told(f"{what}, is answered as done, and it never was so")


class WatchedAdministrator(Administrator):
    """The administrator, whose answers are told."""

    made: AnsweredIsMade

    def _end(self, answer: RequestAnswered, wishes: list[Any]) -> None:
        for wish in wishes if answer.code is AnswerCode.DONE else ():
            if wish.sure:
                self.made.done(wish.vm, wish.wanted, wish.begin_us)
        super()._end(answer, wishes)


class PromisedFirst:
    """Hook `saw` to every voter, for what it `HEARS`. `sets` are the sets of voters by their versions."""

    HEARS: ClassVar[tuple[type[Call], ...]] = (Prepare, Accept)

    def __init__(self, *, sets: Mapping[int, VoterSet], told: Callable[[str], None]) -> None:
        self._sets = sets
        self._told = told
        self._promised: dict[str, dict[tuple[Ballot, int], set[str]]] = {}

    def saw(self, voter: SimulatedVoter, call: Call, reply: Reply) -> None:
        """A voter carried a call out."""
        if isinstance(call, Prepare) and isinstance(reply, Promise):
            self._promises(voter, call.key, call.ballot, call.to.set_version)
        elif isinstance(call, Accept) and isinstance(reply, Accepted):
            version = call.to.set_version
            promised = self._promised.get(call.key, {}).get((call.ballot, version), ())
            if version in self._sets and len(promised) < self._sets[version].majority:
                by, ballot = " and ".join(sorted(promised)) or "nobody", ".".join(map(str, call.ballot))
                self._told(f"register {call.key}: ballot {ballot} is accepted in set {version}, and promised by {by}")
            if voter.acceptor.registers[call.key].promised >= call.promise:
                self._promises(voter, call.key, call.promise, version)

    def _promises(self, voter: SimulatedVoter, key: str, ballot: Ballot, version: int) -> None:
        promised = self._promised.setdefault(key, {})
        promised.setdefault((ballot, version), set()).add(voter.node)
        if len(promised) > PROMISES_KEPT:
            del promised[next(iter(promised))]


class SetChanges(ClusterRegisterMonitor):
    """Hook `saw` to every voter, for what it `HEARS`, and `chose` to the chosen values."""

    HEARS: ClassVar[tuple[type[Call], ...]] = (Prepare, Accept)

    def __init__(self, topology: Topology, *, told: Callable[[str], None]) -> None:
        self._keys = (CLUSTER_KEY, *(group_key(group.name) for group in topology.groups))
        self._told = told
        self._pending = 0
        self._accepted_by: dict[tuple[str, Ballot], set[str]] = {}

    def saw(self, voter: SimulatedVoter, call: Call, reply: Reply) -> None:
        """A voter carried a call out."""
        if not isinstance(call, Prepare | Accept) or not isinstance(reply, Promise | Accepted):
            return
        version, own = call.to.set_version, voter.acceptor.voter_set
        if own is None:
            return
        if version < own.version:
            self._told(f"register {call.key}: voter {voter.node} takes a round of set {version}, and has {own.version}")
        counts = version == self._pending and own.has(voter.node, call.to.incarnation)
        if counts and isinstance(call, Accept):
            self._accepted_by.setdefault((call.key, call.ballot), set()).add(voter.node)

    def changed(self, key: str, before: ClusterRecord, after: ClusterRecord) -> None:
        """The cluster's register has a newer content."""
        del key
        if after.voter_set != before.voter_set:
            self._settled(after)
        if after.pending_set != before.pending_set and after.pending_set is not None:
            self._proposed(before, after)

    def _proposed(self, before: ClusterRecord, after: ClusterRecord) -> None:
        assert after.pending_set is not None
        assert after.voter_set is not None
        self._pending, version = after.pending_set.version, after.voter_set.version
        self._accepted_by.clear()
        if before.pending_set is not None and version < before.pending_set.version:
            self._told(f"voter set {self._pending} is proposed, and {before.pending_set.version} is not settled")
        elif not after.pending_set.follows(after.voter_set):
            self._told(f"voter set {self._pending} differs from {version} by more than one voter")

    def _settled(self, after: ClusterRecord) -> None:
        assert after.voter_set is not None
        majority, version = after.voter_set.majority, after.voter_set.version
        rewritten = {key for (key, _), voters in self._accepted_by.items() if len(voters) >= majority}
        left = [key for key in self._keys if key not in rewritten]
        if version != self._pending:
            self._told(f"voter set {version} is settled, and {self._pending} was proposed")
        elif left:
            self._told(f"voter set {version} is settled, and nobody has rewritten {' and '.join(left)} under it")
        self._accepted_by.clear()


class BehindTheirCount:
    """Hook `saw` to every voter, for what it `HEARS`. A call carries what its voter was heard to have counted."""

    HEARS: ClassVar[tuple[type[Call], ...]] = (Prepare, Accept)

    def __init__(self, *, told: Callable[[str], None]) -> None:
        self._told = told

    def saw(self, voter: SimulatedVoter, call: Call, reply: Reply) -> None:
        """A voter carried a call out, which counts as one write."""
        if isinstance(call, Prepare | Accept) and isinstance(reply, Promise | Accepted) and call.seen >= reply.writes:
            has = reply.writes - 1
            self._told(f"register {call.key}: voter {voter.node} votes with {has} writes, and has told of {call.seen}")


class AbsentVotes(ClusterRegisterMonitor):
    """Hook `chose` to the chosen values.

    Dynamic quorum: of more than three voters, one whose node stays Down is taken out of the set ten seconds later by
    whoever is first in turn, unless another change of the set comes first (the rules of the cluster, section 6).
    """

    SLACK_US = 3 * SECOND_US

    def __init__(
        self,
        settings: Settings,
        *,
        chosen: ChosenValueOracle,
        own: OwnLeases,
        leases: LeaseOracle,
        clock: Clock,
        told: Callable[[str], None],
    ) -> None:
        self._dynamic = settings.dynamic_quorum
        self._turn_us = 2 * settings.lease_us
        self._chosen = chosen
        self._own = own
        self._leases = leases
        self._clock = clock
        self._told = told
        self._changed_us = 0

    def changed(self, key: str, before: ClusterRecord, after: ClusterRecord) -> None:
        """The cluster's register has a newer content."""
        del key
        now_us = self._clock.now_us
        if (before.voter_set, before.pending_set) != (after.voter_set, after.pending_set):
            self._changed_us = now_us
        for session in newly_down(before, after) if self._dynamic else ():
            for place in range(len(after.nodes) - 1):
                look = partial(self._look, session, place, now_us)
                self._clock.after(ABSENT_US + self.SLACK_US + place * self._turn_us, look)

    def _look(self, lost: Session, place: int, down_us: int) -> None:
        """Whether the vote is still there, although one in that place or before it could change that all the time."""
        cluster, down_for_us = self._chosen.newest(CLUSTER_KEY), self._clock.now_us - down_us
        entry = cluster.node(lost.node) if isinstance(cluster, ClusterRecord) else None
        if not isinstance(cluster, ClusterRecord) or entry is None or entry.session != lost or cluster.is_up(lost):
            return
        votes = cluster.voter_set
        if votes is None or lost.node not in votes.members or len(votes.members) <= MIN_WITH_ABSENT:
            return
        if self._changed_us >= down_us:
            return
        for other in cluster.up_nodes()[: place + 1]:
            if other.session is None or self._own.held_for_us(other.session) < down_for_us:
                continue
            beats = self._leases.heard(str(other.session))
            if lost.node in beats and self._answers(beats[lost.node]):
                continue
            heard = [voter for voter in votes.members if voter in beats and beats[voter][0] <= down_us]
            if sum(self._answers(beats[voter]) for voter in heard) >= votes.majority:
                for_s, by = down_for_us / 1e6, other.session
                self._told(f"{lost} is Down for {for_s:.6f} s and still votes, and {by} does not change that")

    def _answers(self, beats: tuple[int, int]) -> bool:
        return beats[1] > self._clock.now_us - self._leases.pause_us
