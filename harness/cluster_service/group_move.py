"""A group's move away from its owner, as the owner carries it out: end every resource, then hand over.

OFFLINE or TERMINATE, dependents first; CLOSE each; Release when every one is proven ended. The stage is in the group's
register, so a move outlives the service that began it.
"""

from harness.cluster_service.membership import MembershipManager
from harness.cluster_service.messages import Action
from harness.cluster_service.placement import next_after_failure
from harness.cluster_service.resource_facts import GroupFacts, ResourceFacts
from harness.cluster_service.resource_orders import ResourceOrders
from harness.model.changes import CancelMove, Release
from harness.model.host import EntryPoint, Why
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import ResourceSpec

__all__ = ["GroupMove"]


class GroupMove:
    """Looks at the facts of one group at a time; keeps nothing."""

    def __init__(self, *, session: Session, membership: MembershipManager, orders: ResourceOrders) -> None:
        self._session = session
        self._membership = membership
        self._orders = orders

    def next_target(self, now: int, facts: GroupFacts) -> str | None:
        """Where the group goes after a failure here; None when there is no other candidate."""
        cluster = self._membership.cluster
        assert cluster is not None
        alive = self._membership.candidates(now)
        return next_after_failure(
            group=facts.record.spec,
            nodes=[entry.name for entry in cluster.nodes],
            candidates=[entry.name for entry in cluster.nodes if entry.name in alive and not entry.paused],
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
        record, cluster = facts.record, self._membership.cluster
        assert cluster is not None
        assert record.move is not None
        entry = cluster.node(record.move.target)
        if entry is None or entry.session is None or record.move.target not in self._membership.candidates(now):
            other = self.next_target(now, facts)
            entry = cluster.node(other) if other is not None else None
        if entry is None or entry.session is None:
            return self._orders.change(facts, CancelMove(session=self._session, epoch=record.epoch))
        change = Release(session=self._session, epoch=record.epoch, new_owner=entry.session)
        return self._orders.change(facts, change)
