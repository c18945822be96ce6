"""What follows the failure of a resource: restarts in place, then a move to the next candidate, then nothing.

| the resource is Failed and | then |
|---|---|
| not wanted | TERMINATE |
| wanted anew by an administrator | TERMINATE, then it is Offline |
| the failure is not yet written down, restarts left | RecordRestart |
| it is written down, restart delay over | TERMINATE, then it is Offline |
| this node is Paused | BeginMove to another node, or stay Failed |
| no restarts left | BeginMove to the next candidate, or stay Failed |
| it stays Failed, and its retry period is over | ForgetRestarts, and it is tried once more |
"""

from harness.cluster_service.core.messages import Action
from harness.cluster_service.membership.membership import MembershipManager
from harness.cluster_service.resources.group_move import GroupMove
from harness.cluster_service.resources.resource_facts import GroupFacts
from harness.cluster_service.resources.resource_log import resource_line
from harness.cluster_service.resources.resource_orders import ResourceOrders
from harness.model.changes import BeginMove, ForgetRestarts, RecordRestart
from harness.model.host_messages import CallReason, EntryPoint
from harness.model.session import Session
from harness.model.states import ResourceState
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
            return [self._orders.call(now, facts, spec, EntryPoint.TERMINATE, why=CallReason.REQUEST)]
        # Reckoned at the failure: that it lies long enough back does not make a used-up one good again.
        mine = facts.restarts_of(resource.failed_at_us, spec, self._session)
        if any(entry.failure == resource.failure for entry in mine):
            due = resource.failed_at_us + (policy.restart_delay_us if len(mine) > 1 else 0)
            if now < due:
                self._orders.wake(facts, due)
                return []
            return [self._orders.call(now, facts, spec, EntryPoint.TERMINATE, why=CallReason.RESTART)]
        if policy.restart_action is RestartAction.NONE:
            return self._stay_failed(facts, spec, "its restart-action is none")
        if self._moves.paused():
            return self._leave_paused(now, facts, spec)
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
            return self._used_up(now, facts, spec, "its restarts are used up and it may not move")
        return self.escalate(now, facts, spec)

    def escalate(
        self, now: int, facts: GroupFacts, spec: ResourceSpec, because: str = "failed and its restarts are used up"
    ) -> list[Action]:
        """Nothing is left to try here: move the group to the next candidate, as long as its failover threshold lets it.
        """
        group = facts.record.spec
        cluster = self._membership.cluster
        assert cluster is not None
        names = [entry.name for entry in cluster.nodes]
        threshold = group.failover_threshold if group.failover_threshold is not None else len(names) - 1
        recent = [at_us for at_us in facts.record.failovers if 0 <= now - at_us <= group.failover_period_us]
        if len(recent) >= threshold:
            if recent:
                self._orders.wake(facts, min(recent) + group.failover_period_us + 1)
            told = f"{len(recent)} failovers, {threshold} are allowed"
            return self._used_up(now, facts, spec, told, id=1254)
        target = self._moves.next_target(now, facts)
        if target is None:
            return self._used_up(now, facts, spec, "there is no other candidate")
        change = BeginMove(
            session=self._session,
            epoch=facts.record.epoch,
            target=target,
            reason=f"{spec.name} {because}",
            failed_at_us=now,
        )
        return [self._decided(now, facts, spec, change, (len(recent), threshold)), self._orders.change(facts, change)]

    def _decided(
        self, now: int, facts: GroupFacts, spec: ResourceSpec, begin: BeginMove, failovers: tuple[int, int]
    ) -> Action:
        """The decision record (the rules of the cluster, section 7); times in microseconds of the boot-time clock."""
        resource, name = facts.resources[spec.name], facts.record.spec.name
        return resource_line(
            "failover-decided",
            f"group {name} goes to {begin.target}: {begin.reason}",
            group=name,
            target=begin.target,
            epoch=facts.record.epoch,
            evidence=f"{spec.name}: {resource.evidence or 'it cannot be opened'}",
            counters={
                "restarts": len(facts.restarts_of(resource.failed_at_us or now, spec, self._session)),
                "restart_threshold": spec.policy.restart_threshold,
                "failovers": failovers[0],
                "failover_threshold": failovers[1],
            },
            candidates={node: reason or "candidate" for node, reason in self._moves.refusals(now, facts).items()},
            phases_us={"failed": resource.failed_at_us, "decided": now},
        )

    def _leave_paused(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        """Nothing goes Online on a Paused node, so a restart in place is none. It does not count as a failover."""
        node = self._session.node
        if spec.policy.restart_action is RestartAction.RESTART:
            return self._stay_failed(facts, spec, f"{node} is Paused, and it may not move")
        begin = self._moves.away_from_pause(now, facts, spec.name)
        if begin is None:
            return self._stay_failed(facts, spec, f"{node} is Paused, and there is no other candidate")
        return [self._orders.change(facts, begin)]

    def _used_up(
        self, now: int, facts: GroupFacts, spec: ResourceSpec, reason: str, id: int = 1069
    ) -> list[Action]:
        """Nothing is left to do, until the retry period is over: then one more attempt, and the whole policy again."""
        resource, period_us = facts.resources[spec.name], spec.policy.retry_period_us
        if period_us is None or resource.state is not ResourceState.FAILED:
            return self._stay_failed(facts, spec, reason, id)
        due = resource.failed_at_us + period_us
        if now < due:
            self._orders.wake(facts, due)
            return self._stay_failed(facts, spec, reason, id)
        change = ForgetRestarts(session=self._session, epoch=facts.record.epoch, resource=spec.name)
        wish = self._orders.change(facts, change, resource=spec.name)
        resource.retry_with = wish.id
        return [wish]

    @staticmethod
    def _stay_failed(facts: GroupFacts, spec: ResourceSpec, reason: str, id: int = 1069) -> list[Action]:
        resource = facts.resources[spec.name]
        if resource.stays == reason:
            return []
        resource.stays = reason
        group = facts.record.spec.name
        message = f"{spec.name} of group {group} stays Failed: {reason}"
        return [resource_line("resource-stays-failed", message, id=id, group=group, resource=spec.name)]
