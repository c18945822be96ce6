"""What follows the failure of a resource: restarts in place, then a move to the next candidate, then nothing.

| the resource is Failed and | then |
|---|---|
| not wanted | TERMINATE |
| wanted anew by an administrator | TERMINATE, then it is Offline |
| the failure is not yet written down, restarts left | RecordRestart |
| it is written down, restart delay over | TERMINATE, then it is Offline |
| no restarts left | BeginMove to the next candidate, or stay Failed |
"""

from harness.cluster_service.group_move import GroupMove
from harness.cluster_service.membership import MembershipManager
from harness.cluster_service.messages import Action
from harness.cluster_service.resource_facts import GroupFacts
from harness.cluster_service.resource_log import resource_line
from harness.cluster_service.resource_orders import ResourceOrders
from harness.model.changes import BeginMove, RecordRestart
from harness.model.host import EntryPoint, Why
from harness.model.session import Session
from harness.model.topology import ResourceSpec, RestartAction

__all__ = ["FailurePolicy"]


class FailurePolicy:
    """The rules of the cluster, section 4 and 5, for what failed on this node."""

    def __init__(
        self, *, session: Session, membership: MembershipManager, moves: GroupMove, orders: ResourceOrders
    ) -> None:
        self._session = session
        self._membership = membership
        self._moves = moves
        self._orders = orders

    def next_for(self, now: int, facts: GroupFacts, spec: ResourceSpec, wanted: bool) -> list[Action]:
        """The next step for a resource that is Failed."""
        record, resource, policy = facts.record, facts.resources[spec.name], spec.policy
        if not wanted or resource.try_again:
            return [self._orders.call(now, facts, spec, EntryPoint.TERMINATE, why=Why.REQUEST)]
        mine = [
            entry
            for entry in record.restarts
            if entry.resource == spec.name
            and entry.session == self._session
            and now - entry.at_us <= policy.restart_period_us
        ]
        if any(entry.failure == resource.failure for entry in mine):
            due = resource.failed_at_us + (policy.restart_delay_us if len(mine) > 1 else 0)
            if now < due:
                self._orders.wakes[f"{record.spec.name}/{spec.name}"] = due
                return []
            return [self._orders.call(now, facts, spec, EntryPoint.TERMINATE, why=Why.RESTART)]
        if policy.restart_action is RestartAction.NONE:
            return self._stay_failed(facts, spec, "its restart-action is none")
        if len(mine) < policy.restart_threshold:
            change = RecordRestart(
                session=self._session,
                epoch=record.epoch,
                resource=spec.name,
                failure=resource.failure,
                at_us=now,
                period_us=policy.restart_period_us,
            )
            return [self._orders.change(facts, change, resource=spec.name)]
        if policy.restart_action is RestartAction.RESTART:
            return self._stay_failed(facts, spec, "its restarts are used up and it may not move")
        return self.escalate(now, facts, spec)

    def escalate(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        """Restarts are used up: move the group to the next candidate, as long as its failover threshold lets it."""
        group = facts.record.spec
        cluster = self._membership.cluster
        assert cluster is not None
        names = [entry.name for entry in cluster.nodes]
        threshold = group.failover_threshold if group.failover_threshold is not None else len(names) - 1
        recent = [at_us for at_us in facts.record.failovers if 0 <= now - at_us <= group.failover_period_us]
        if len(recent) >= threshold:
            return self._stay_failed(facts, spec, f"{len(recent)} failovers, {threshold} are allowed", id=1254)
        target = self._moves.next_target(now, facts)
        if target is None:
            return self._stay_failed(facts, spec, "there is no other candidate")
        change = BeginMove(
            session=self._session,
            epoch=facts.record.epoch,
            target=target,
            reason=f"{spec.name} failed and its restarts are used up",
            failed_at_us=now,
        )
        return [self._orders.change(facts, change)]

    @staticmethod
    def _stay_failed(facts: GroupFacts, spec: ResourceSpec, reason: str, id: int = 1069) -> list[Action]:
        resource = facts.resources[spec.name]
        if resource.told_no_candidate:
            return []
        resource.told_no_candidate = True
        group = facts.record.spec.name
        message = f"{spec.name} of group {group} stays Failed: {reason}"
        return [resource_line("resource-stays-failed", message, id=id, group=group, resource=spec.name)]
