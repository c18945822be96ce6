"""Failover Manager: the owner of each group; choosing who takes a group, and claiming it.

Recovery is a level, not an edge: after every fact it looks at all groups whose owner is not an Up session, and each
survivor ranks the claimants the same way; the k-th waits k times half a lease. A claim refuses unless the register
still holds the owner and epoch that are over.

| the group's owner | then |
|---|---|
| an Up session | nothing: the owner's Resource Control Manager acts |
| a Down session that is not fenced | wait for the fence |
| over (fenced, or replaced by a newer session) | claim, in turn |
| nobody yet | claim, in turn, once every member is Up or the cluster has waited long enough |

What is read: once the register of every group that this node watches (`circles`: in a small cluster all), and of every
group at all where this session may own some from the time before; after that only those that a notice shows to concern
this node (it is or becomes the owner, or the owner's node is not Up), so that a change costs reads at its owner and not
at every member. Other copies grow old, and once a second some of them are read again, together. That can delay nothing:
a notice names the owner's node, which serves to rank the claimants, and a claim refuses unless it is made on the record
of now.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import (
    Action,
    ChangeRegister,
    ChangeSettled,
    Event,
    Log,
    ReadRegister,
    RegisterNoticed,
    RegisterSeen,
)
from harness.cluster_service.core.takeover_delay import NEVER_US, TakeoverDelays, earliest_after
from harness.cluster_service.membership.membership import MembershipManager
from harness.cluster_service.membership.sharding import ShardAssignment
from harness.cluster_service.placement.ranking import claim_places, rank_claimants, refusals
from harness.database.proposer import Result
from harness.database.protocol import NO_BALLOT, Ballot
from harness.model.changes import Claim
from harness.model.records import ClusterRecord, GroupRecord, SessionState
from harness.model.register_keys import GROUP_PREFIX, group_key
from harness.model.session import Session
from harness.model.shard import UNSHARDED, shard_of
from harness.model.topology import SECOND_US, GroupSpec

__all__ = ["COMPONENT", "GROUP_WAIT_US", "FailoverManager"]

COMPONENT = "failover-manager"

GROUP_WAIT_US = 120 * SECOND_US
"""At cluster start, how long to wait for all members before the groups are placed on those that are there."""

GATHER_US = 3_000
GATHER_EACH_US = 10
"""The least time between two reckonings of who claims what, and what each orphan adds to it: facts rarely come alone,
and all orphans are weighed.
"""

LOOK_AGAIN_US = SECOND_US
MAX_RETRIES = 16
"""Between two reads of copies that have grown old and concern nobody, and how many are read together: what each node
pays at most, however many groups change.
"""


class FailoverManager:
    """Knows every group's register; claims what is orphaned."""

    def __init__(
        self,
        *,
        session: Session,
        membership: MembershipManager,
        ids: Ids,
        turns: TakeoverDelays,
        watch: ShardAssignment,
    ) -> None:
        self.groups: dict[str, GroupRecord] = {}
        self._watch = watch
        self._watched: frozenset[str] | None = frozenset()
        self._session = session
        self._membership = membership
        self._ids = ids
        self._turns = turns
        self._asked: set[str] = set()
        self._claims: dict[int, tuple[str, GroupRecord]] = {}
        self._down_us: dict[Session, int] = {}
        self._over_us: dict[Session, int] = {}
        self._ballots: dict[str, Ballot] = {}
        self._stale: dict[str, RegisterNoticed] = {}
        self._asked_for: dict[str, Ballot] = {}
        self._look_again_us = 0
        self._reckoned_us = -GATHER_US
        self._reckon_again = False
        self._untaken: dict[Session | None, dict[str, GroupRecord]] = {}
        self._filed: dict[str, Session | None] = {}
        self._owner_nodes: dict[str, str] = {}
        self._groups_owned: dict[str, Counter[str]] = {}
        self._orphans_weighed = 0
        self._living: frozenset[str] = frozenset()

    def owner_node(self, name: str) -> str:
        """The node that owns the group by the newest that was heard, a notice or the record; empty when nobody does."""
        if name in self._stale:
            return self._stale[name].owner
        record = self.groups.get(name)
        return record.owner.node if record is not None and record.owner is not None else ""

    def handle(self, now: int, event: Event) -> list[Action]:
        """Take a fact in; claim what it is this node's turn to claim."""
        actions: list[Action] = []
        match event:
            case RegisterSeen(record=GroupRecord()):
                self.seen(event)
            case RegisterSeen(record=ClusterRecord() as record):
                actions += self._ask(record)
                self._see_lost(now, record)
                self._living = frozenset(entry.name for entry in record.up_nodes())
                for name in self._stale:
                    self._file(name)
                actions += self._read_what_concerns(list(self._stale))
            case RegisterNoticed():
                actions += self.noticed(event)
            case ChangeSettled() if event.id in self._claims:
                actions += self._claim_ended(now, event)
            case _:
                pass
        actions += self._look_again(now)
        if now < self._reckoned_us + self._gather_us():
            self._reckon_again = True
            return actions
        self._reckoned_us, self._reckon_again = now, False
        return actions + self._claim_orphans(now)

    def next_wake(self, now: int) -> int | None:
        """When a turn to claim comes, or an old copy is due."""
        again_us = self._look_again_us if self._stale else None
        gathered_us = self._reckoned_us + self._gather_us() if self._reckon_again else None
        waits = self._untaken.get(None) or self._watch.awaits_others
        waited_us = self._waits_until_us if waits else None
        return earliest_after(now, [again_us, gathered_us, waited_us, self._turns.next_wake(now, "claim")])

    # What is known of the groups

    def keeps(self, name: str) -> bool:
        """Whether what is known here of that group is kept up: this node watches it or owns it."""
        if self._watch.watches(name):
            return True
        record = self.groups.get(name)
        return record is not None and (record.owner == self._session or shard_of(record.spec) == UNSHARDED)

    def watches_all(self) -> bool:
        """Whether this node watches every group."""
        return not self._watch.by_circle

    def may_come_to_own(self) -> bool:
        """Whether a notice names this node as the owner of a group whose register was not read since."""
        return any(notice.owner == self._session.node for notice in self._stale.values())

    def knows_its_own(self) -> bool:
        """Whether every register was read that may show this session as the owner."""
        return self._membership.cluster is not None and all(name in self.groups for name in self._asked)

    def groups_asked(self) -> int:
        """How many groups this node watches, those included that it owns or watched before."""
        return len(self._asked)

    def _ask(self, record: ClusterRecord) -> list[Action]:
        """Reads of what this node watches from now on, and has not until now."""
        if self._membership.was_up_before:
            self._watch.await_no_more()  # the cluster has been formed
        watched, before = self._watch.circles, self._watched
        self._watched = watched
        if watched is None or (not self._asked and self._membership.was_up_before):
            names = [name for name in record.groups if name not in self._asked]
        elif before is not None and watched - before:
            names = self._watch.names(record.groups, sorted(watched - before))
        else:
            return []
        self._asked.update(names)
        # What is being read may have been asked for before the voters were asked to tell of it.
        return [ReadRegister(group_key(name), anew=True) for name in names]

    def seen(self, event: RegisterSeen) -> None:
        """A group's register was read."""
        record, ballot = event.record, event.ballot
        assert isinstance(record, GroupRecord)
        name = record.spec.name
        self.groups[name] = record
        self._ballots[name] = ballot
        notice = self._stale.get(name)
        # What a minority has accepted may never be found by a read: that it was read after the notice is enough.
        if notice is not None and (notice.ballot <= ballot or self._asked_for.get(name) == notice.ballot):
            del self._stale[name]
            self._asked_for.pop(name, None)
        self._note_owner(name)

    def noticed_ballot(self, key: str) -> Ballot:
        """Of the newest notice of that register after which it was not read yet."""
        notice = self._stale.get(key.removeprefix(GROUP_PREFIX))
        return notice.ballot if notice is not None else NO_BALLOT

    def noticed(self, event: RegisterNoticed) -> list[Action]:
        """A register was accepted anew: read it if it concerns this node."""
        if not event.key.startswith(GROUP_PREFIX):
            return []
        name = event.key.removeprefix(GROUP_PREFIX)
        self._asked.add(name)
        notice = self._stale.get(name)
        if notice is not None and event.ballot <= notice.ballot:
            return []  # another voter's, and no newer
        if notice is not None or event.ballot > self._ballots.get(name, NO_BALLOT):
            self._stale[name] = event
            self._note_owner(name)
        return self._read_what_concerns([name])

    def _read_what_concerns(self, names: list[str]) -> list[Action]:
        """Reads of what this node owns or may have to claim, one for each notice."""
        actions: list[Action] = []
        for name in names:
            notice = self._stale.get(name)
            if notice is None or self._asked_for.get(name) == notice.ballot or not self._concerns(name, notice):
                continue
            self._asked_for[name] = notice.ballot
            actions.append(ReadRegister(group_key(name)))
        return actions

    def _concerns(self, name: str, notice: RegisterNoticed) -> bool:
        record = self.groups.get(name)
        if record is None or record.owner == self._session or notice.owner == self._session.node:
            return True
        return not self._lives(notice.owner)

    def _lives(self, node: str) -> bool:
        return node in self._living

    def _look_again(self, now: int) -> list[Action]:
        if not self._stale or now < self._look_again_us:
            return []
        self._look_again_us = now + LOOK_AGAIN_US
        oldest = list(islice(self._stale, MAX_RETRIES))
        for name in oldest:
            self._stale[name] = self._stale.pop(name)
            self._asked_for[name] = self._stale[name].ballot
        return [ReadRegister(group_key(name)) for name in oldest]

    # Claims

    def _claim_orphans(self, now: int) -> list[Action]:
        cluster = self._membership.cluster
        if cluster is None or not self._membership.may_act(now):
            return []
        actions: list[Action] = []
        if self._watch.awaits_others and now >= self._waits_until_us:
            self._watch.await_no_more()
            actions += self._ask(cluster)
        orphans = {
            _subject(record): record
            for owner, owned in self._untaken.items()
            if owned and self._is_over(now, cluster, owner)
            for record in owned.values()
            if not self._watch.by_circle or self.keeps(record.spec.name)
        }
        self._orphans_weighed = len(orphans)
        self._turns.keep("claim", orphans)
        if not orphans:
            return actions
        places = self._places(now, cluster, [record.spec for record in orphans.values()])
        under_way = {name for name, _ in self._claims.values()}
        for subject, record in orphans.items():
            name = record.spec.name
            place = places.get(name)
            if place is None or name in under_way:
                continue
            if self._turns.due(now, "claim", subject, place):
                change = Claim(claimant=self._session, owner=record.owner, epoch=record.epoch)
                wish = ChangeRegister(id=self._ids.next(), key=group_key(name), change=change)
                self._claims[wish.id] = (name, record)
                actions.append(wish)
        return actions

    def _places(self, now: int, cluster: ClusterRecord, orphans: list[GroupSpec]) -> dict[str, int]:
        """This node's place among those who may claim each orphan."""
        candidates = self._membership.candidates(now)
        paused = [entry.name for entry in cluster.nodes if entry.paused]
        places: dict[str, int] = {}
        for together in self._in_parts(orphans):
            places |= claim_places(
                self._session.node,
                orphans=together,
                candidates=self._watch.candidates(together[0], candidates),
                groups_owned=self.groups_owned(together[0]),
                paused=paused,
            )
        return places

    def targets(self, groups: list[GroupSpec], able: Sequence[str]) -> dict[str, list[str]]:
        """For each of these groups, which leave this node, those of the nodes that are able to take it in the order in
        which they should: in a large cluster those who watch it, as long as one of them is able.
        """
        ranking: dict[str, list[str]] = {}
        for together in self._in_parts(groups):
            ranking |= rank_claimants(
                orphans=together,
                candidates=self._watch.candidates(together[0], able) or able,
                groups_owned=self.groups_owned(together[0]),
            )
        return ranking

    def _in_parts(self, groups: list[GroupSpec]) -> list[list[GroupSpec]]:
        """Those that are placed together: in a small cluster all, in a large one those of each circle."""
        if not self._watch.by_circle:
            return [groups] if groups else []
        parts: dict[str, list[GroupSpec]] = {}
        for group in groups:
            circle = shard_of(group)
            parts.setdefault(circle if circle != UNSHARDED else f"{circle}{group.name}", []).append(group)
        return list(parts.values())

    def _see_lost(self, now: int, cluster: ClusterRecord) -> None:
        """When this node first saw each lost session Down, and over: for the decision record."""
        lost = [entry.session for entry in cluster.nodes if entry.session and entry.state is SessionState.DOWN]
        lost += [session for entry in cluster.nodes for session in entry.earlier]
        self._down_us = {session: self._down_us.get(session, now) for session in lost}
        over = [session for session in lost if cluster.is_over(session)]
        self._over_us = {session: self._over_us.get(session, now) for session in over}

    def _is_over(self, now: int, cluster: ClusterRecord, owner: Session | None) -> bool:
        """Whether what that session owns may be claimed; for what nobody has owned yet, whether the cluster is formed.
        """
        if owner is None:
            complete = len(cluster.up_nodes()) == len(cluster.nodes)
            return complete or now >= self._waits_until_us
        return cluster.is_over(owner)

    def _seems_taken(self, name: str) -> bool:
        """Whether a notice names a living owner. Only a hint: the record is read, at the latest when its turn comes."""
        return name in self._stale and self._lives(self._stale[name].owner)

    @property
    def _waits_until_us(self) -> int:
        """Until when nobody claims what nobody has owned, as long as members are missing."""
        seen_us = self._membership.seen_since_us
        return seen_us + GROUP_WAIT_US if seen_us is not None else NEVER_US

    def groups_owned(self, group: GroupSpec) -> Mapping[str, int]:
        """How many groups each node owns, of those that count where this one is placed, by the newest that was heard.
        What a session owned that is over, its node owns no more, though it may have come back.
        """
        counted_with, cluster = self._counted_with(group), self._membership.cluster
        owned = self._groups_owned.get(counted_with, Counter())
        orphans = [
            name
            for owner, untaken in self._untaken.items()
            if untaken and owner is not None and cluster is not None and cluster.is_over(owner)
            for name, record in untaken.items()
            if self._counted_with(record.spec) == counted_with
        ]
        return owned - Counter(self.owner_node(name) for name in orphans) if orphans else owned

    def _counted_with(self, group: GroupSpec) -> str:
        return shard_of(group) if self._watch.by_circle else ""

    def _note_owner(self, name: str) -> None:
        """The newest that was heard of that group has changed; one whose record was never read counts for nobody."""
        self._file(name)
        record = self.groups.get(name)
        before, node = self._owner_nodes.get(name, ""), self.owner_node(name) if record is not None else ""
        if record is not None and before != node:
            self._owner_nodes[name] = node
            owned = self._groups_owned.setdefault(self._counted_with(record.spec), Counter())
            owned[before] -= bool(before)
            owned[node] += bool(node)

    def _file(self, name: str) -> None:
        """Keep the group with the others of its owner, unless it seems to be taken from it."""
        record = self.groups.get(name)
        if name in self._filed:
            self._untaken[self._filed.pop(name)].pop(name, None)
        if record is not None and not self._seems_taken(name):
            self._filed[name] = record.owner
            self._untaken.setdefault(record.owner, {})[name] = record

    def _gather_us(self) -> int:
        return GATHER_US + GATHER_EACH_US * self._orphans_weighed

    def _claim_ended(self, now: int, event: ChangeSettled) -> list[Action]:
        name, before = self._claims.pop(event.id)
        record = self.groups.get(name)
        if event.result is Result.DONE and record is not None and record.owner == self._session:
            message = f"group {name}: owner is {self._session.node} under epoch {record.epoch}"
            fields = {"group": name, "owner": self._session.node, "epoch": record.epoch}
            claimed = Log(component=COMPONENT, event="group-claimed", message=message, fields=fields)
            return [claimed, *self._decided(now, before, record)]
        message = f"group {name}: claim {event.result}: {event.reason or 'no majority answered'}"
        return [Log(component=COMPONENT, event="claim-not-done", message=message, fields={"group": name}, lasting=True)]

    def _decided(self, now: int, before: GroupRecord, record: GroupRecord) -> list[Action]:
        """The decision record of a failover (the rules of the cluster, section 7); times in microseconds of the
        boot-time clock, as this node saw them.
        """
        cluster, lost, name = self._membership.cluster, before.owner, record.spec.name
        if lost is None or cluster is None:
            return []
        entry = cluster.node(lost.node)
        replaced = entry is not None and entry.session != lost
        reasons = refusals(
            group=record.spec, nodes=cluster.nodes, alive=self._membership.candidates(now), owner=None
        )
        fields = {
            "group": name,
            "target": self._session.node,
            "epoch": record.epoch,
            "evidence": f"{lost} was {'replaced by a newer session of its node' if replaced else 'Down and is fenced'}",
            "counters": {"failovers": len(record.failovers), "counts": False},
            "candidates": {node: reason or "candidate" for node, reason in reasons.items()},
            "phases_us": {"down": self._down_us.get(lost), "over": self._over_us.get(lost), "claimed": now},
        }
        message = f"group {name} goes to {self._session.node}: its owner {lost.node} is lost"
        return [Log(component=COMPONENT, event="failover-decided", message=message, fields=fields)]


def _subject(record: GroupRecord) -> str:
    return f"{record.spec.name}/{record.epoch}/{record.owner}"
