"""The proposer: changes and reads of registers as rounds with the voters, without any I/O.

CASPaxos, one instance a register. The rules that must not be weakened, each with the finding of the safety review
behind it:

- a ballot carries one value, ever; after anything but a clean success of accept the next attempt prepares under a
  higher ballot;
- prepare is skipped only for the one ballot that the own last clean accept carried as a promise, with the value that
  this accept chose (10);
- an answer counts only for the rig, voter, incarnation, set version, key and ballot that it names (11);
- "certainly not done" is said only when no accept has left this process; a majority of rejections proves nothing (9);
- a read is believed when a majority agrees on one ballot; otherwise an identity change settles it (9);
- answers given under different versions of the voter set never count together: told of a newer set, every round begins
  anew under it (5, 6).

No round waits for a voter that it does not need: two of three answers end it, and a voter that failed to answer the
last call is asked, but not waited for.

Proposer identities must be unique per start: the caller gives one that was never used before.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from harness.database.protocol import (
    NO_BALLOT,
    Accept,
    Accepted,
    Address,
    Ballot,
    Call,
    Conflict,
    Prepare,
    Promise,
    Read,
    ReadAnswer,
    Reply,
    WriteCounts,
)
from harness.database.register import Codec, Stored
from harness.model.changes import Change, Refusal
from harness.model.voter_set import VoterSet

__all__ = ["PHASE_LIMIT_US", "Proposer", "Result", "Send", "Settlement"]

PHASE_LIMIT_US = 300_000
"""How long one round waits for a majority: many times a healthy round, well under a lease."""

READ_PATIENCE_US = 20_000
"""How long a read whose first majority disagrees waits for the remaining voters before it writes an identity change."""

BACKOFF_FIRST_US = 4_000
MAX_BACKOFF_US = 200_000
"""Between attempts after a conflict or a lost majority: doubling with jitter, so that duelling proposers get out of
step.
"""


MANY = 16
"""Operations under way for each fact that may pass before the earliest end among them is reckoned anew."""


class Result(StrEnum):
    """How an operation ended. UNKNOWN: an accept has left this process, and nobody knows yet."""

    DONE = "done"
    REFUSED = "refused"
    NOT_DONE = "not-done"
    UNKNOWN = "unknown"


class Send(NamedTuple):
    """One call to one voter. `number` comes back with its answer or its failure."""

    number: int
    voter: str
    call: Call


class Settlement(NamedTuple):
    """The one end of an operation. `stored` and `ballot` are the register as it is known after it (DONE, REFUSED)."""

    operation: int
    key: str
    result: Result
    stored: Stored | None = None
    ballot: Ballot = NO_BALLOT
    reason: str = ""


class _Phase(StrEnum):
    READ = "read"
    PREPARE = "prepare"
    ACCEPT = "accept"
    BACKOFF = "backoff"


@dataclass(slots=True)
class _Operation:
    number: int
    key: str
    change: Change | None
    deadline_us: int
    phase: _Phase = _Phase.BACKOFF
    round: int = 0
    phase_ends_us: int = 0
    attempts: int = 0
    accept_sent: bool = False
    hurried: bool = False
    identity: bool = False
    ballot: Ballot = NO_BALLOT
    promise: Ballot = NO_BALLOT
    proposal: Stored | None = None
    value: str = ""
    refusal: Refusal | None = None
    answers: dict[str, Reply] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)


class Proposer:
    """All registers of one proposer. At most one operation per key is under way, the others wait in order.

    Feed it `answered`, `failed` and `tick`; collect from `sends` and `settlements` after each call. `jitter` gives
    numbers in [0, 1), `numbers` the next unused number of a call.
    """

    def __init__(
        self,
        *,
        identity: str,
        rig: str,
        voter_set: VoterSet,
        codec: Codec,
        jitter: Callable[[], float],
        numbers: Callable[[], int],
        writes: WriteCounts | None = None,
    ) -> None:
        self.sends: list[Send] = []
        self.settlements: list[Settlement] = []
        self._writes = writes or WriteCounts()
        self._silent: set[str] = set()
        self._identity = identity
        self._rig = rig
        self._voter_set = voter_set
        self._addresses = self._reckon_addresses()
        self._codec = codec
        self._jitter = jitter
        self._number = numbers
        self._highest: dict[str, int] = {}
        self._fast: dict[str, tuple[Ballot, Stored, Ballot]] = {}
        self._queues: dict[str, deque[_Operation]] = {}
        self._calls: dict[int, tuple[_Operation, int]] = {}
        self._soonest_us = 0
        self._looks_left = 0

    @property
    def voter_set(self) -> VoterSet:
        """The set under which every round runs now."""
        return self._voter_set

    def adopt(self, now: int, voter_set: VoterSet) -> None:
        """Go on under a newer set: what is under way begins anew, and no promise of before counts."""
        if voter_set.version <= self._voter_set.version:
            return
        self._voter_set = voter_set
        self._addresses = self._reckon_addresses()
        self._silent.intersection_update(voter_set.members)
        self._fast.clear()
        for queue in list(self._queues.values()):
            if queue and queue[0].phase is not _Phase.BACKOFF:
                if not queue[0].accept_sent:
                    queue[0].attempts = 0
                self._retry(now, queue[0], at_once=True)

    def change(self, now: int, *, operation: int, key: str, change: Change, limit_us: int) -> None:
        """Start a change; it ends with exactly one settlement within about `limit_us`."""
        self._enqueue(now, _Operation(operation, key, change, now + limit_us))

    def read(self, now: int, *, operation: int, key: str, limit_us: int, identity: bool = False) -> None:
        """Start a linearizable read; DONE carries what the register holds (None if it was never written).

        With `identity` it writes what it finds under a ballot of its own, whatever the voters agree on: what that does
        not show can never appear. That is how an unknown outcome is settled.
        """
        self._enqueue(now, _Operation(operation, key, None, now + limit_us, identity=identity))

    def answered(self, now: int, number: int, reply: Reply) -> None:
        """A voter answered. Answers to rounds that are over, or that name anything else, count for nothing."""
        self._writes.heard(reply)
        entry = self._calls.pop(number, None)
        if entry is None:
            return
        operation, round_number = entry
        voter = self._voter_of(reply)
        if voter is not None:
            self._silent.discard(voter)
        if operation.round != round_number or voter is None:
            return
        if not self._names_this_round(operation, reply):
            operation.failed.add(voter)
        else:
            operation.answers[voter] = reply
        self._advance(now, operation)

    def failed(self, now: int, number: int, voter: str) -> None:
        """A call got no answer; what it asked for may still happen."""
        entry = self._calls.pop(number, None)
        if entry is None:
            return
        if voter in self._voter_set.members:
            self._silent.add(voter)
        operation, round_number = entry
        if operation.round == round_number:
            operation.failed.add(voter)
            self._advance(now, operation)

    def learned(self, key: str, accepted: Ballot) -> None:
        """A majority has accepted that; its writer has the next number promised already."""
        self._note(key, Ballot(accepted.number + 1, accepted.proposer))

    def tick(self, now: int) -> None:
        """End what has lasted too long, and start the attempts that are due."""
        self._looks_left = 0  # an estimate that was too early wakes once
        for queue in list(self._queues.values()):
            if queue and now >= queue[0].phase_ends_us:
                if queue[0].phase is _Phase.BACKOFF:
                    self._attempt(now, queue[0])
                else:
                    self._retry(now, queue[0])

    def next_wake(self) -> int | None:
        """When `tick` has something to do next, or a little sooner while much is under way."""
        if not self._queues:
            return None
        if self._looks_left:
            self._looks_left -= 1
        else:
            # Asked after every fact: with thousands of registers under way, looking through them must be rare.
            self._looks_left = len(self._queues) // MANY
            self._soonest_us = min(queue[0].phase_ends_us for queue in self._queues.values())
        return self._soonest_us

    def busy(self, key: str) -> bool:
        """Whether an operation on that register is under way or waits."""
        return bool(self._queues.get(key))

    # Rounds

    def _enqueue(self, now: int, operation: _Operation) -> None:
        queue = self._queues.setdefault(operation.key, deque())
        queue.append(operation)
        if len(queue) == 1:
            self._attempt(now, operation)

    def _attempt(self, now: int, operation: _Operation) -> None:
        operation.attempts += 1
        operation.answers.clear()
        operation.failed.clear()
        operation.refusal = None
        if operation.change is None and operation.attempts == 1 and not operation.identity:
            self._begin(now, operation, _Phase.READ, NO_BALLOT)
            return
        fast = self._fast.pop(operation.key, None)
        if fast is not None and operation.attempts == 1:
            ballot, chosen, chosen_under = fast
            operation.ballot = ballot
            # Not taken as committed: somebody else may have changed it since. The accept itself finds out.
            self._propose(now, operation, chosen, committed=False, under=chosen_under)
            return
        self._begin(now, operation, _Phase.PREPARE, self._next_ballot(operation.key))

    def _begin(self, now: int, operation: _Operation, phase: _Phase, ballot: Ballot) -> None:
        operation.phase = phase
        operation.round += 1
        operation.ballot = ballot
        self._end_phase_at(operation, min(now + PHASE_LIMIT_US, max(operation.deadline_us, now + 1)))
        operation.answers.clear()
        operation.failed.clear()
        for voter in self._voter_set.members:
            number = self._number()
            self._calls[number] = (operation, operation.round)
            self.sends.append(Send(number, voter, self._call(operation, voter)))

    def _call(self, operation: _Operation, voter: str) -> Call:
        to = self._addresses[voter]
        seen = self._writes.seen(voter, to.incarnation)
        match operation.phase:
            case _Phase.READ:
                return Read(to=to, key=operation.key, seen=seen)
            case _Phase.PREPARE:
                return Prepare(to=to, key=operation.key, ballot=operation.ballot, seen=seen)
            case _:
                return Accept(
                    to=to,
                    key=operation.key,
                    ballot=operation.ballot,
                    value=operation.value,
                    promise=operation.promise,
                    owner=operation.proposal.owner if operation.proposal is not None else "",
                    circle=operation.proposal.circle if operation.proposal is not None else "",
                    seen=seen,
                )

    def _advance(self, now: int, operation: _Operation) -> None:
        for reply in operation.answers.values():
            if isinstance(reply, Conflict):
                self._note(operation.key, reply.promised)
        match operation.phase:
            case _Phase.READ:
                self._advance_read(now, operation)
            case _Phase.PREPARE:
                self._advance_prepare(now, operation)
            case _Phase.ACCEPT:
                self._advance_accept(now, operation)
            case _Phase.BACKOFF:
                pass

    def _advance_read(self, now: int, operation: _Operation) -> None:
        answers = [reply for reply in operation.answers.values() if isinstance(reply, ReadAnswer)]
        for answer in answers:
            agreeing = sum(other.accepted == answer.accepted for other in answers)
            if agreeing >= self._voter_set.majority:
                stored = self._codec.decode(answer.value) if answer.value is not None else None
                self.learned(operation.key, answer.accepted)
                self._settle(now, operation, Result.DONE, stored, answer.accepted)
                return
        heard = {*operation.answers, *operation.failed}
        if len(answers) >= self._voter_set.majority:
            heard |= self._silent
        if len(heard) == len(self._voter_set.members):
            # They disagree, or a majority is out of reach: an identity change decides, under a ballot of its own.
            self._retry(now, operation, at_once=len(answers) >= self._voter_set.majority)
        elif len(answers) >= self._voter_set.majority:
            self._end_phase_at(operation, min(operation.phase_ends_us, now + READ_PATIENCE_US))

    def _advance_prepare(self, now: int, operation: _Operation) -> None:
        promises = [reply for reply in operation.answers.values() if isinstance(reply, Promise)]
        if len(promises) >= self._voter_set.majority:
            best = max(promises, key=lambda promise: promise.accepted)
            self._note(operation.key, best.accepted)
            chosen = self._codec.decode(best.value) if best.value is not None else None
            agreeing = sum(promise.accepted == best.accepted for promise in promises)
            committed = agreeing >= self._voter_set.majority
            self._propose(now, operation, chosen, committed=committed, under=best.accepted)
        elif self._out_of_reach(operation, len(promises)):
            # Refused for an old number: all others will have gone on again by the end of a wait, so it is tried at once
            # under a new one. Only once, for two that do so to each other must get out of step.
            outdated = any(isinstance(reply, Conflict) for reply in operation.answers.values())
            self._retry(now, operation, at_once=outdated and not operation.hurried)

    def _propose(
        self, now: int, operation: _Operation, chosen: Stored | None, *, committed: bool, under: Ballot
    ) -> None:
        """Apply the change to what the ballot must carry on, and send the result (or the same value, as an identity
        change).
        """
        change_id = f"{self._identity}:{operation.number}"
        proposal = chosen
        already = chosen is not None and change_id in chosen.ids
        if operation.change is not None and not already:
            record = operation.change.apply(chosen.record if chosen else None)
            if isinstance(record, Refusal):
                operation.refusal = record
            else:
                previous = chosen or Stored(version=0, ids=(), record=record)
                proposal = previous.after(change_id, record)
        unsettled = operation.identity or (operation.accept_sent and not already)
        if proposal is chosen and (committed or chosen is None) and not (unsettled and chosen is not None):
            # Nothing to write, and what was found is chosen already (or nothing ever was): no accept is needed. An
            # accept of this operation that may still be somewhere needs one: under a lower ballot it could be revived.
            self._settle(now, operation, self._end_of(operation), chosen, under)
            return
        assert proposal is not None
        operation.proposal = proposal
        operation.value = self._codec.encode(proposal)
        operation.promise = Ballot(operation.ballot.number + 1, self._identity)
        self._note(operation.key, operation.promise)
        operation.accept_sent = operation.accept_sent or operation.refusal is None
        self._begin(now, operation, _Phase.ACCEPT, operation.ballot)

    def _advance_accept(self, now: int, operation: _Operation) -> None:
        accepted = sum(isinstance(reply, Accepted) for reply in operation.answers.values())
        if accepted >= self._voter_set.majority:
            assert operation.proposal is not None
            self._fast[operation.key] = (operation.promise, operation.proposal, operation.ballot)
            self._settle(now, operation, self._end_of(operation), operation.proposal, operation.ballot)
        elif self._out_of_reach(operation, accepted):
            self._retry(now, operation)

    # Ends

    @staticmethod
    def _end_of(operation: _Operation) -> Result:
        return Result.REFUSED if operation.refusal is not None else Result.DONE

    def _retry(self, now: int, operation: _Operation, *, at_once: bool = False) -> None:
        self._fast.pop(operation.key, None)
        if now >= operation.deadline_us:
            result = Result.UNKNOWN if operation.accept_sent else Result.NOT_DONE
            self._settle(now, operation, result, None, NO_BALLOT)
            return
        ceiling = min(BACKOFF_FIRST_US << min(operation.attempts, 10), MAX_BACKOFF_US)
        operation.phase = _Phase.BACKOFF
        operation.hurried = at_once
        operation.round += 1
        operation.ballot = NO_BALLOT
        wait = 0 if at_once else int(ceiling * (0.5 + 0.5 * self._jitter()))
        self._end_phase_at(operation, min(now + wait, operation.deadline_us))
        if at_once:
            self._attempt(now, operation)

    def _settle(
        self, now: int, operation: _Operation, result: Result, stored: Stored | None, ballot: Ballot
    ) -> None:
        self.settlements.append(
            Settlement(
                operation=operation.number,
                key=operation.key,
                result=result,
                stored=stored,
                ballot=ballot,
                reason=operation.refusal.reason if operation.refusal else "",
            )
        )
        queue = self._queues[operation.key]
        assert queue[0] is operation
        queue.popleft()
        operation.phase = _Phase.BACKOFF
        operation.round += 1
        operation.ballot = NO_BALLOT
        if queue:
            self._attempt(now, queue[0])
        else:
            del self._queues[operation.key]  # what is looked through at each wake are the busy ones

    # Parts

    def _end_phase_at(self, operation: _Operation, when_us: int) -> None:
        operation.phase_ends_us = when_us
        self._soonest_us = min(self._soonest_us, when_us)

    def _out_of_reach(self, operation: _Operation, good: int) -> bool:
        others = len(self._voter_set.members) - len(operation.answers) - len(operation.failed)
        return good + others < self._voter_set.majority

    def _next_ballot(self, key: str) -> Ballot:
        ballot = Ballot(self._highest.get(key, 0) + 1, self._identity)
        self._note(key, ballot)
        return ballot

    def _note(self, key: str, ballot: Ballot) -> None:
        self._highest[key] = max(self._highest.get(key, 0), ballot.number)

    def _reckon_addresses(self) -> dict[str, Address]:
        return {
            voter: Address(rig=self._rig, voter=voter, incarnation=life, set_version=self._voter_set.version)
            for voter, life in self._voter_set.members.items()
        }

    def _voter_of(self, reply: Reply) -> str | None:
        of = getattr(reply, "of", None)
        if not isinstance(of, Address) or of.voter not in self._voter_set.members:
            return None
        return of.voter

    def _names_this_round(self, operation: _Operation, reply: Reply) -> bool:
        if not isinstance(reply, Promise | Accepted | Conflict | ReadAnswer):
            return False
        if reply.of != self._addresses[reply.of.voter] or reply.key != operation.key:
            return False
        if isinstance(reply, ReadAnswer):
            return operation.phase is _Phase.READ
        wrong = Accepted if operation.phase is _Phase.PREPARE else Promise
        return reply.ballot == operation.ballot and not isinstance(reply, wrong)
