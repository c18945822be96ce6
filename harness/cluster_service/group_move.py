"""A group's move away from its owner, as the owner carries it out: end every resource, then hand over.

OFFLINE or TERMINATE, dependents first; CLOSE each; Release when every one is proven ended. The stage is in the group's
register, so a move outlives the service that began it.
"""

from harness.cluster_service.failover import FailoverManager
from harness.cluster_service.membership import MembershipManager
from harness.cluster_service.messages import Action
from harness.cluster_service.placement import next_after_failure, rank_claimants, refusals
from harness.cluster_service.resource_facts import GroupFacts, ResourceFacts
from harness.cluster_service.resource_orders import ResourceOrders
from harness.model.changes import CancelMove, Release
from harness.model.host import EntryPoint, Why
from harness.model.records import ClusterRecord, MoveCause
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import ResourceSpec

__all__ = ["GroupMove"]


class GroupMove:
    """Looks at the facts of one group at a time; keeps nothing."""

    def __init__(
        self,
        *,
        session: Session,
        membership: MembershipManager,
        failover: FailoverManager,
        orders: ResourceOrders,
    ) -> None:
        self._session = session
        self._membership = membership
        self._failover = failover
        self._orders = orders

    def refusals(self, now: int, facts: GroupFacts) -> dict[str, str]:
        """For every node why the group cannot go there; empty for a candidate."""
        return refusals(
            group=facts.record.spec,
            nodes=self._cluster().nodes,
            alive=self._membership.candidates(now),
            owner=self._session.node,
        )

    def most_preferred(self, now: int, facts: GroupFacts) -> str | None:
        """Where the group goes when nothing failed: the most preferred candidate, else the one with the fewest groups.
        """
        group = facts.record.spec
        able = [name for name, reason in self.refusals(now, facts).items() if not reason]
        ranking = rank_claimants(orphans=[group], candidates=able, groups_owned=self._failover.groups_owned())
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
            if resource.closed_epoch == record.epoch or not self._orders.free(now, spec.name, facts, resource):
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
            return [self._orders.call(now, facts, spec, EntryPoint.OPEN, why=Why.MOVE, adopt=True)]
        if resource.state is ResourceState.ONLINE:
            return [self._orders.call(now, facts, spec, EntryPoint.OFFLINE, why=Why.MOVE)]
        if resource.state.pending and not resource.open_errors:
            return []
        return [self._orders.call(now, facts, spec, EntryPoint.CLOSE, why=Why.MOVE)]

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
