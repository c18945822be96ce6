"""The end of a drain, as the drained node tells it: Completed when it owns nothing any more, Failed when it cannot.

The groups' moves themselves are the Resource Control Manager's: as long as the drain is under way it begins one for
each group, again and again. The stage is in the cluster register, so that a drain outlives whoever watches it.

| this node's drain is under way and | then |
|---|---|
| it owns no group | EndDrain Completed |
| no group is being moved, and none of the others has had a candidate for a while | EndDrain Failed, naming them |
| it has lasted for very long | EndDrain Failed, naming what is left |
"""

from dataclasses import dataclass, field

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import Action, ChangeRegister, ChangeSettled, Event, Log
from harness.cluster_service.core.takeover_delay import earliest_after
from harness.cluster_service.membership.membership import MembershipManager
from harness.cluster_service.placement.failover import FailoverManager
from harness.cluster_service.placement.ranking import refusals
from harness.database.proposer import Result
from harness.model.administrative_changes import EndDrain
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry
from harness.model.register_keys import CLUSTER_KEY
from harness.model.session import Session
from harness.model.states import DrainState
from harness.model.topology import SECOND_US

__all__ = ["COMPONENT", "DRAIN_LIMIT_US", "PATIENCE_US", "DrainManager"]

COMPONENT = "failover-manager"

PATIENCE_US = 30 * SECOND_US
"""How long a group may be without a candidate: a node that reboots is back by then."""

DRAIN_LIMIT_US = 600 * SECOND_US
"""Three times the default pending-timeout: by then whatever moves has moved or reset the node."""


@dataclass(slots=True)
class _Watched:
    drain: int
    since_us: int
    stuck_since_us: int | None = None
    ending: int | None = None
    told: Log | None = None
    wakes: list[int] = field(default_factory=list)


class DrainManager:
    """Watches the drain of this session's node only."""

    def __init__(
        self, *, session: Session, membership: MembershipManager, failover: FailoverManager, ids: Ids
    ) -> None:
        self._session = session
        self._membership = membership
        self._failover = failover
        self._ids = ids
        self._watched: _Watched | None = None

    def handle(self, now: int, event: Event) -> list[Action]:
        """Take a fact in; end the drain when there is nothing left, or nothing left to do."""
        actions: list[Action] = []
        watched = self._watched
        if isinstance(event, ChangeSettled) and watched is not None and watched.ending == event.id:
            watched.ending = None
            if event.result is Result.DONE and watched.told is not None:
                actions.append(watched.told)
        cluster = self._membership.cluster
        entry = self._membership.own_entry
        if cluster is None or entry is None or entry.drain is not DrainState.IN_PROGRESS:
            self._watched = None
            return actions
        if not self._membership.may_act(now) or not self._failover.knows_its_own():
            return actions
        if self._watched is None or self._watched.drain != entry.drains:
            self._watched = _Watched(entry.drains, now)
        return actions + self._next_step(now, cluster, entry, self._watched)

    @property
    def busy(self) -> bool:
        """Whether a drain of this node is under way."""
        return self._watched is not None

    def next_wake(self, now: int) -> int | None:
        """When the patience is over."""
        return earliest_after(now, self._watched.wakes) if self._watched is not None else None

    def _next_step(self, now: int, cluster: ClusterRecord, entry: NodeEntry, watched: _Watched) -> list[Action]:
        watched.wakes = [watched.since_us + DRAIN_LIMIT_US]
        if watched.ending is not None:
            return []
        left = [record for record in self._failover.groups.values() if record.owner == self._session]
        if not left and self._failover.may_come_to_own():
            return []
        if not left:
            return self._end(watched, DrainState.COMPLETED, f"{entry.name} is drained")
        if any(record.move is not None or self._has_candidate(now, cluster, record) for record in left):
            watched.stuck_since_us = None
        elif watched.stuck_since_us is None:
            watched.stuck_since_us = now
        names = ", ".join(sorted(record.spec.name for record in left))
        if watched.stuck_since_us is not None:
            watched.wakes.append(watched.stuck_since_us + PATIENCE_US)
            if now - watched.stuck_since_us >= PATIENCE_US:
                return self._end(watched, DrainState.FAILED, f"{entry.name} keeps {names}: no other node can take it")
        if now - watched.since_us >= DRAIN_LIMIT_US:
            limit_s = DRAIN_LIMIT_US // SECOND_US
            return self._end(watched, DrainState.FAILED, f"{entry.name} still owns {names} after {limit_s} s")
        return []

    def _has_candidate(self, now: int, cluster: ClusterRecord, record: GroupRecord) -> bool:
        reasons = refusals(
            group=record.spec,
            nodes=cluster.nodes,
            alive=self._membership.candidates(now),
            owner=self._session.node,
        )
        return not all(reasons.values())

    def _end(self, watched: _Watched, outcome: DrainState, message: str) -> list[Action]:
        event = "drain-completed" if outcome is DrainState.COMPLETED else "drain-failed"
        node = self._session.node
        watched.told = Log(component=COMPONENT, event=event, message=message, fields={"node": node})
        watched.ending = self._ids.next()
        change = EndDrain(node=node, drain=watched.drain, outcome=outcome)
        return [ChangeRegister(id=watched.ending, key=CLUSTER_KEY, change=change)]
