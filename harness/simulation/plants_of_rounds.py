"""Broken clusters, continued: rounds, the voter set, and what is told of a change, each with one rule weakened.

Like those of `plants`, they exist only as compositions of a simulated world.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness.cluster_service.core.messages import Action, AnswerCode, Event
from harness.cluster_service.core.pending_requests import OpenRequest, OpenRequests
from harness.cluster_service.membership.voter_set import VoterSetManager
from harness.cluster_service.service import ClusterService
from harness.database.acceptor import Acceptor
from harness.database.proposer import Proposer, Result, Send
from harness.database.protocol import (
    NO_BALLOT,
    Accept,
    Accepted,
    Ballot,
    Call,
    Prepare,
    Read,
    Refused,
    Reply,
)
from harness.database.register import Stored
from harness.database.voter_set_change import VoterSetChange
from harness.model.changes import ProposeVoterSet, Record, Refusal
from harness.model.records import ClusterRecord
from harness.model.voter_set import MIN_VOTERS, VoterSet
from harness.simulation.invariants.reads import WatchedDatabase
from harness.simulation.plants import Plant, service_of
from harness.simulation.plants_of_belief import WritesAreNotSynced

__all__ = ["PLANTS_OF_ROUNDS", "RewritesNothing"]


def _service_with(proposer: type[Proposer]) -> Callable[..., ClusterService]:
    """What makes a service whose proposer gets another class."""

    class WithProposer(WatchedDatabase):
        def _become_known(self, now: int, events: list[Event], actions: list[Action]) -> None:
            super()._become_known(now, events, actions)
            if self._proposer is not None:
                self._proposer.__class__ = proposer

    return service_of("database", WithProposer)


# Prepare skipped


class _BuildsOnItsCopy(Proposer):
    """What a read has shown is what the next change is made on."""

    def _settle(self, now: int, operation: Any, result: Result, stored: Stored | None, ballot: Ballot) -> None:
        if result is Result.DONE and operation.change is None and stored is not None:
            self._fast[operation.key] = (self._next_ballot(operation.key), stored, ballot)
        super()._settle(now, operation, result, stored, ballot)


class PrepareIsSkippedForACopy(Plant):
    """A change is made on a local copy without a prepare, under a ballot that nobody has promised (finding 10)."""

    service = _service_with(_BuildsOnItsCopy)


class _AcceptsWithoutThePromise(Acceptor):
    def _accept(self, call: Accept) -> Reply:
        return super()._accept(call._replace(promise=NO_BALLOT))


class AcceptCarriesNoPromise(Plant):
    """The last proposer to succeed skips prepare under its next ballot, which no accept has promised (finding 10)."""

    def acceptor(self) -> Acceptor:
        return _AcceptsWithoutThePromise()


# The voter set


class RewritesNothing(VoterSetChange):
    """The next change of the set begins as soon as the version was raised and the new voter admitted."""

    @property
    def unwritten(self) -> list[str]:
        return []

    @property
    def complete(self) -> bool:
        return self._all_known


class _SettlesAtOnce(VoterSetManager):
    @property
    def _change(self) -> VoterSetChange | None:
        made: VoterSetChange | None = self.__dict__.get("change")
        return made

    @_change.setter
    def _change(self, made: VoterSetChange | None) -> None:
        if made is not None:
            made.__class__ = RewritesNothing
        self.__dict__["change"] = made


class SetChangesWithoutRewriting(Plant):
    """A change of the voter set is settled without an identity change of every register (findings 5 and 6)."""

    service = service_of("voter_set", _SettlesAtOnce)


class _KeepsTheAbsent(VoterSetManager):
    def _absent_since_us(self, now: int, record: ClusterRecord, name: str) -> int | None:
        del now, record, name
        return None


class AbsentVotesStay(Plant):
    """A node that stays away keeps its vote, so that losses one by one end the cluster (the rules, section 6)."""

    nodes = 5
    service = service_of("voter_set", _KeepsTheAbsent)


class _CountsAcrossVersions(Proposer):
    """Goes on with a round under a newer set, and keeps the answers and the promises that it has."""

    def adopt(self, now: int, voter_set: VoterSet) -> None:
        if voter_set.version <= self._voter_set.version:
            return
        self._voter_set = voter_set
        self._addresses = self._reckon_addresses()
        for queue in list(self._queues.values()):
            operation = queue[0]
            if operation.phase.value == "backoff":
                continue
            operation.failed.clear()
            for voter in voter_set.members:
                if voter not in operation.answers:
                    self._call_again(operation, voter)
            self._advance(now, operation)

    def _call_again(self, operation: Any, voter: str) -> None:
        number = self._number()
        self._calls[number] = (operation, operation.round)
        self.sends.append(Send(number, voter, self._call(operation, voter)))

    def _names_this_round(self, operation: Any, reply: Any) -> bool:
        if isinstance(reply, Refused):
            return False
        of = reply.of._replace(set_version=self._voter_set.version)
        return super()._names_this_round(operation, reply._replace(of=of))


class VersionsCountTogether(Plant):
    """Promises and accepts that voters gave under different versions of their set count together (finding 5)."""

    service = _service_with(_CountsAcrossVersions)


class _AnswersOlderSets(Acceptor):
    def handle(self, call: Call, *, clock_us: int) -> Reply:
        if isinstance(call, Prepare | Accept | Read) and 0 < call.to.set_version < self.set_version:
            of = call.to
            reply: Any = super().handle(call._replace(to=of._replace(set_version=self.set_version)), clock_us=clock_us)
            return reply if isinstance(reply, Refused) else reply._replace(of=of)
        return super().handle(call, clock_us=clock_us)


class OlderSetsAreAnswered(Plant):
    """A voter that has a newer set goes on with the rounds of the one before (finding 5)."""

    def acceptor(self) -> Acceptor:
        return _AnswersOlderSets()


class _ProposesAnySet(ProposeVoterSet):
    """Whatever differs, and whatever is pending."""

    def apply(self, record: Record | None) -> Record | Refusal:
        if not isinstance(record, ClusterRecord) or record.voter_set is None:
            return Refusal("no cluster was formed")
        newest = record.pending_set or record.voter_set
        if self.voter_set.version != newest.version + 1 or len(self.voter_set.members) < MIN_VOTERS:
            return Refusal(f"voter set {self.voter_set.version} does not come after {newest.version}")
        return replace(record, pending_set=self.voter_set)


class _ReplacesVoters(VoterSetManager):
    """Takes the lost life of a voter out and its new one in with one change."""

    def _decide(self, now: int, record: ClusterRecord, current: VoterSet) -> list[Action]:
        for name, life in current.members.items():
            if not self.watch.lost(name, life) or not self._my_turn(now, f"replace {name} in {current.version}"):
                continue
            told = self._hellos.get(name)
            if told is None or not told.birth or told.incarnation:
                return self._look(now, name, current)
            members = {**current.members, name: told.birth}
            change = _ProposesAnySet(voter_set=VoterSet(version=current.version + 1, members=members))
            return self._write(now, change, "voter-replaced", f"replacing voter {name}")
        return super()._decide(now, record, current)


class SetChangesByTwo(Plant):
    """A voter that has lost its disk is taken out and in again with one change of the set (findings 5 and 6)."""

    service = service_of("voter_set", _ReplacesVoters)


class _DoesNotWait(VoterSetManager):
    """Decides on the next change while one is carried through."""

    def _next_step(self, now: int, record: ClusterRecord) -> list[Action]:
        steps = super()._next_step(now, record)
        if record.pending_set is not None and self._adopted >= record.pending_set.version:
            steps += [self._any(action) for action in self._decide(now, record, record.pending_set)]
        return steps

    @staticmethod
    def _any(action: Action) -> Action:
        change = getattr(action, "change", None)
        if isinstance(change, ProposeVoterSet):
            return replace(action, change=_ProposesAnySet(voter_set=change.voter_set))  # type: ignore[type-var]
        return action


class SetChangesOverlap(Plant):
    """The next change of the voter set is begun before the last one is settled (findings 5 and 6)."""

    service = service_of("voter_set", _DoesNotWait)


class BehindItsCountItVotes(WritesAreNotSynced):
    """A voter whose disk went back votes on, although it is told that it has counted more writes (finding 20)."""

    def acceptor(self) -> Acceptor:
        voter: Any = super().acceptor()
        refuse = voter._refusal

        def never_behind(call: Any) -> Refused | None:
            asked = call if not hasattr(call, "seen") else _with_seen(call, 0)
            refused: Refused | None = refuse(asked)
            return refused

        voter._refusal = never_behind
        return voter  # type: ignore[no-any-return]


def _with_seen(call: Any, seen: int) -> Any:
    made: Any = getattr(call, "_replace", None)
    return made(seen=seen) if made is not None else replace(call, seen=seen)


# What is told of a change


class _BelievesOneAccept(Proposer):
    def _advance_accept(self, now: int, operation: Any) -> None:
        if any(isinstance(reply, Accepted) for reply in operation.answers.values()):
            self._settle(now, operation, self._end_of(operation), operation.proposal, operation.ballot)
        else:
            super()._advance_accept(now, operation)


class OneAcceptIsDone(Plant):
    """A change is told as done when one voter has accepted it (finding 9)."""

    service = _service_with(_BelievesOneAccept)


class _AppliesAgain(Proposer):
    """Does not recognize what it finds as its own."""

    def _propose(
        self, now: int, operation: Any, chosen: Stored | None, *, committed: bool, under: Ballot
    ) -> None:
        own = f"{self._identity}:{operation.number}"
        if chosen is not None and operation.change is not None and own in chosen.ids:
            chosen = replace(chosen, ids=tuple(change for change in chosen.ids if change != own))
        super()._propose(now, operation, chosen, committed=committed, under=under)


class ChangesAreMadeTwice(Plant):
    """A change that is tried again does not recognize its own effect, and is made once more (finding 9)."""

    service = _service_with(_AppliesAgain)


class _AnswersDone(OpenRequests):
    def answer(self, request: OpenRequest, code: AnswerCode, message: str, **result: Any) -> list[Action]:
        return super().answer(request, AnswerCode.DONE if code is AnswerCode.UNKNOWN else code, message, **result)


class UnknownIsAnsweredAsDone(Plant):
    """A request whose change nobody knows the end of is answered as done, and may never appear (finding 9)."""

    service = service_of("requests", _AnswersDone)


PLANTS_OF_ROUNDS: tuple[type[Plant], ...] = (
    PrepareIsSkippedForACopy,
    AcceptCarriesNoPromise,
    SetChangesWithoutRewriting,
    AbsentVotesStay,
    VersionsCountTogether,
    OlderSetsAreAnswered,
    SetChangesByTwo,
    SetChangesOverlap,
    BehindItsCountItVotes,
    OneAcceptIsDone,
    ChangesAreMadeTwice,
    UnknownIsAnsweredAsDone,
)
