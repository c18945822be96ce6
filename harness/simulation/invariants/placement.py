"""Watchers of where groups go, fed like those of `watch` with every event.

- The group-wait: what nobody has owned is claimed once all nodes have been Up together, or some are missing for long.
- Preferred owners: whoever claims a group before the turn of a more preferred owner breaks the order; so does a move
  away from a Paused node to a less preferred one.
- Turns: what a lost session owned is claimed by who is first in turn, and by who comes after it half a lease later: the
  one with the fewest groups, where none is preferred.
- The cyclic list: after a failure a group goes to the next candidate, and passes none over.
- Failback: only where the group's policy allows it, to a more preferred owner, and never to a session that it left
  because it failed there or was moved away by hand. To where a drain took it from it goes back as the resume has asked.

Who decides need not know all that is true. A node counts as passed over only where everybody must have taken it for a
candidate: it has been a member and not Paused for long, and voters have heard of it all the time. In clusters whose
nodes divide the watch over the groups nobody is judged by preferences.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

from harness.cluster_service.placement.failover import GROUP_WAIT_US
from harness.cluster_service.placement.ranking import claim_places
from harness.database.register import Stored
from harness.model.records import ClusterRecord, GroupRecord, MoveCause, ResumeFailback
from harness.model.register_keys import CLUSTER_KEY, group_key
from harness.model.session import Session
from harness.model.topology import SECOND_US, Failback, GroupSpec, Settings
from harness.model.voter_set import VoterSet
from harness.simulation.invariants.starts import ChosenValueOracle, GroupRegisterMonitor, LeaseOracle, PausedNodes

__all__ = ["Candidates", "FailbackByPolicy", "FirstInTurn", "NextInTheCycle", "OverSince", "PreferredFirst"]

HOUR_US = 3600 * SECOND_US

SLOWEST = 0.95
"""What a clock may make of a turn, and more."""


class Candidates:
    """Hook `chose` to the chosen values. `leases` hear of the beats.

    A node is certainly a candidate when it has been Up and not Paused for `seen_us`, and as long so many voters of
    every set that may count have heard of it without a pause that no majority of them can say that it is lost.
    """

    def __init__(
        self, settings: Settings, *, leases: LeaseOracle, sets: Mapping[int, VoterSet], now: Callable[[], int]
    ) -> None:
        self._leases = leases
        self._seen_us = settings.lease_us + SECOND_US
        self._sets = sets
        self._now = now
        self._able: dict[str, tuple[Session | None, int]] = {}

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        del key, older
        if isinstance(newer.record, ClusterRecord):
            now_us, before = self._now(), self._able
            able = {entry.name: entry.session for entry in newer.record.up_nodes() if not entry.paused}
            self._able = {
                name: before[name] if name in before and before[name][0] == session else (session, now_us)
                for name, session in able.items()
            }

    def certain(self, group: GroupSpec, node: str, *, at_us: int) -> bool:
        """Whether everybody must have known by then that the node can take the group."""
        return node in (group.possible_owners or (node,)) and self.is_known(node, at_us=at_us)

    def is_known(self, node: str, *, at_us: int) -> bool:
        """Whether everybody must have known by then that the node can take groups."""
        session, since_us = self._able.get(node, (None, at_us))
        if session is None or since_us > at_us - self._seen_us:
            return False
        newest, beats = max(self._sets), self._leases.heard(str(session))
        return all(
            self._heard_by(voter_set, beats, at_us) >= voter_set.majority
            for version in (newest, newest - 1)
            if (voter_set := self._sets.get(version)) is not None
        )

    def _heard_by(self, voter_set: VoterSet, beats: Mapping[str, tuple[int, int]], at_us: int) -> int:
        heard = [beats[voter] for voter in voter_set.members if voter in beats]
        return sum(
            since_us <= at_us - self._seen_us and last_us > at_us - self._leases.pause_us for since_us, last_us in heard
        )


class OverSince:
    """Hook `chose` to the chosen values: since when each session is over, and since when no node is missing any more.
    """

    def __init__(self, *, now: Callable[[], int]) -> None:
        self._now = now
        self._over_us: dict[Session | None, int] = {}

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        del key, older
        cluster = newer.record
        if not isinstance(cluster, ClusterRecord):
            return
        over: list[Session | None] = [session for entry in cluster.nodes for session in entry.earlier]
        over += [entry.session for entry in cluster.nodes if entry.session and cluster.is_over(entry.session)]
        if len(cluster.up_nodes()) == len(cluster.nodes):
            over.append(None)
        for session in over:
            self._over_us.setdefault(session, self._now())

    def at(self, owner: Session | None) -> int | None:
        """When what that session owns could be claimed first; without one, when what nobody has owned could. None
        before.
        """
        return self._over_us.get(owner)


class PreferredFirst:
    """Hook `chose` to the chosen values, after that of `over`."""

    def __init__(
        self,
        settings: Settings,
        *,
        chosen: ChosenValueOracle,
        candidates: Candidates,
        over: OverSince,
        now: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._turn_us = settings.lease_us // 2
        self._over = over
        self._chosen = chosen
        self._candidates = candidates
        self._now = now
        self._told = told
        self._owned_us: dict[str, int] = {}

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        before, after = older.record, newer.record
        if not isinstance(before, GroupRecord) or not isinstance(after, GroupRecord):
            return
        if before.owner != after.owner:
            if after.owner is not None and self._chosen.proposed_by == after.owner.node:
                self._look_at_claim(key, before, after.owner.node)
            self._owned_us[key] = self._now()
        elif before.move is None and after.move is not None:
            self._look_at_move(key, after)

    def _look_at_claim(self, key: str, before: GroupRecord, claimant: str) -> None:
        over_us, proposed_us = self._over.at(before.owner), self._chosen.proposed_us
        if over_us is None and before.owner is None and proposed_us < GROUP_WAIT_US * SLOWEST:
            self._told(f"register {key}: claimed by {claimant}, nobody has owned it, and some nodes have not come yet")
        if over_us is None or (before.owner is None and proposed_us > GROUP_WAIT_US * SLOWEST):
            return
        waited_us = proposed_us - max(over_us, self._owned_us.get(key, 0))
        better = self._better(before.spec, claimant) if waited_us < self._turn_us * SLOWEST else ""
        if better:
            self._told(
                f"register {key}: claimed by {claimant} {waited_us / 1e6:.6f} s after its owner was over,"
                f" and {better} is preferred"
            )

    def _look_at_move(self, key: str, after: GroupRecord) -> None:
        assert after.move is not None
        move = after.move
        if move.cause in (MoveCause.DRAIN, MoveCause.PAUSED):
            better = self._better(after.spec, move.target, without=after.owner)
            if better:
                self._told(f"register {key}: goes to {move.target} because {move.reason}, and {better} is preferred")

    def _better(self, group: GroupSpec, node: str, *, without: Session | None = None) -> str:
        """A preferred owner that comes before that node, and is certainly a candidate; empty for none."""
        at_us = self._chosen.proposed_us
        for name in _before(group.preferred_owners, node):
            if (without is None or name != without.node) and self._candidates.certain(group, name, at_us=at_us):
                return name
        return ""


def _before(names: Sequence[str], name: str) -> Sequence[str]:
    return names[: names.index(name)] if name in names else names


class FirstInTurn:
    """Hook `chose` to the chosen values, after that of `over`.

    Whose turn it is follows from who is a candidate and owns what. That is certain where nothing but the claims of what
    that lost session owned has changed for `seen_us`; of those each node may have heard of some, whichever they are.
    """

    MAX_CLAIMS = 6
    """Of a lost session's groups: with more of them claimed the rest are not judged."""

    def __init__(
        self,
        settings: Settings,
        *,
        chosen: ChosenValueOracle,
        candidates: Candidates,
        over: OverSince,
        paused: PausedNodes,
        now: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._turn_us = int(settings.lease_us // 2 * SLOWEST)
        self._seen_us = settings.lease_us + SECOND_US
        self._chosen = chosen
        self._candidates = candidates
        self._over = over
        self._paused = paused
        self._now = now
        self._told = told
        self._came_or_went_us: dict[Session, int] = {}
        self._claimed: dict[Session, dict[str, str]] = {}
        self._changed_us: dict[Session | None, int] = {}

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        del key
        before, after = older.record, newer.record
        if isinstance(before, ClusterRecord) and isinstance(after, ClusterRecord):
            self._see_cluster(before, after)
        elif isinstance(before, GroupRecord) and isinstance(after, GroupRecord) and before.owner != after.owner:
            over_us = self._over.at(before.owner)
            lost = before.owner if over_us is not None else None
            if lost is not None and over_us is not None and after.owner is not None:
                self._look_at_claim(after.spec, lost, over_us, after.owner.node)
                self._claimed.setdefault(lost, {})[after.spec.name] = after.owner.node
            self._changed_us[lost] = self._now()

    def _see_cluster(self, before: ClusterRecord, after: ClusterRecord) -> None:
        for entry in (*before.nodes, *after.nodes):
            session = entry.session
            if session is not None and before.is_up(session) != after.is_up(session):
                self._came_or_went_us[session] = self._now()

    def _look_at_claim(self, group: GroupSpec, lost: Session, over_us: int, claimant: str) -> None:
        proposed_us, cluster = self._chosen.proposed_us, self._chosen.newest(CLUSTER_KEY)
        waited_us = proposed_us - over_us
        if not isinstance(cluster, ClusterRecord) or claimant not in [entry.name for entry in cluster.up_nodes()]:
            return
        if self._chosen.proposed_by != claimant or waited_us >= self._turn_us:
            return
        if not self._all_is_known(cluster, lost, since_us=over_us - self._seen_us):
            return
        for orphans, owned in self._views(cluster, group.name, lost):
            places = claim_places(
                claimant,
                orphans=orphans,
                candidates=[entry.name for entry in cluster.up_nodes()],
                groups_owned=owned,
                paused=[entry.name for entry in cluster.nodes if entry.paused],
            )
            if places.get(group.name) == 0:
                return
        key, for_s = group_key(group.name), waited_us / 1e6
        self._told(f"register {key}: {lost} is over for {for_s:.6f} s, {claimant} claims it, and is not first in turn")

    def _all_is_known(self, cluster: ClusterRecord, lost: Session, *, since_us: int) -> bool:
        """Whether nothing else has changed since then."""
        at_us, claimed = self._chosen.proposed_us, self._claimed.get(lost, ())
        changes = (*self._changed_us.items(), *self._came_or_went_us.items())
        if any(changed_us > since_us and of != lost for of, changed_us in changes) or len(claimed) > self.MAX_CLAIMS:
            return False
        return all(
            self._paused.known_for_us(entry.name, at_us=at_us) > 0
            if entry.paused
            else self._candidates.is_known(entry.name, at_us=at_us)
            for entry in cluster.up_nodes()
        )

    def _views(
        self, cluster: ClusterRecord, group: str, lost: Session
    ) -> Iterator[tuple[list[GroupSpec], Mapping[str, int]]]:
        """What is orphaned, and how many groups each node owns: as each may know it who knows of some of the claims."""
        claimed = self._claimed.get(lost, {})
        orphans: dict[str, GroupSpec] = {}
        owned: Counter[str] = Counter()
        for name in cluster.groups:
            record = self._chosen.newest(group_key(name))
            if not isinstance(record, GroupRecord):
                continue
            if name == group or name in claimed or record.owner is None or cluster.is_over(record.owner):
                orphans[name] = record.spec
            else:
                owned[record.owner.node] += 1
        for known in range(len(claimed) + 1):
            for some in combinations(claimed, known):
                yield (
                    [spec for name, spec in orphans.items() if name not in some],
                    owned + Counter(claimed[name] for name in some),
                )


class NextInTheCycle(GroupRegisterMonitor):
    """Hook `chose` to the chosen values."""

    def __init__(self, *, chosen: ChosenValueOracle, candidates: Candidates, told: Callable[[str], None]) -> None:
        self._chosen = chosen
        self._candidates = candidates
        self._told = told

    def changed(self, key: str, before: GroupRecord, after: GroupRecord) -> None:
        """A group's register has a newer content."""
        if before.move is not None or after.move is None or after.move.cause is not MoveCause.FAILURE:
            return
        cluster = self._chosen.newest(CLUSTER_KEY)
        if before.owner is None or not isinstance(cluster, ClusterRecord):
            return
        failed_on, group = before.owner.node, after.spec
        names = [entry.name for entry in cluster.nodes]
        cycle = [*group.preferred_owners, *(name for name in names if name not in group.preferred_owners)]
        start = cycle.index(failed_on) + 1
        for name in _before([*cycle[start:], *cycle[: start - 1]], after.move.target):
            if self._candidates.certain(group, name, at_us=self._chosen.proposed_us):
                self._told(f"register {key}: failed on {failed_on}, goes to {after.move.target}, and {name} is next")
                return


class FailbackByPolicy(GroupRegisterMonitor):
    """Hook `chose` to the chosen values. `now` tells what the clock of a node says, `world_us` the world's; `seen_us`
    after a change was chosen all know of it, or hold no lease.
    """

    def __init__(
        self,
        *,
        chosen: ChosenValueOracle,
        seen_us: int,
        now: Callable[[str], int],
        world_us: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._chosen = chosen
        self._seen_us = seen_us
        self._now = now
        self._world_us = world_us
        self._told = told
        self._immediate_until_us: dict[str, int] = {}

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        before, after = older.record, newer.record
        if isinstance(before, ClusterRecord) and isinstance(after, ClusterRecord):
            for entry in after.nodes:
                known = before.node(entry.name)
                if known is not None and known.failback is ResumeFailback.IMMEDIATE is not entry.failback:
                    self._immediate_until_us[entry.name] = self._world_us()
        super().chose(key, older, newer)

    def changed(self, key: str, before: GroupRecord, after: GroupRecord) -> None:
        """A group's register has a newer content."""
        if before.move is not None or after.move is None or after.move.cause is not MoveCause.FAILBACK:
            return
        target = after.move.target
        if before.owner is None:
            return
        of_a_drain = before.drained is not None and before.drained.node == target
        why = self._not_asked_for(before, target) if of_a_drain else self._objection(before, before.owner, target)
        if why:
            self._told(f"register {key}: goes back to {target}, {why}")

    def _not_asked_for(self, record: GroupRecord, target: str) -> str:
        """What a resume asks for no policy forbids; without it nothing goes back that the policy prevents."""
        cluster = self._chosen.newest(CLUSTER_KEY)
        entry = cluster.node(target) if isinstance(cluster, ClusterRecord) else None
        assert record.drained is not None
        if entry is None or entry.drains != record.drained.drain or record.spec.failback is not Failback.PREVENT:
            return ""
        until_us = self._immediate_until_us.get(target, -self._seen_us)
        asked_for = entry.failback is ResumeFailback.IMMEDIATE or self._chosen.proposed_us - until_us <= self._seen_us
        return "" if asked_for else f"which was resumed with failback {entry.failback}"

    def _objection(self, record: GroupRecord, owner: Session, target: str) -> str:
        group, cluster = record.spec, self._chosen.newest(CLUSTER_KEY)
        assert isinstance(cluster, ClusterRecord)
        entry = cluster.node(target)
        if group.failback is Failback.PREVENT:
            return "which its failback policy prevents"
        if group.failback_window is not None and not self._in_window(group.failback_window, owner.node):
            return "outside of its failback-window"
        if target not in _before(group.preferred_owners, owner.node):
            return f"which it does not prefer to {owner.node}"
        if entry is not None and entry.session in record.left:
            return "which it left because it failed there or was moved away by hand"
        return ""

    def _in_window(self, window: tuple[int, int], node: str) -> bool:
        """By the clock of that node, when it was proposed or now."""
        begin, end = window
        hours = range(begin, end if begin < end else end + 24)
        now_us = self._now(node)
        then_us = now_us - (self._world_us() - self._chosen.proposed_us)
        return any(hour in hours or hour + 24 in hours for hour in (at // HOUR_US % 24 for at in (now_us, then_us)))
