"""Node Manager: this node's beats and lease, the others' leases, and what PID 1 is told.

One call per voter and beat renews the own lease and brings the others' leases and notices of changed registers. A
renewal counts only if the same answer shows no newer cluster register than the one in which this node has read
itself Up: a majority of such renewals cannot exist once a majority has accepted that the session is Down (safety
review, finding 12).
"""

from collections.abc import Callable

from harness.cluster_service.core.messages import (
    Action,
    CallVoter,
    Event,
    PetWatchdog,
    RegisterNoticed,
    RegisterSeen,
    VoterAnswered,
    VoterFailed,
    VotersKnown,
)
from harness.cluster_service.core.takeover_delay import NEVER_US
from harness.cluster_service.membership.lease import LeaseView
from harness.cluster_service.membership.sharding import ShardAssignment
from harness.database.protocol import Address, Ballot, Beat, BeatAnswer, RefusalReason, Refused, WriteCounts
from harness.database.subscription import NOTHING
from harness.model.records import ClusterRecord, SessionState
from harness.model.register_keys import CLUSTER_KEY
from harness.model.session import Session
from harness.model.topology import SECOND_US, Settings
from harness.model.voter_set import VoterSet

__all__ = ["BOOT_GRACE_US", "NodeManager"]

BOOT_GRACE_US = 60 * SECOND_US
"""How long PID 1 waits for a service that is alive but has no lease; it pets with every beat, so only a dead one
uses this up.
"""

EXTRA_BEAT_US = 50_000
"""The least time between two beats, when something makes an extra one worth while."""

RECOVERY_US = 10 * SECOND_US
"""How long a lost session makes every beat an extra one: a survivor learns of fence and claim at once and not a beat
later. An extra beat waits until a majority has answered the one before: where answers take longer than that, more beats
would only make them slower.
"""


class NodeManager:
    """Beats, and what they show. `seen` gives the ballot under which a register was read last, `to_be_read` that of the
    newest notice of it which somebody keeps in mind until it is; none while it is being read, for that may show what
    was there before.
    """

    def __init__(
        self,
        *,
        rig: str,
        session: Session,
        settings: Settings,
        seen: Callable[[str], Ballot],
        to_be_read: Callable[[str], Ballot],
        numbers: Callable[[], int],
        writes: WriteCounts,
        watch: ShardAssignment,
    ) -> None:
        self._writes = writes
        self._watch = watch
        self._rig = rig
        self._session = session
        self._name = str(session)
        self._addresses: dict[str, Address] = {}
        self._settings = settings
        self._seen = seen
        self._to_be_read = to_be_read
        self._number = numbers
        self._voter_set: VoterSet | None = None
        self._leases: LeaseView | None = None
        self._up = False
        self._peers: tuple[str, ...] = ()
        self._fence_pending = False
        self._recovery_since_us: int | None = None
        self._last_beat_us = -EXTRA_BEAT_US
        self._next_beat_us = 0
        self._beats: dict[int, tuple[str, int, str]] = {}
        self._held_back = False
        self._since: dict[tuple[str, str], int] = {}
        self._said: dict[str, Beat] = {}
        self._petted_us = 0
        self._due: int | None = None
        self._expiries: dict[str, int | None] = {}
        self._first_expiry_us = 0
        self._without_witnesses = False
        self._breaks = 0
        self.noticed: list[RegisterNoticed] = []

    def lease_end_us(self) -> int | None:
        """The end of the own lease; None while there is none."""
        return self._leases.end_us if self._leases is not None else None

    def lease_live(self, now: int) -> bool:
        """Whether this node holds a lease right now."""
        end = self.lease_end_us()
        return end is not None and now < end

    def lapsed(self, now: int) -> bool:
        """Whether there was a lease and it has ended."""
        end = self.lease_end_us()
        return end is not None and now >= end

    def may_judge(self, now: int) -> bool:
        """Whether this node may call other sessions lost."""
        return self._leases is not None and self._leases.may_judge(now)

    def expired(self, now: int, session: Session) -> bool:
        """Whether a majority of unbroken witnesses has seen no renewal of that session for a whole lease."""
        if self._leases is None:
            return False
        name = str(session)
        self._due_us()  # reckons when each peer's lease can be seen to end, and that is mostly ahead
        soonest = self._expiries.get(name, 0)
        return soonest is not None and now >= soonest and self._leases.expired(now, name)

    def all_alive(self, now: int) -> bool:
        """Whether no peer's lease can be seen to have ended yet. Mostly so: then nothing is to be asked of each."""
        self._due_us()
        return now < self._first_expiry_us

    def handle(self, now: int, event: Event) -> list[Action]:
        """Take a fact in, send the beats that are due."""
        actions: list[Action] = []
        if isinstance(event, VotersKnown) or (isinstance(event, RegisterSeen) and event.key == CLUSTER_KEY):
            self._due, self._first_expiry_us = None, 0
        match event:
            case VotersKnown():
                self._voter_set = event.voter_set
                self._addresses = {
                    name: Address(rig=self._rig, voter=name, incarnation=life, set_version=event.voter_set.version)
                    for name, life in event.voter_set.members.items()
                }
                self._leases = LeaseView(
                    voter_set=event.voter_set, lease_us=self._settings.lease_us, before=self._leases
                )
                self._leases.expect(now, self._peers)
                self._next_beat_us = now
            case VoterAnswered(reply=BeatAnswer() as answer) if event.number in self._beats:
                self._answered(now, event, answer)
                actions += self._pet(now)
            case VoterAnswered(reply=Refused(why=RefusalReason.SET_VERSION)) if event.number in self._beats:
                # It lives, and has another set: one side is about to learn of the other's, and then it counts again.
                del self._beats[event.number]
                self._next_beat_us = now
                self._due = None
            case VoterAnswered() | VoterFailed():
                beat = self._beats.pop(event.number, None)
                if beat is not None and self._leases is not None:
                    self._leases.failed(beat[0])
            case RegisterSeen(key="cluster", record=ClusterRecord() as record):
                self._watch.see(record)
                self._learn_peers(now, record)
            case _:
                pass
        self._beat_settled()
        if self._voter_set is not None and now >= self._due_us() and now >= self._due_us(anew_at=now):
            actions += self._beat(now, self._voter_set)
            actions += self._pet(now)
        return actions

    def renewed(self, now: int, event: VoterAnswered, answer: BeatAnswer) -> list[Action] | None:
        """Take in an answer to a beat, no other beat being due, that says only that a session which is Up has renewed:
        it moves the end of the lease, and concerns nobody else. None for any other, of which nothing is taken in.
        """
        news = (
            event.number not in self._beats
            or not self._up
            or answer.changed
            or answer.session != self._name
            or answer.of != self._addresses.get(event.voter)
            or answer.cluster > self._seen(CLUSTER_KEY)
        )
        if news:
            return None
        _, sent_us, interest = self._beats.pop(event.number)
        self._renew(now, event, answer, sent_us, interest, counts=True)
        self._beat_settled()
        return self._pet(now)

    def next_wake(self) -> int | None:
        """When the next beat is due, or the lease ends."""
        if self._voter_set is None:
            return None
        end, due = self.lease_end_us(), self._due_us()
        return due if end is None or due < end else end

    def _beat_settled(self) -> None:
        """A voter has answered a beat or failed to: the extra beat that waits for it may be due."""
        if self._held_back and self._last_beat_answered():
            self._held_back, self._due = False, None

    def _due_us(self, *, anew_at: int | None = None) -> int:
        """When the next beat is due. Reckoned at each beat and when it seems due: what voters say in between can only
        put it off, for a witness counts only after a whole lease, and that is longer than a beat.
        """
        if anew_at is not None or self._due is None:
            self._due = self._reckon_due_us(self._last_beat_us if anew_at is None else anew_at)
        return self._due

    def _reckon_due_us(self, now: int) -> int:
        self._reckon_expiries(now)
        due = self._next_beat_us
        lost = self._fence_pending
        if self._first_expiry_us > self._last_beat_us:
            due = min(due, self._first_expiry_us)
        else:
            lost = True
            ahead = [at for at in self._expiries.values() if at is not None and at > self._last_beat_us]
            due = min([due, *ahead])
        extra = self._last_beat_us + EXTRA_BEAT_US
        if not lost:
            self._recovery_since_us = None
        elif self._recovery_since_us is None:
            self._recovery_since_us = self._last_beat_us
        if lost and self._recovery_since_us is not None and extra < self._recovery_since_us + RECOVERY_US:
            self._held_back = now > self._last_beat_us and not self._last_beat_answered()
            if not self._held_back:
                return extra
        return max(due, extra)

    def _last_beat_answered(self) -> bool:
        """Whether a majority has answered the last beat or failed to."""
        assert self._voter_set is not None
        open_calls = sum(sent_us == self._last_beat_us for _, sent_us, _ in self._beats.values())
        return len(self._voter_set.members) - open_calls >= self._voter_set.majority

    def _reckon_expiries(self, now: int) -> None:
        """When each peer's lease can be seen to end. A renewal only puts that off, so all are reckoned anew when others
        are peers or witnesses, and as long as there are too few; else those that would come before the next beat.
        """
        leases, soon_us = self._leases, now + self._settings.beat_us
        breaks = leases.breaks if leases is not None else 0
        anew = breaks != self._breaks or self._without_witnesses or not self._first_expiry_us
        if not anew and soon_us < self._first_expiry_us:
            return
        if leases is None or anew:
            self._expiries = {peer: leases.expires_us(peer) for peer in self._peers} if leases is not None else {}
        else:
            near = [peer for peer, at in self._expiries.items() if at is not None and at <= soon_us]
            self._expiries.update((peer, leases.expires_us(peer)) for peer in near)
        self._breaks = breaks
        known = [at for at in self._expiries.values() if at is not None]
        self._without_witnesses = len(known) < len(self._expiries)
        self._first_expiry_us = min(known, default=NEVER_US)

    def _beat(self, now: int, voter_set: VoterSet) -> list[Action]:
        self._last_beat_us = now
        self._due = None
        self._next_beat_us = now + self._settings.beat_us
        actions: list[Action] = []
        limit_us = self._settings.lease_us // 2
        for voter, incarnation in voter_set.members.items():
            number = self._number()
            self._beats[number] = (voter, now, self._watch.interest)
            call = self._beat_to(voter, incarnation)
            actions.append(CallVoter(number=number, voter=voter, call=call, limit_us=limit_us))
        return actions

    def _beat_to(self, voter: str, incarnation: str) -> Beat:
        """What is said to that voter: mostly what was said last."""
        to, last = self._addresses[voter], self._said.get(voter)
        since, seen = self._since.get((voter, incarnation), 0), self._writes.seen(voter, incarnation)
        interest = self._watch.interest
        if last is None or last.to is not to or (last.since, last.seen, last.interest) != (since, seen, interest):
            last = self._said[voter] = Beat(to=to, session=self._name, since=since, seen=seen, interest=interest)
        return last

    def _answered(self, now: int, event: VoterAnswered, answer: BeatAnswer) -> None:
        voter, sent_us, interest = self._beats.pop(event.number)
        assert self._leases is not None
        assert self._voter_set is not None
        if answer.of.set_version < self._voter_set.version or voter not in self._voter_set.members:
            return  # sent under the set before: it says nothing of this one
        if answer.of != self._addresses[voter] or answer.session != self._name:
            self._leases.failed(voter)
            return
        cluster = self._seen(CLUSTER_KEY)
        self._renew(now, event, answer, sent_us, interest, counts=self._up and answer.cluster <= cluster)
        for notice in answer.changed:
            # Each voter tells of it, and once is enough while it is still to be read, and when what a read showed is as
            # new. A read after the first notice may show what was there before, when the other voters had not accepted
            # it yet: then the next notice counts again.
            if notice.ballot > self._seen(notice.key) and notice.ballot > self._to_be_read(notice.key):
                self.noticed.append(RegisterNoticed(key=notice.key, ballot=notice.ballot, owner=notice.owner))
        if answer.cluster > cluster:
            self.noticed.append(RegisterNoticed(key=CLUSTER_KEY, ballot=answer.cluster))

    def _renew(
        self, now: int, event: VoterAnswered, answer: BeatAnswer, sent_us: int, interest: str, *, counts: bool
    ) -> None:
        """The voter has answered under the set of now, what was sent then. What it told of is all that was accepted
        before only for who still has that interest; of the rest it is asked again.
        """
        assert self._leases is not None
        self._leases.answered(now, event.voter, sent_us, event.connection, answer, counts)
        life = event.voter, answer.of.incarnation
        if self._since.get(life) != answer.revision:
            self._writes.heard(answer)
            if interest == self._watch.interest != NOTHING:
                self._since[life] = answer.revision

    def _learn_peers(self, now: int, record: ClusterRecord) -> None:
        self._up = record.is_up(self._session)
        self._peers = tuple(
            str(entry.session)
            for entry in record.nodes
            if entry.state is SessionState.UP and entry.session is not None and entry.session != self._session
        )
        if self._leases is not None:
            self._leases.expect(now, self._peers)
        self._fence_pending = any(
            entry.state is SessionState.DOWN and not entry.fenced for entry in record.nodes
        )
        # The renewals that showed this newer register did not count: renew again at once.
        self._next_beat_us = min(self._next_beat_us, now)

    def _pet(self, now: int) -> list[Action]:
        end = self.lease_end_us()
        if end is None:
            return [PetWatchdog(guests_end_us=0, node_ends_us=now + BOOT_GRACE_US)]
        if end <= self._petted_us:
            return []
        self._petted_us = end
        return [PetWatchdog(guests_end_us=end, node_ends_us=end + self._settings.grace_us)]
