"""Watchers of where groups go, fed like those of `watch` with every event.

- Preferred owners: whoever claims a group before the turn of a more preferred owner breaks the order; so does a move
  away from a Paused node to a less preferred one.
- The cyclic list: after a failure a group goes to the next candidate, and passes none over.
- Failback: only where the group's policy allows it, to a more preferred owner, and never to a session that it left
  because it failed there or was moved away by hand. One that a resume has asked for is another matter.

Who decides need not know all that is true. A node counts as passed over only where everybody must have taken it for a
candidate: it has been a member and not Paused for long, and voters have heard of it all the time. In clusters whose
nodes divide the watch over the groups nobody is judged by preferences.
"""

from collections.abc import Callable, Mapping, Sequence

from harness.cluster_service.failover import GROUP_WAIT_US
from harness.database.protocol import CLUSTER_KEY
from harness.database.register import Stored
from harness.model.records import ClusterRecord, GroupRecord, MoveCause
from harness.model.session import Session
from harness.model.topology import SECOND_US, Failback, GroupSpec, Settings
from harness.model.voter_set import VoterSet
from harness.simulation.watch import ChosenValues, TrueLeases

__all__ = ["Candidates", "FailbackByPolicy", "NextInTheCycle", "PreferredFirst"]

HOUR_US = 3600 * SECOND_US

SLOWEST = 0.95
"""What a clock may make of a turn, and more."""


class Candidates:
    """Hook `chose` to the chosen values. `leases` hear of the beats.

    A node is certainly a candidate when it has been Up and not Paused for `seen_us`, and as long so many voters of
    every set that may count have heard of it without a pause that no majority of them can say that it is lost.
    """

    def __init__(
        self, settings: Settings, *, leases: TrueLeases, sets: Mapping[int, VoterSet], now: Callable[[], int]
    ) -> None:
        self._leases = leases
        self._seen_us = settings.lease_us + SECOND_US
        self._pause_us = settings.lease_us // 2
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
        session, since_us = self._able.get(node, (None, at_us))
        if session is None or since_us > at_us - self._seen_us:
            return False
        if group.possible_owners and node not in group.possible_owners:
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
            since_us <= at_us - self._seen_us and last_us > at_us - self._pause_us for since_us, last_us in heard
        )


class PreferredFirst:
    """Hook `chose` to the chosen values."""

    def __init__(
        self,
        settings: Settings,
        *,
        chosen: ChosenValues,
        candidates: Candidates,
        now: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._turn_us = settings.lease_us // 2
        self._chosen = chosen
        self._candidates = candidates
        self._now = now
        self._told = told
        self._over_us: dict[Session | None, int] = {}
        self._owned_us: dict[str, int] = {}

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        before, after = older.record, newer.record
        if isinstance(after, ClusterRecord):
            self._see_over(after)
        if not isinstance(before, GroupRecord) or not isinstance(after, GroupRecord):
            return
        if before.owner != after.owner:
            if after.owner is not None and self._chosen.proposed_by == after.owner.node:
                self._look_at_claim(key, before, after.owner.node)
            self._owned_us[key] = self._now()
        elif before.move is None and after.move is not None:
            self._look_at_move(key, after)

    def _see_over(self, cluster: ClusterRecord) -> None:
        over: list[Session | None] = [session for entry in cluster.nodes for session in entry.earlier]
        over += [entry.session for entry in cluster.nodes if entry.session and cluster.is_over(entry.session)]
        if len(cluster.up_nodes()) == len(cluster.nodes):
            over.append(None)
        for session in over:
            self._over_us.setdefault(session, self._now())

    def _look_at_claim(self, key: str, before: GroupRecord, claimant: str) -> None:
        over_us, proposed_us = self._over_us.get(before.owner), self._chosen.proposed_us
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


class NextInTheCycle:
    """Hook `chose` to the chosen values."""

    def __init__(self, *, chosen: ChosenValues, candidates: Candidates, told: Callable[[str], None]) -> None:
        self._chosen = chosen
        self._candidates = candidates
        self._told = told

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        before, after = older.record, newer.record
        if not isinstance(before, GroupRecord) or not isinstance(after, GroupRecord):
            return
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


class FailbackByPolicy:
    """Hook `chose` to the chosen values. `now` tells what the clock of a node says, `world_us` the world's."""

    def __init__(
        self,
        *,
        chosen: ChosenValues,
        now: Callable[[str], int],
        world_us: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._chosen = chosen
        self._now = now
        self._world_us = world_us
        self._told = told

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        before, after = older.record, newer.record
        if not isinstance(before, GroupRecord) or not isinstance(after, GroupRecord):
            return
        if before.move is not None or after.move is None or after.move.cause is not MoveCause.FAILBACK:
            return
        target = after.move.target
        if before.owner is None or (before.drained is not None and before.drained.node == target):
            return  # what a resume asks for, a group's policy does not forbid
        why = self._objection(before, before.owner, target)
        if why:
            self._told(f"register {key}: goes back to {target}, {why}")

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
