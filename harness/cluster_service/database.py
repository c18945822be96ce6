"""Database Manager: the only one that knows rounds and ballots.

It learns who the voters are, carries out changes and reads through the proposer, and keeps the proposer under the
newest voter set that any voter tells of. A copy of a register is for display and as a hint; a change always applies to
the record read under its own ballot. Facts leave it as events: VotersKnown, RegisterSeen, Settled.

A change of UNKNOWN outcome leaves its register in doubt: its accept may still be under way. Nothing is told of the
register, and no refusal either, until an identity change has put an end to that (safety review, finding 9). The same
holds for the first look at a group of this node's, because the managers before these may have left a change behind.

That a voter has a set proves that this set was recorded in the cluster register: nobody raises a voter to one that was
not. So a newer set is adopted from any answer, and a member that still has an older one is told of it, whoever began
the change and whether or not he lives.
"""

from collections.abc import Callable, Sequence

from harness.cluster_service.core.messages import (
    Action,
    AdoptVoters,
    CallVoter,
    ChangeRegister,
    ChangeSettled,
    Event,
    Log,
    ReadRegister,
    RegisterNoticed,
    RegisterSeen,
    RewriteRegister,
    Tick,
    VoterAnswered,
    VoterFailed,
    VotersKnown,
)
from harness.database.batch_read import MAX_KEYS, Agreed, BatchRead
from harness.database.proposer import PHASE_LIMIT_US, Proposer, Result, Settlement
from harness.database.protocol import NO_BALLOT, Address, Ballot, Hello, HelloAnswer, Raise, Refused, WriteCounts
from harness.database.register import Codec
from harness.model.register_keys import CLUSTER_KEY
from harness.model.voter_set import VoterSet

__all__ = ["COMPONENT", "OPERATION_LIMIT_US", "DatabaseManager"]

COMPONENT = "database-manager"

OPERATION_LIMIT_US = 4_000_000
"""How long a change or read is tried. Longer than a lease: a majority that is gone for that long ends the managers
first.
"""

MANY = 2
"""Registers to be read at once from which on one call asks for many."""
HELLO_INTERVAL_US = 300_000
"""Between two rounds of asking the voters who they are, while no majority of a set has answered."""


class DatabaseManager:
    """One generation's access to the registers. `identity` must never have been used before, by anybody."""

    def __init__(
        self,
        *,
        identity: str,
        node: str,
        rig: str,
        voters: tuple[str, ...],
        codec: Codec,
        jitter: Callable[[], float],
        numbers: Callable[[], int],
        writes: WriteCounts,
    ) -> None:
        self._identity = identity
        self._node = node
        self._rig = rig
        self._voters = voters
        self._codec = codec
        self._jitter = jitter
        self._number = numbers
        self._writes = writes
        self._proposer: Proposer | None = None
        self._next_hello_us = 0
        self._hellos: dict[int, str] = {}
        self._told: dict[str, HelloAnswer] = {}
        self._raises: dict[int, str] = {}
        self._calls: list[CallVoter] = []
        self._adopted: list[VoterSet] = []
        self._operations = 0
        self._wishes: dict[int, ChangeRegister | RewriteRegister] = {}
        self._waiting: list[ChangeRegister | ReadRegister | RewriteRegister] = []
        self._seen: dict[str, Ballot] = {}
        self._reading: set[str] = set()
        self._doubtful: set[str] = set()
        self._identities: set[int] = set()
        self._held: dict[str, list[ChangeSettled]] = {}
        self._once_more: set[str] = set()
        self._noticed_while_reading: dict[str, Ballot] = {}
        self._to_read: list[str] = []
        self._surveys: dict[int, BatchRead] = {}
        self._agreed: list[Agreed] = []

    def is_reading(self, key: str) -> bool:
        """Whether a read of that register is under way."""
        return key in self._reading

    def seen_ballot(self, key: str) -> Ballot:
        """The ballot of the newest committed content of that register that this manager has told."""
        return self._seen.get(key, NO_BALLOT)

    def ask(self, now: int, wish: ChangeRegister | ReadRegister | RewriteRegister | AdoptVoters) -> None:
        """Start a change or a read, or go on under a newer set. Before the voters are known it waits."""
        if isinstance(wish, AdoptVoters):
            if self._proposer is not None:
                self._adopt(now, self._proposer, wish.voter_set)
            return
        if self._proposer is None:
            self._waiting.append(wish)
            return
        if isinstance(wish, ReadRegister):
            if wish.anew and wish.key in self._reading:
                self._once_more.add(wish.key)
            self._read(now, wish.key)
            return
        self._operations += 1
        number = self._operations
        self._wishes[number] = wish
        if isinstance(wish, RewriteRegister):
            self._proposer.read(now, operation=number, key=wish.key, limit_us=OPERATION_LIMIT_US, identity=True)
        else:
            self._proposer.change(
                now, operation=number, key=wish.key, change=wish.change, limit_us=OPERATION_LIMIT_US
            )

    def handle(self, now: int, event: Event) -> None:
        """Take a fact in. What comes of it is collected with `collect`."""
        match event:
            case VoterAnswered(reply=HelloAnswer() as told) if event.number in self._hellos:
                self._heard(self._hellos.pop(event.number), told)
            case VoterAnswered():
                self._forget_call(event.number)
                if self._proposer is not None:
                    if isinstance(event.reply, Refused):
                        self._heard_of_set(now, self._proposer, event.reply)
                    survey = self._surveys.pop(event.number, None)
                    if survey is not None:
                        self._agreed += survey.answered(now, event.number, event.reply)
                        self._read_what_is_left(now, survey)
                    self._proposer.answered(now, event.number, event.reply)
            case VoterFailed():
                self._forget_call(event.number)
                if self._proposer is not None:
                    survey = self._surveys.pop(event.number, None)
                    if survey is not None:
                        survey.failed(event.number)
                        self._read_what_is_left(now, survey)
                    self._proposer.failed(now, event.number, event.voter)
            case RegisterNoticed():
                self._noticed(now, event)
            case Tick():
                if self._proposer is not None:
                    self._proposer.tick(now)
                    for survey in dict.fromkeys(self._surveys.values()):
                        self._read_what_is_left(now, survey)
            case _:
                pass

    @property
    def _has_news(self) -> bool:
        proposer = self._proposer
        return proposer is None or bool(
            proposer.sends
            or proposer.settlements
            or self._to_read
            or self._agreed
            or self._calls
            or self._adopted
        )

    def collect(self, now: int) -> tuple[Sequence[Event], Sequence[Action]]:
        """What has happened since the last call: facts for the other managers, and calls for the voters."""
        if not self._has_news:
            return (), ()
        events: list[Event] = []
        actions: list[Action] = []
        if self._proposer is None:
            self._hello_if_due(now, actions)
            self._become_known(now, events, actions)
        if self._proposer is not None:
            for voter_set in self._adopted:
                self._tell_set(voter_set, events, actions)
            self._adopted.clear()
            self._tell_agreed(now, self._proposer, events)
            settlements, self._proposer.settlements = self._proposer.settlements, []
            for settlement in settlements:
                self._settle(now, settlement, events)
            self._begin_reads(now, self._proposer, actions)
            sends, self._proposer.sends = self._proposer.sends, []
            for send in sends:
                actions.append(
                    CallVoter(number=send.number, voter=send.voter, call=send.call, limit_us=PHASE_LIMIT_US)
                )
            actions += self._calls
            self._calls.clear()
        return events, actions

    # Plain reads

    def _begin_reads(self, now: int, proposer: Proposer, actions: list[Action]) -> None:
        """Those that were asked for at once: many of them together, few each by itself. One that others are changing
        here waits for its turn, and so goes by itself; the cluster's, on which renewals wait, waits for no other.
        """
        keys, self._to_read = self._to_read, []
        alone = [key for key in keys if key == CLUSTER_KEY or proposer.busy(key)]
        together = [key for key in keys if key not in alone]
        if len(together) < MANY:
            alone, together = keys, []
        for key in alone:
            self._read_alone(now, proposer, key)
        for begin in range(0, len(together), MAX_KEYS):
            survey = BatchRead(
                keys=together[begin : begin + MAX_KEYS],
                voter_set=proposer.voter_set,
                rig=self._rig,
                numbers=self._number,
                seen=self._writes.seen,
            )
            for number, voter, call in survey.calls:
                self._surveys[number] = survey
                actions.append(CallVoter(number=number, voter=voter, call=call, limit_us=PHASE_LIMIT_US))

    def _read_alone(self, now: int, proposer: Proposer, key: str) -> None:
        self._operations += 1
        proposer.read(now, operation=self._operations, key=key, limit_us=OPERATION_LIMIT_US)

    def _read_what_is_left(self, now: int, survey: BatchRead) -> None:
        """What the voters did not agree upon when enough were heard, and the others had their time."""
        if survey.over(now) and self._proposer is not None:
            for key in survey.left:
                self._read_alone(now, self._proposer, key)
            survey.left.clear()

    def _tell_agreed(self, now: int, proposer: Proposer, events: list[Event]) -> None:
        agreed, self._agreed = self._agreed, []
        for key, ballot, value in agreed:
            proposer.learned(key, ballot)
            self._operations += 1
            stored = self._codec.decode(value) if value is not None else None
            settlement = Settlement(
                operation=self._operations, key=key, result=Result.DONE, stored=stored, ballot=ballot
            )
            self._settle(now, settlement, events)

    def next_wake(self) -> int | None:
        """When a Tick has something to do."""
        if self._proposer is None:
            return self._next_hello_us
        if not self._surveys:
            return self._proposer.next_wake()
        wakes = [self._proposer.next_wake(), *(survey.ends_us for survey in self._surveys.values() if survey.left)]
        return min((wake for wake in wakes if wake is not None), default=None)

    # Who the voters are

    def _hello_if_due(self, now: int, actions: list[Action]) -> None:
        if now < self._next_hello_us:
            return
        self._next_hello_us = now + HELLO_INTERVAL_US
        for voter in self._voters:
            number = self._number()
            self._hellos[number] = voter
            call = Hello(rig=self._rig, voter=voter, birth=f"{self._identity}.{number}")
            actions.append(CallVoter(number=number, voter=voter, call=call, limit_us=HELLO_INTERVAL_US))

    def _heard(self, voter: str, told: HelloAnswer) -> None:
        if told.voter == voter and told.rig == self._rig:
            self._told[voter] = told

    def _become_known(self, now: int, events: list[Event], actions: list[Action]) -> None:
        """Adopt the newest set that any voter tells, once a majority of its members has answered, each under the
        incarnation that the set names; those that have an older set are raised when they refuse the first call.
        """
        sets = [told.voter_set for told in self._told.values() if told.voter_set is not None]
        if not sets:
            return
        newest = max(sets, key=lambda voter_set: voter_set.version)
        present = [
            name
            for name, told in self._told.items()
            if newest.has(name, told.incarnation) and not told.behind
        ]
        if len(present) < newest.majority:
            return
        self._proposer = Proposer(
            identity=self._identity,
            rig=self._rig,
            voter_set=newest,
            codec=self._codec,
            jitter=self._jitter,
            numbers=self._number,
            writes=self._writes,
        )
        self._tell_set(newest, events, actions)
        waiting, self._waiting = self._waiting, []
        for wish in waiting:
            self.ask(now, wish)

    @staticmethod
    def _tell_set(voter_set: VoterSet, events: list[Event], actions: list[Action]) -> None:
        events.append(VotersKnown(voter_set=voter_set))
        message = f"voter set {voter_set.version}: {', '.join(sorted(voter_set.members))}"
        fields = {"version": voter_set.version, "voters": len(voter_set.members)}
        actions.append(Log(component=COMPONENT, event="voters-known", message=message, fields=fields))

    def _heard_of_set(self, now: int, proposer: Proposer, refused: Refused) -> None:
        """A refusal tells which set the voter has: adopt a newer one, tell a member that has an older one."""
        theirs, ours = refused.voter_set, proposer.voter_set
        if theirs is None or refused.of.rig != self._rig:
            return
        voter, incarnation = refused.of.voter, refused.of.incarnation
        if theirs.version > ours.version:
            self._adopt(now, proposer, theirs)
        elif theirs.version < ours.version and ours.has(voter, incarnation) and voter not in self._raises.values():
            number = self._number()
            self._raises[number] = voter
            to = Address(rig=self._rig, voter=voter, incarnation=incarnation, set_version=ours.version)
            call = Raise(to=to, members=ours.members)
            self._calls.append(CallVoter(number=number, voter=voter, call=call, limit_us=PHASE_LIMIT_US))

    def _adopt(self, now: int, proposer: Proposer, voter_set: VoterSet) -> None:
        if voter_set.version > proposer.voter_set.version:
            proposer.adopt(now, voter_set)
            # Under the new set each is asked anew, by itself.
            surveys, self._surveys = list(dict.fromkeys(self._surveys.values())), {}
            for key in [key for survey in surveys for key in survey.left]:
                self._read_alone(now, proposer, key)
            self._adopted.append(voter_set)

    def _forget_call(self, number: int) -> None:
        self._hellos.pop(number, None)
        self._raises.pop(number, None)

    # Registers

    def _noticed(self, now: int, event: RegisterNoticed) -> None:
        """Everybody reads the cluster register at once. Who needs a group's is for the Failover Manager to say."""
        if event.ballot <= self.seen_ballot(event.key):
            return
        if event.key in self._reading:
            newest = self._noticed_while_reading.get(event.key, NO_BALLOT)
            self._noticed_while_reading[event.key] = max(newest, event.ballot)
        elif event.key == CLUSTER_KEY:
            self._read(now, event.key)

    def _read(self, now: int, key: str) -> None:
        if self._proposer is None or key in self._reading:
            return
        self._reading.add(key)
        if key not in self._doubtful:
            self._to_read.append(key)
            return
        self._operations += 1
        self._identities.add(self._operations)
        self._proposer.read(
            now, operation=self._operations, key=key, limit_us=OPERATION_LIMIT_US, identity=True
        )

    def _settle(self, now: int, settlement: Settlement, events: list[Event]) -> None:
        wish = self._wishes.pop(settlement.operation, None)
        if wish is None:
            self._reading.discard(settlement.key)
        known = settlement.result in (Result.DONE, Result.REFUSED)
        doubtful = self._note_doubt(settlement, plain_read=wish is None)
        held = self._held.setdefault(settlement.key, [])
        if wish is not None:
            settled = ChangeSettled(id=wish.id, key=wish.key, result=settlement.result, reason=settlement.reason)
            (held if known else events).append(settled)
        if known and not doubtful and settlement.ballot >= self.seen_ballot(settlement.key):
            self._seen[settlement.key] = settlement.ballot
            stored = settlement.stored
            events.append(
                RegisterSeen(
                    key=settlement.key,
                    record=stored.record if stored else None,
                    version=stored.version if stored else 0,
                    ballot=settlement.ballot,
                )
            )
        if not doubtful:
            events += held
            held.clear()
        noticed = self._noticed_while_reading.pop(settlement.key, NO_BALLOT) if wish is None else NO_BALLOT
        once_more = wish is None and settlement.key in self._once_more
        if wish is None:
            self._once_more.discard(settlement.key)
        if not known or doubtful or once_more or noticed > self.seen_ballot(settlement.key):
            self._read(now, settlement.key)

    def _note_doubt(self, settlement: Settlement, *, plain_read: bool) -> bool:
        """Whether a change whose fate nobody knows may still overtake what this settlement shows.

        Only what was accepted by a majority under a later ballot ends the doubt: a change that was made, or an identity
        change. A read that was asked before and a refusal write nothing, so they prove nothing.
        """
        key = settlement.key
        identity = settlement.operation in self._identities
        self._identities.discard(settlement.operation)
        if settlement.result is Result.UNKNOWN:
            self._doubtful.add(key)
        elif settlement.result is Result.DONE and (identity or not plain_read):
            self._doubtful.discard(key)
        elif self._may_be_left_over(settlement):
            self._doubtful.add(key)
        return key in self._doubtful

    def _may_be_left_over(self, settlement: Settlement) -> bool:
        """The first look at what this node owns, by which changes of the managers before these are not settled."""
        stored = settlement.stored
        return (
            stored is not None and stored.owner == self._node and self.seen_ballot(settlement.key) == NO_BALLOT
        )
