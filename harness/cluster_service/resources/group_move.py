"""A group's move away from its owner, as the owner carries it out: end every resource, then hand over.

OFFLINE or TERMINATE, dependents first; CLOSE each; Release when every one is proven ended. The stage is in the group's
register, so a move outlives the service that began it.

Besides failures and requests there are reasons to begin one, first match wins:

| facts | then the group goes |
|---|---|
| its node is being drained | to the most preferred candidate |
| its node is Paused, so that something wanted cannot start | to the most preferred candidate |
| it was drained from a node that was resumed with failback immediate | back there |
| its failback policy allows it, and a more preferred owner is a candidate | there |
"""

from collections.abc import Callable

from harness.cluster_service.core.messages import Action
from harness.cluster_service.membership.membership import MembershipManager
from harness.cluster_service.placement.failover import FailoverManager
from harness.cluster_service.placement.ranking import failback_target, next_after_failure, refusals
from harness.cluster_service.resources.resource_facts import GroupFacts, ResourceFacts
from harness.cluster_service.resources.resource_orders import ResourceOrders
from harness.model.changes import BeginMove, CancelMove, Release
from harness.model.host_messages import CallReason, EntryPoint
from harness.model.records import ClusterRecord, MoveCause, ResumeFailback
from harness.model.session import Session
from harness.model.states import DrainState, ResourceState
from harness.model.topology import Failback, ResourceSpec

__all__ = ["GroupMove"]

_SETTLED = (ResourceState.ONLINE, ResourceState.OFFLINE)


class GroupMove:
    """Looks at the facts of one group at a time; keeps nothing."""

    def __init__(
        self,
        *,
        session: Session,
        membership: MembershipManager,
        failover: FailoverManager,
        orders: ResourceOrders,
        hour_of_day: Callable[[], int],
    ) -> None:
        self._session = session
        self._membership = membership
        self._failover = failover
        self._orders = orders
        self._hour_of_day = hour_of_day

    def refusals(self, now: int, facts: GroupFacts) -> dict[str, str]:
        """For every node why the group cannot go there; empty for a candidate."""
        return refusals(
            group=facts.record.spec,
            nodes=self._cluster().nodes,
            alive=self._membership.candidates(now),
            owner=self._session.node,
        )

    def paused(self) -> bool:
        """Whether this node is Paused: nothing goes Online here."""
        entry = self._membership.own_entry
        return entry is not None and entry.paused

    def begin_if_due(self, now: int, facts: GroupFacts) -> list[Action]:
        """Begin a move for which there is a reason; nothing has failed."""
        begin = self._drain(now, facts) or self._leave_paused(now, facts) or self._go_back(now, facts)
        return [self._orders.change(facts, begin)] if begin is not None else []

    def away_from_pause(self, now: int, facts: GroupFacts, what: str) -> BeginMove | None:
        """The move of a group of which `what` cannot start on this Paused node; None when nobody else can take it."""
        target = self.most_preferred(now, facts)
        if target is None:
            return None
        reason = f"{what} cannot start: {self._session.node} is Paused"
        return self._begin(facts, target, MoveCause.PAUSED, reason)

    def _drain(self, now: int, facts: GroupFacts) -> BeginMove | None:
        entry = self._membership.own_entry
        if entry is None or not entry.paused or entry.drain is not DrainState.IN_PROGRESS:
            return None
        mine = [record.spec for record in self._failover.groups.values() if record.owner == self._session]
        alive = self._membership.candidates(now)
        able = [one.name for one in self._cluster().nodes if one.name in alive and not one.paused]
        ranking = self._failover.targets(mine, able)
        target = next(iter(ranking.get(facts.record.spec.name, [])), None)
        if target is None:
            return None
        return self._begin(facts, target, MoveCause.DRAIN, f"{entry.name} is being drained", entry.drains)

    def _leave_paused(self, now: int, facts: GroupFacts) -> BeginMove | None:
        if not self.paused():
            return None
        for spec in facts.record.spec.resources:
            wanted = facts.record.persistent.get(spec.name, False)
            if wanted and facts.standing(spec.name) is ResourceState.OFFLINE and facts.providers_online(spec):
                return self.away_from_pause(now, facts, spec.name)
        return None

    def _go_back(self, now: int, facts: GroupFacts) -> BeginMove | None:
        record, drained = facts.record, facts.record.drained
        if drained is None and record.spec.failback is Failback.PREVENT:
            return None
        restless = any(facts.standing(name) not in _SETTLED for name in facts.resources)
        if self.paused() or restless:
            return None
        candidates = [name for name, reason in self.refusals(now, facts).items() if not reason]
        source = self._cluster().node(drained.node) if drained is not None else None
        barred = [entry.name for entry in self._cluster().nodes if entry.session in record.left]
        if source is not None and drained is not None and source.drains == drained.drain:
            if source.failback is ResumeFailback.IMMEDIATE and source.name in candidates:
                reason = f"{source.name} was resumed"
                return self._begin(facts, source.name, MoveCause.FAILBACK, reason)
            if source.failback is ResumeFailback.NONE:
                barred.append(source.name)
        target = failback_target(
            group=record.spec,
            candidates=[name for name in candidates if name not in barred],
            owner=self._session.node,
            hour=self._hour_of_day(),
        )
        if target is None:
            return None
        return self._begin(facts, target, MoveCause.FAILBACK, f"{target} is preferred and Up again")

    def _begin(self, facts: GroupFacts, target: str, cause: MoveCause, reason: str, drain: int = 0) -> BeginMove:
        return BeginMove(
            session=self._session,
            epoch=facts.record.epoch,
            target=target,
            reason=reason,
            cause=cause,
            drain=drain,
        )

    def most_preferred(self, now: int, facts: GroupFacts) -> str | None:
        """Where the group goes when nothing failed: the most preferred candidate, else the one with the fewest groups.
        """
        group = facts.record.spec
        able = [name for name, reason in self.refusals(now, facts).items() if not reason]
        ranking = self._failover.targets([group], able)
        return next(iter(ranking[group.name]), None)

    def _cluster(self) -> ClusterRecord:
        cluster = self._membership.cluster
        assert cluster is not None  # nothing acts before the register was seen
        return cluster

    def next_target(self, now: int, facts: GroupFacts) -> str | None:
        """Where the group goes after a failure here; None when there is no other candidate."""
        reasons = self.refusals(now, facts)
        return next_after_failure(
            group=facts.record.spec,
            nodes=list(reasons),
            candidates=[name for name, reason in reasons.items() if not reason],
            failed_on=self._session.node,
        )

    def go_on(self, now: int, facts: GroupFacts) -> list[Action]:
        """The next steps of the move under way."""
        record = facts.record
        actions: list[Action] = []
        for spec in record.spec.resources:
            resource = facts.resources[spec.name]
            if resource.closed_epoch == record.epoch or not self._orders.free(now, facts, resource):
                continue
            actions += self._end_resource(now, facts, spec, resource)
        if all(facts.resources[spec.name].closed_epoch == record.epoch for spec in record.spec.resources):
            actions.append(self._hand_over(now, facts))
        return actions

    def _end_resource(self, now: int, facts: GroupFacts, spec: ResourceSpec, resource: ResourceFacts) -> list[Action]:
        if not facts.dependents_closed(spec):
            return []
        if resource.opened_epoch is None and not resource.open_errors:
            # The host has just come back: it must know the resource before it can end it.
            return [self._orders.call(now, facts, spec, EntryPoint.OPEN, why=CallReason.MOVE, adopt=True)]
        if resource.state is ResourceState.ONLINE:
            return [self._orders.call(now, facts, spec, EntryPoint.OFFLINE, why=CallReason.MOVE)]
        if resource.state.pending and not resource.open_errors:
            return []
        return [self._orders.call(now, facts, spec, EntryPoint.CLOSE, why=CallReason.MOVE)]

    def _hand_over(self, now: int, facts: GroupFacts) -> Action:
        record, cluster = facts.record, self._cluster()
        assert record.move is not None
        target: str | None = record.move.target
        if self.refusals(now, facts).get(record.move.target, "it is no member"):
            target = self._instead(now, facts, record.move.cause)
        entry = cluster.node(target) if target is not None else None
        if entry is None or entry.session is None:
            return self._orders.change(facts, CancelMove(session=self._session, epoch=record.epoch))
        change = Release(session=self._session, epoch=record.epoch, new_owner=entry.session)
        return self._orders.change(facts, change)

    def _instead(self, now: int, facts: GroupFacts, cause: MoveCause) -> str | None:
        """The target is no candidate any more: the next one. A group that was only to go home stays."""
        if cause is MoveCause.FAILBACK:
            return None
        return self.next_target(now, facts)
