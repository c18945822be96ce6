"""Database Manager: the only one that knows rounds and ballots.

It learns who the voters are, carries out changes and reads through the proposer, and keeps local copies. A copy is
for display and as a hint; a change always applies to the record read under its own ballot. Facts leave it as events:
VotersKnown, RegisterSeen, Settled.
"""

from collections.abc import Callable

from harness.cluster_service.messages import (
    Action,
    CallVoter,
    ChangeRegister,
    Event,
    Log,
    Refresh,
    RegisterNoticed,
    RegisterSeen,
    Settled,
    Tick,
    VoterAnswered,
    VoterFailed,
    VotersKnown,
)
from harness.database.proposer import PHASE_LIMIT_US, Proposer, Result, Settlement
from harness.database.protocol import NO_BALLOT, Ballot, Hello, HelloAnswer
from harness.database.register import Codec

__all__ = ["COMPONENT", "OPERATION_LIMIT_US", "DatabaseManager"]

COMPONENT = "database-manager"

OPERATION_LIMIT_US = 4_000_000
"""How long a change or read is tried. Longer than a lease: a majority that is gone for that long ends the managers
first.
"""

HELLO_INTERVAL_US = 300_000
"""Between two rounds of asking the voters who they are, while no majority of a set has answered."""


class DatabaseManager:
    """One generation's access to the registers. `identity` must never have been used before, by anybody."""

    def __init__(
        self,
        *,
        identity: str,
        rig: str,
        voters: tuple[str, ...],
        codec: Codec,
        jitter: Callable[[], float],
        numbers: Callable[[], int],
    ) -> None:
        self._identity = identity
        self._rig = rig
        self._voters = voters
        self._codec = codec
        self._jitter = jitter
        self._number = numbers
        self._proposer: Proposer | None = None
        self._next_hello_us = 0
        self._hellos: dict[int, str] = {}
        self._told: dict[str, HelloAnswer] = {}
        self._operations = 0
        self._changes: dict[int, ChangeRegister] = {}
        self._waiting: list[ChangeRegister | Refresh] = []
        self._seen: dict[str, Ballot] = {}
        self._reading: set[str] = set()
        self._noticed_while_reading: set[str] = set()

    def seen_ballot(self, key: str) -> Ballot:
        """The ballot of the newest committed content of that register that this manager has told."""
        return self._seen.get(key, NO_BALLOT)

    def ask(self, now: int, wish: ChangeRegister | Refresh) -> None:
        """Start a change or a read. Before the voters are known it waits."""
        if self._proposer is None:
            self._waiting.append(wish)
        elif isinstance(wish, Refresh):
            self._read(now, wish.key)
        else:
            self._operations += 1
            self._changes[self._operations] = wish
            self._proposer.change(
                now,
                operation=self._operations,
                key=wish.key,
                change=wish.change,
                limit_us=OPERATION_LIMIT_US,
            )

    def handle(self, now: int, event: Event) -> None:
        """Take a fact in. What comes of it is collected with `collect`."""
        match event:
            case VoterAnswered(reply=HelloAnswer() as told) if event.number in self._hellos:
                self._heard(self._hellos.pop(event.number), told)
            case VoterAnswered():
                self._hellos.pop(event.number, None)
                if self._proposer is not None:
                    self._proposer.answered(now, event.number, event.reply)
            case VoterFailed():
                self._hellos.pop(event.number, None)
                if self._proposer is not None:
                    self._proposer.failed(now, event.number, event.voter)
            case RegisterNoticed():
                if event.ballot > self.seen_ballot(event.key):
                    if event.key in self._reading:
                        self._noticed_while_reading.add(event.key)
                    self._read(now, event.key)
            case Tick():
                if self._proposer is not None:
                    self._proposer.tick(now)
            case _:
                pass

    def collect(self, now: int) -> tuple[list[Event], list[Action]]:
        """What has happened since the last call: facts for the other managers, and calls for the voters."""
        events: list[Event] = []
        actions: list[Action] = []
        if self._proposer is None:
            self._hello_if_due(now, actions)
            self._become_known(now, events, actions)
        if self._proposer is not None:
            settlements, self._proposer.settlements = self._proposer.settlements, []
            for settlement in settlements:
                self._settle(now, settlement, events)
            sends, self._proposer.sends = self._proposer.sends, []
            for send in sends:
                actions.append(
                    CallVoter(number=send.number, voter=send.voter, call=send.call, limit_us=PHASE_LIMIT_US)
                )
        return events, actions

    def next_wake(self) -> int | None:
        """When a Tick has something to do."""
        return self._next_hello_us if self._proposer is None else self._proposer.next_wake()

    # Who the voters are

    def _hello_if_due(self, now: int, actions: list[Action]) -> None:
        if now < self._next_hello_us:
            return
        self._next_hello_us = now + HELLO_INTERVAL_US
        for voter in self._voters:
            number = self._number()
            self._hellos[number] = voter
            call = Hello(rig=self._rig, voter=voter)
            actions.append(CallVoter(number=number, voter=voter, call=call, limit_us=HELLO_INTERVAL_US))

    def _heard(self, voter: str, told: HelloAnswer) -> None:
        if told.voter == voter and told.rig == self._rig:
            self._told[voter] = told

    def _become_known(self, now: int, events: list[Event], actions: list[Action]) -> None:
        """Adopt the newest set whose majority of members, under the incarnations it names, says so itself."""
        sets = [told.voter_set for told in self._told.values() if told.voter_set is not None]
        for candidate in sorted(sets, key=lambda voter_set: -voter_set.version):
            sayers = [
                name
                for name, incarnation in candidate.members.items()
                if (told := self._told.get(name)) is not None
                and told.incarnation == incarnation
                and told.voter_set == candidate
            ]
            if len(sayers) < candidate.majority:
                continue
            self._proposer = Proposer(
                identity=self._identity,
                rig=self._rig,
                voter_set=candidate,
                codec=self._codec,
                jitter=self._jitter,
                numbers=self._number,
            )
            events.append(VotersKnown(voter_set=candidate))
            message = f"voter set {candidate.version}: {', '.join(sorted(candidate.members))}"
            actions.append(Log(component=COMPONENT, event="voters-known", message=message))
            waiting, self._waiting = self._waiting, []
            for wish in waiting:
                self.ask(now, wish)
            return

    # Registers

    def _read(self, now: int, key: str, *, identity: bool = False) -> None:
        if self._proposer is None or key in self._reading:
            return
        self._reading.add(key)
        self._operations += 1
        self._proposer.read(
            now, operation=self._operations, key=key, limit_us=OPERATION_LIMIT_US, identity=identity
        )

    def _settle(self, now: int, settlement: Settlement, events: list[Event]) -> None:
        change = self._changes.pop(settlement.operation, None)
        if change is None:
            self._reading.discard(settlement.key)
        known = settlement.result in (Result.DONE, Result.REFUSED)
        if known and settlement.ballot >= self.seen_ballot(settlement.key):
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
        if change is not None:
            events.append(
                Settled(id=change.id, key=change.key, result=settlement.result, reason=settlement.reason)
            )
        again = change is None and settlement.key in self._noticed_while_reading
        if again:
            self._noticed_while_reading.discard(settlement.key)
        if again or not known:
            # Unknown is settled by an identity change, never by a majority read (safety review, finding 9).
            self._read(now, settlement.key, identity=settlement.result is Result.UNKNOWN)
