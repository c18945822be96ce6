"""Voter Set Manager: keeps the set of voters in order. Belongs to the quorum; logs under the Membership Manager's name.

One voter at a time, and each change recorded in the cluster register before any voter hears of it, so that every Up
node can carry it on. Nothing is remembered but what the voters say; the stages are derived anew after each fact:

| the cluster register shows | and | then |
|---|---|---|
| a pending set | | carry it through (`VoterSetChange`), then SettleVoterSet |
| no pending set | a member came back empty, as another, or behind its own count | ProposeVoterSet without it |
| no pending set | a member's node is recorded Down for ten seconds | the same, while more than three are left |
| no pending set | a voter that should vote is there, empty | ProposeVoterSet with it, under its birth name |
| no pending set | it is there with the data of a life that was removed | Retire it: then it is empty |

A lost voter is removed only while a majority of the set, itself not counted, answers this node, and a set never shrinks
below two. An absent one (its node is Down) is removed down to three only: of three voters two must answer whether the
third is in the set or not, and while it is, it can vote the moment it is back.
"""

from collections.abc import Callable

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import (
    Action,
    AdoptVoters,
    CallVoter,
    ChangeRegister,
    ChangeSettled,
    Event,
    Log,
    PowerOnNode,
    RegisterSeen,
    RewriteRegister,
    VoterAnswered,
    VoterFailed,
    VotersKnown,
)
from harness.cluster_service.core.resync import ResyncTimer
from harness.cluster_service.core.takeover_delay import TakeoverDelays, earliest_after
from harness.cluster_service.membership.membership import COMPONENT, MembershipManager
from harness.cluster_service.membership.voter_health import VoterWatch
from harness.database.proposer import PHASE_LIMIT_US, Result
from harness.database.protocol import Address, Call, Hello, HelloAnswer, Retire
from harness.database.voter_set_change import VoterSetChange
from harness.model.changes import ProposeVoterSet, SettleVoterSet
from harness.model.records import ClusterRecord, SessionState
from harness.model.register_keys import CLUSTER_KEY, group_key
from harness.model.session import Session
from harness.model.topology import SECOND_US, Settings
from harness.model.voter_set import MIN_VOTERS, VoterSet

__all__ = ["ABSENT_US", "MIN_WITH_ABSENT", "VoterSetManager"]

ABSENT_US = 10 * SECOND_US
"""How long a node must have been Down before its vote is taken out: recovery has long ended then."""

SILENT_US = 30 * SECOND_US
"""The same for a witness, of which no membership is recorded."""

MIN_WITH_ABSENT = 3
"""Removing an absent voter from a set of this size gains nothing, and costs its vote when it is back."""

LOOK_US = SECOND_US
"""Between two looks at a voter that should vote and is not in the set."""

REWRITES_AT_ONCE = 8
"""Registers that are rewritten at the same time: the owners' own changes must get through between them."""


def _tells_of_the_set(event: Event) -> bool:
    """Whether a fact may change what is to be done; of a voter's own news the watch tells."""
    return isinstance(event, (VotersKnown, ChangeSettled)) or (
        isinstance(event, RegisterSeen) and event.key == CLUSTER_KEY
    )


class VoterSetManager:
    """Proposes changes of the set, one at a time, and carries them through. `watch` is shared for display."""

    def __init__(
        self,
        *,
        rig: str,
        session: Session,
        settings: Settings,
        membership: MembershipManager,
        ids: Ids,
        numbers: Callable[[], int],
        identity: str,
    ) -> None:
        self.watch = VoterWatch(patience_us=settings.lease_us)
        self._rig = rig
        self._session = session
        self._lease_us = settings.lease_us
        self._membership = membership
        self._ids = ids
        self._number = numbers
        self._identity = identity
        self._turns = TakeoverDelays(lease_us=4 * settings.lease_us)
        self._adopted = 0
        self._change: VoterSetChange | None = None
        self._rewrites: dict[int, str] = {}
        self._writing: int | None = None
        self._writing_not_before_us = 0
        self._calls: dict[int, str] = {}
        self._hellos: dict[str, HelloAnswer] = {}
        self._look_us = 0
        self._looks = 0
        self._down_since_us: dict[str, int] = {}
        self._power_on_us = 0
        self._told_lost: set[tuple[str, str]] = set()
        self._wake_us: int | None = None
        self._looking = ResyncTimer()
        self._changes_seen = 0
        self._asked_has_told = False

    def handle(self, now: int, event: Event) -> list[Action]:
        """Take a fact in; do what is next for the set of voters."""
        actions = self.watch.handle(now, event)
        match event:
            case VotersKnown():
                self._adopted = event.voter_set.version
                self.watch.expect(now, event.voter_set.members)
            case VoterAnswered():
                self._answered(event)
            case VoterFailed():
                self._calls.pop(event.number, None)
                if self._change is not None:
                    self._change.failed(event.number)
            case RegisterSeen(record=ClusterRecord() as seen):
                self._see_cluster(now, seen)
            case ChangeSettled():
                self._settled(now, event)
            case _:
                pass
        record = self._membership.cluster
        may_act = self._membership.may_act(now)
        pending = record is not None and record.pending_set is not None
        routine = not self.has_news and not _tells_of_the_set(event)
        if not pending and not self._looking.due(now, may_act=may_act, routine=routine):
            return actions
        self._wake_us = None
        self._changes_seen, self._asked_has_told = self.watch.changes, False
        steps: list[Action] = []
        if may_act and record is not None:
            steps = self._next_step(now, record)
        else:
            self._change = None
        wakes = [self._wake_us, self._turns.next_wake(now, "voter-set")]
        self._looking.done(now, may_act=may_act, acted=bool(steps), wake_us=earliest_after(now, wakes))
        return actions + steps

    def _next_step(self, now: int, record: ClusterRecord) -> list[Action]:
        if record.voter_set is not None and record.pending_set is not None:
            return self._carry_through(now, record, record.voter_set, record.pending_set)
        self._change = None
        if record.voter_set is None:
            return []
        return self._decide(now, record, record.voter_set) + self._wake_witness(now, record)

    def next_wake(self, now: int) -> int | None:
        """When a call, a look or a turn is due."""
        return earliest_after(now, [self._looking.wake_us])

    @property
    def has_news(self) -> bool:
        """Whether since the last look a voter was found to be another, or has told what it was asked."""
        return self._asked_has_told or self._changes_seen != self.watch.changes

    @property
    def rests_until_us(self) -> int:
        """Until when no routine fact is looked at; 0 while the set is being changed, when each may be the one that was
        waited for.
        """
        record = self._membership.cluster
        return 0 if record is not None and record.pending_set is not None else self._looking.rests_until_us

    # Facts

    def _answered(self, event: VoterAnswered) -> None:
        if self._change is not None and self._change.answered(event.number, event.reply):
            return
        voter = self._calls.pop(event.number, None)
        if voter is None:
            return
        self._hellos.pop(voter, None)
        self._asked_has_told = True
        if isinstance(event.reply, HelloAnswer) and event.reply.voter == voter and event.reply.rig == self._rig:
            self._hellos[voter] = event.reply

    def _see_cluster(self, now: int, record: ClusterRecord) -> None:
        down = [str(entry.session) for entry in record.nodes if entry.state is SessionState.DOWN]
        self._down_since_us = {session: self._down_since_us.get(session, now) for session in down}
        self._hellos.clear()

    def _settled(self, now: int, event: ChangeSettled) -> None:
        key = self._rewrites.pop(event.id, None)
        if key is not None and event.result is Result.DONE and self._change is not None:
            self._change.rewritten(key)
        if event.id == self._writing:
            self._writing = None
            self._writing_not_before_us = now + self._lease_us // 4

    # Carrying a recorded change through

    def _carry_through(self, now: int, record: ClusterRecord, old: VoterSet, new: VoterSet) -> list[Action]:
        if not self._my_turn(now, f"carry {new.version}"):
            return []
        if self._change is None or self._change.new != new:
            keys = (CLUSTER_KEY, *(group_key(name) for name in record.groups))
            self._change = VoterSetChange(rig=self._rig, old=old, new=new, keys=keys, numbers=self._number)
            self._rewrites.clear()
        change = self._change
        actions: list[Action] = [
            CallVoter(number=send.number, voter=send.voter, call=send.call, limit_us=PHASE_LIMIT_US)
            for send in change.due(now)
        ]
        self._wake(change.next_wake(now))
        if change.raised and self._adopted < new.version:
            actions.append(AdoptVoters(new))
        if self._adopted >= new.version:
            actions += self._rewrite(change)
        if change.complete:
            told = f"voter set {new.version} is settled: {', '.join(sorted(new.members))}"
            actions += self._write(now, SettleVoterSet(version=new.version), "voter-set-settled", told)
        return actions

    def _rewrite(self, change: VoterSetChange) -> list[Action]:
        actions: list[Action] = []
        for key in change.unwritten:
            if len(self._rewrites) >= REWRITES_AT_ONCE:
                break
            if key not in self._rewrites.values():
                wish = RewriteRegister(id=self._ids.next(), key=key)
                self._rewrites[wish.id] = key
                actions.append(wish)
        return actions

    def _write(
        self, now: int, change: ProposeVoterSet | SettleVoterSet, event: str, message: str
    ) -> list[Action]:
        if self._writing is not None:
            return []
        if now < self._writing_not_before_us:
            self._wake(self._writing_not_before_us)
            return []
        self._writing = self._ids.next()
        return [
            ChangeRegister(id=self._writing, key=CLUSTER_KEY, change=change),
            Log(component=COMPONENT, event=event, message=message),
        ]

    # Deciding the next change

    def _decide(self, now: int, record: ClusterRecord, current: VoterSet) -> list[Action]:
        actions = self._tell_lost(current)
        answering = [name for name, life in current.members.items() if self.watch.answers(now, name, life)]
        if len(answering) < current.majority:
            return actions
        remove = self._to_remove(now, record, current, answering)
        if remove:
            if self._my_turn(now, f"remove {remove} from {current.version}"):
                why = self.watch.lost(remove, current.members[remove]) or "it stays away"
                proposal = ProposeVoterSet(voter_set=current.without(remove))
                actions += self._write(now, proposal, "voter-removed", f"removing voter {remove}: {why}")
            return actions
        if len(answering) == len(current.members):
            actions += self._add(now, record, current)
        return actions

    def _tell_lost(self, current: VoterSet) -> list[Action]:
        """The alarm, once for each life that was lost."""
        actions: list[Action] = []
        for name, life in current.members.items():
            why = self.watch.lost(name, life)
            if why and (name, life) not in self._told_lost:
                self._told_lost.add((name, life))
                message = f"voter {name} no longer votes: {why}"
                fields = {"voter": name, "incarnation": life}
                actions.append(Log(component=COMPONENT, event="voter-lost", message=message, fields=fields))
        return actions

    def _to_remove(self, now: int, record: ClusterRecord, current: VoterSet, answering: list[str]) -> str:
        for name, life in current.members.items():
            if self.watch.lost(name, life) and len(current.members) > MIN_VOTERS:
                return name
        if not record.settings.dynamic_quorum or len(current.members) <= MIN_WITH_ABSENT:
            return ""
        for name in current.members:
            since_us = self._absent_since_us(now, record, name)
            if name not in answering and since_us is not None:
                if now - since_us >= ABSENT_US:
                    return name
                self._wake(since_us + ABSENT_US)
        return ""

    def _absent_since_us(self, now: int, record: ClusterRecord, name: str) -> int | None:
        """Since when a vote's node is Down; a witness, of which none is recorded, since it is silent for long."""
        entry = record.node(name)
        if entry is not None:
            return self._down_since_us.get(str(entry.session)) if entry.state is SessionState.DOWN else None
        silent_us = self.watch.silent_for_us(now, name)
        return now - silent_us + SILENT_US - ABSENT_US if silent_us else None

    def _add(self, now: int, record: ClusterRecord, current: VoterSet) -> list[Action]:
        missing = []
        for name in record.votes:
            entry = record.node(name)
            if name not in current.members and (entry is None or entry.state is SessionState.UP):
                missing.append(name)
        if not missing or not self._my_turn(now, f"add to {current.version}"):
            return []
        for name in missing:
            told = self._hellos.get(name)
            if told is not None and told.birth and not told.incarnation:
                proposal = ProposeVoterSet(voter_set=current.plus(name, told.birth))
                return self._write(now, proposal, "voter-added", f"adding voter {name} as {told.birth}")
        return self._look(now, missing[self._looks % len(missing)], current)

    def _look(self, now: int, name: str, current: VoterSet) -> list[Action]:
        """Ask a voter that should vote who it is, each in its turn; one that still has the data of a removed life is
        told to forget it.
        """
        if now < self._look_us:
            self._wake(self._look_us)
            return []
        told = self._hellos.get(name)
        self._look_us = now + LOOK_US
        self._wake(self._look_us)
        number = self._number()
        birth = f"{self._identity}.{number}"
        call: Call = Hello(rig=self._rig, voter=name, birth=birth)
        if told is not None and told.incarnation and not current.has(name, told.incarnation):
            to = Address(rig=self._rig, voter=name, incarnation=told.incarnation, set_version=current.version)
            call = Retire(to=to, members=current.members, birth=birth)
        else:
            self._looks += 1
        self._calls[number] = name
        return [CallVoter(number=number, voter=name, call=call, limit_us=PHASE_LIMIT_US)]

    # Parts

    def _wake_witness(self, now: int, record: ClusterRecord) -> list[Action]:
        """A witness that is silent for long may be off, and nobody fences it: switch it on, unless it is held off."""
        off = []
        for name in record.votes:
            silent_us = self.watch.silent_for_us(now, name) if record.node(name) is None else 0
            if silent_us >= 2 * self._lease_us:
                off.append(name)
            elif silent_us:
                self._wake(now - silent_us + 2 * self._lease_us)
        if not off or self._membership.turn_of(now, without="") != 0:
            return []
        if now < self._power_on_us:
            self._wake(self._power_on_us)
            return []
        self._power_on_us = now + 4 * self._lease_us
        self._wake(self._power_on_us)
        return [PowerOnNode(name) for name in off]

    def _my_turn(self, now: int, subject: str) -> bool:
        self._turns.keep("voter-set", [subject])
        return self._turns.due(now, "voter-set", subject, self._membership.turn_of(now, without=""))

    def _wake(self, when_us: int) -> None:
        self._wake_us = when_us if self._wake_us is None else min(self._wake_us, when_us)
