"""Resource Control Manager: brings the resources of the groups that this session owns to their PersistentState.

It keeps facts (what the register says, what the resource host reported) and decides anew after each of them, one
resource at a time, what single request brings the group nearer to what is wanted. The comparison of wanted and
reported state that the article gives to the resource host is made here, because only the service holds lease and epoch.

What is done for one resource of an owned group that is not being moved, first match wins:

| facts | then |
|---|---|
| a request or a change is under way | wait for its end |
| not opened under this epoch | OPEN, adopting what runs |
| a clean stop by hand was reported | SetPersistentState 0 |
| Online by hand, not wanted | SetPersistentState 1 |
| Failed, not wanted | TERMINATE |
| Failed, failure not yet written down, restarts left | RecordRestart |
| Failed, no restarts left | BeginMove to the next candidate, or stay Failed |
| Failed, written down, restart delay over | TERMINATE, then it is Offline |
| Offline, wanted, providers Online | ONLINE |
| Online, not wanted, or a provider set without any Online | OFFLINE, once no dependent is up |

A group that is being moved: OFFLINE or TERMINATE, dependents first; CLOSE each; Release when every one is proven ended.
A resource of a group that another session may own: OPEN without adopting, so that its stopped machine stands ready.
"""

from dataclasses import replace

from harness.cluster_service.failover import group_key
from harness.cluster_service.ids import Ids
from harness.cluster_service.membership import MembershipManager
from harness.cluster_service.messages import (
    Action,
    CallHost,
    ChangeRegister,
    Event,
    HostConnected,
    HostLost,
    HostReported,
    Log,
    RegisterSeen,
    Reset,
    Settled,
)
from harness.cluster_service.node import NodeManager
from harness.cluster_service.placement import next_after_failure
from harness.cluster_service.resource_facts import GroupFacts, ResourceFacts
from harness.database.proposer import Result
from harness.model.changes import (
    BeginMove,
    CancelMove,
    Change,
    RecordRestart,
    Release,
    SetPersistentState,
)
from harness.model.host import EntryPoint, HostReport, HostRequest, Why
from harness.model.machine import Ending
from harness.model.records import GroupRecord
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import ResourceSpec, RestartAction

__all__ = ["COMPONENT", "ResourceControlManager"]

COMPONENT = "resource-control-manager"

RETRY_US = 100_000
"""After a request that ended with an error: how long until the facts are looked at again."""

OPEN_ATTEMPTS = 3
OPEN_RETRY_LAST_US = 5_000_000
"""So often OPEN may fail in a row before the group goes elsewhere; where it cannot, it is tried on with this pause
at most.
"""

ANSWER_MARGIN_US = 10_000_000
"""The resource host settles each request within the pending-timeout by itself; one that is this much later hangs."""

_CLEAN = (Ending.STOPPED, Ending.SHUT_DOWN)


class ResourceControlManager:
    """Acts on groups whose register names this session, and only while the membership says that it may act."""

    def __init__(
        self,
        *,
        session: Session,
        node: NodeManager,
        membership: MembershipManager,
        ids: Ids,
    ) -> None:
        self._session = session
        self._node = node
        self._membership = membership
        self._ids = ids
        self._host_connected = False
        self._groups: dict[str, GroupFacts] = {}
        self._changes: dict[int, tuple[str, str | None]] = {}
        self._wakes: dict[str, int] = {}
        self._now_us = 0

    def states(self, group: str) -> dict[str, ResourceState]:
        """The reported state of each resource of a group that this session owns, for display."""
        facts = self._groups.get(group)
        return {name: resource.state for name, resource in facts.resources.items()} if facts else {}

    def handle(self, now: int, event: Event) -> list[Action]:
        """Take a fact in; then decide for every group."""
        self._now_us = now
        actions: list[Action] = []
        match event:
            case HostConnected():
                self._host_connected = True
                self._forget_states()
            case HostLost():
                self._host_connected = False
                self._forget_states()
                actions.append(_log("resource-host-lost", "the resource host is gone", id=1146))
            case HostReported():
                actions += self._reported(now, event.report)
            case RegisterSeen(record=GroupRecord() as record):
                actions += self._see_group(record)
            case Settled() if event.id in self._changes:
                actions += self._settled(now, event)
            case _:
                pass
        if not self._host_connected or not self._membership.may_act(now):
            return actions
        self._wakes.clear()
        for facts in self._groups.values():
            actions += self._next_step(now, facts)
        return actions

    def next_wake(self) -> int | None:
        """When a delay of some resource is over."""
        return min(self._wakes.values(), default=None)

    # Facts

    def _owns(self, record: GroupRecord) -> bool:
        """A group is this session's, never this node's: a rebooted node owns nothing that its earlier life owned."""
        return record.owner == self._session

    def _forget_states(self) -> None:
        for facts in self._groups.values():
            for name, old in list(facts.resources.items()):
                facts.resources[name] = ResourceFacts(
                    change=old.change, failure=old.failure, failed_at_us=old.failed_at_us
                )

    def _see_group(self, record: GroupRecord) -> list[Action]:
        name = record.spec.name
        facts = self._groups.get(name)
        if facts is None:
            facts = self._groups[name] = GroupFacts(record)
        old = facts.record
        facts.record = record
        if (old.owner, old.epoch) != (record.owner, record.epoch):
            for resource in facts.resources.values():
                # What a person did by hand was seen under another right, and counts for nothing under this one.
                resource.clean_stop = resource.found_online = False
                resource.stuck_since_us = None
        for spec in record.spec.resources:
            facts.resources.setdefault(spec.name, ResourceFacts())
        return _log_wishes(old, record) if self._owns(record) else []

    def _reported(self, now: int, report: HostReport) -> list[Action]:
        facts = self._groups.get(report.group)
        resource = facts.resources.get(report.resource) if facts else None
        if facts is None or resource is None:
            return []
        owned = self._owns(facts.record)
        before, resource.state = resource.state, report.state
        asked = resource.request
        if asked is not None and report.number == asked.number:
            resource.request = None
            self._request_ended(now, asked, report, resource)
        actions: list[Action] = []
        opened = asked is not None and asked.entry_point is EntryPoint.OPEN
        if not owned or opened:
            return actions
        if report.state is ResourceState.FAILED and before is not ResourceState.FAILED:
            resource.failure = f"{report.epoch}.{report.at_us}"
            resource.failed_at_us = now
            resource.told_no_candidate = False
            actions.append(_log_failure(report))
        elif report.state is ResourceState.OFFLINE and report.live and report.ending in _CLEAN:
            resource.clean_stop = report.number is None and report.epoch == facts.record.epoch
        elif report.state is ResourceState.ONLINE and before is not ResourceState.ONLINE:
            resource.found_online = report.live and asked is None and report.epoch == facts.record.epoch
            actions.append(_log_online(report, facts.record.epoch))
        return actions

    @staticmethod
    def _request_ended(now: int, asked: HostRequest, report: HostReport, resource: ResourceFacts) -> None:
        if report.error is not None:
            resource.not_before_us = now + RETRY_US
            if asked.entry_point is EntryPoint.OPEN:
                resource.open_errors += 1
                resource.not_before_us = now + min(RETRY_US << min(resource.open_errors, 10), OPEN_RETRY_LAST_US)
            elif asked.entry_point is not EntryPoint.ONLINE and resource.stuck_since_us is None:
                resource.stuck_since_us = now
            return
        if asked.entry_point is EntryPoint.OPEN:
            resource.opened_epoch = asked.epoch
            resource.open_errors = 0
        elif asked.entry_point is not EntryPoint.ONLINE:
            resource.stuck_since_us = None
        if asked.entry_point is EntryPoint.CLOSE and report.proof is not None:
            resource.closed_epoch = asked.epoch
            resource.opened_epoch = None
        if asked.entry_point is EntryPoint.TERMINATE and report.proof is not None:
            resource.state = ResourceState.OFFLINE

    def _settled(self, now: int, event: Settled) -> list[Action]:
        group, name = self._changes.pop(event.id)
        facts = self._groups[group]
        if facts.change == event.id:
            facts.change = None
        if name is not None and (resource := facts.resources.get(name)) is not None:
            resource.change = None
            if event.result in (Result.DONE, Result.REFUSED):
                resource.clean_stop = resource.found_online = False
            else:
                resource.not_before_us = now + RETRY_US
        if event.result is Result.DONE:
            return []
        message = f"group {group}: a change was {event.result}: {event.reason or 'no majority answered'}"
        return [replace(_log("change-not-done", message, group=group), lasting=True)]

    # Decisions

    def _next_step(self, now: int, facts: GroupFacts) -> list[Action]:
        hopeless = self._hopeless(now, facts)
        if hopeless is not None:
            return [hopeless]
        if facts.change is not None:
            return []
        if not self._owns(facts.record):
            return self._stand_ready(now, facts)
        if facts.record.move is not None:
            return self._go_on_moving(now, facts)
        actions: list[Action] = []
        for spec in facts.record.spec.resources:
            step = self._next_for(now, facts, spec)
            actions += step
            if any(isinstance(action, ChangeRegister) for action in step):
                break
        return actions

    def _hopeless(self, now: int, facts: GroupFacts) -> Reset | None:
        """This node can neither end a resource nor learn of it: only the end of the session proves anything then."""
        if not self._owns(facts.record):
            return None
        for spec in facts.record.spec.resources:
            resource, limit_us = facts.resources[spec.name], spec.policy.pending_timeout_us
            if resource.stuck_since_us is not None and now - resource.stuck_since_us > limit_us:
                return Reset(f"no proof that {spec.name} has ended within its pending-timeout")
            if resource.request is None:
                continue
            due = resource.asked_us + limit_us + ANSWER_MARGIN_US
            if now > due:
                return Reset(f"the resource host has not settled {resource.request.entry_point} of {spec.name}")
            self._wakes[f"{facts.record.spec.name}/{spec.name}/answer"] = due + 1
        return None

    def _stand_ready(self, now: int, facts: GroupFacts) -> list[Action]:
        """Open what another session owns or may own, without adopting; end what runs here all the same."""
        possible = facts.record.spec.possible_owners
        if possible and self._session.node not in possible:
            return []
        actions: list[Action] = []
        for spec in facts.record.spec.resources:
            resource = facts.resources[spec.name]
            if not self._free(now, spec.name, facts, resource):
                continue
            if resource.opened_epoch is None:
                actions.append(self._call(facts, spec, EntryPoint.OPEN, why=Why.START, adopt=False))
            elif resource.state is ResourceState.ONLINE:
                actions.append(self._call(facts, spec, EntryPoint.TERMINATE, why=Why.RUNDOWN))
        return actions

    def _free(self, now: int, name: str, facts: GroupFacts, resource: ResourceFacts) -> bool:
        if resource.request is not None or resource.change is not None:
            return False
        if now < resource.not_before_us:
            self._wakes[f"{facts.record.spec.name}/{name}"] = resource.not_before_us
            return False
        return True

    def _next_for(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        record, resource = facts.record, facts.resources[spec.name]
        if not self._free(now, spec.name, facts, resource):
            return []
        wanted = record.persistent.get(spec.name, False)
        if resource.opened_epoch != record.epoch:
            may_move = spec.policy.restart_action is RestartAction.RESTART_THEN_FAILOVER
            if resource.open_errors >= OPEN_ATTEMPTS and may_move:
                leave = self._escalate(now, facts, spec)
                if any(isinstance(action, ChangeRegister) for action in leave):
                    return leave
            return [self._call(facts, spec, EntryPoint.OPEN, why=Why.START, adopt=True)]
        if resource.clean_stop and wanted:
            return [self._set_persistent_state(facts, spec.name, wanted=False)]
        if resource.found_online and not wanted:
            return [self._set_persistent_state(facts, spec.name, wanted=True)]
        if resource.state is ResourceState.FAILED:
            return self._next_for_failed(now, facts, spec, wanted)
        providers_online = facts.providers_online(spec)
        if resource.state is ResourceState.OFFLINE and wanted and providers_online:
            return [self._call(facts, spec, EntryPoint.ONLINE, why=Why.START)]
        must_end = not wanted or facts.providers_gone(spec)
        if resource.state is ResourceState.ONLINE and must_end and facts.dependents_down(spec):
            return [self._call(facts, spec, EntryPoint.OFFLINE, why=Why.REQUEST)]
        return []

    def _next_for_failed(
        self, now: int, facts: GroupFacts, spec: ResourceSpec, wanted: bool
    ) -> list[Action]:
        record, resource, policy = facts.record, facts.resources[spec.name], spec.policy
        if not wanted:
            return [self._call(facts, spec, EntryPoint.TERMINATE, why=Why.REQUEST)]
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
                self._wakes[f"{record.spec.name}/{spec.name}"] = due
                return []
            return [self._call(facts, spec, EntryPoint.TERMINATE, why=Why.RESTART)]
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
            return [self._change(facts, change, resource=spec.name)]
        if policy.restart_action is RestartAction.RESTART:
            return self._stay_failed(facts, spec, "its restarts are used up and it may not move")
        return self._escalate(now, facts, spec)

    def _escalate(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        """Restarts are used up: move the group to the next candidate, as long as its failover threshold lets it."""
        group = facts.record.spec
        cluster = self._membership.cluster
        assert cluster is not None
        names = [entry.name for entry in cluster.nodes]
        threshold = group.failover_threshold if group.failover_threshold is not None else len(names) - 1
        recent = [at_us for at_us in facts.record.failovers if 0 <= now - at_us <= group.failover_period_us]
        if len(recent) >= threshold:
            return self._stay_failed(facts, spec, f"{len(recent)} failovers, {threshold} are allowed", id=1254)
        target = self._next_target(now, facts)
        if target is None:
            return self._stay_failed(facts, spec, "there is no other candidate")
        change = BeginMove(
            session=self._session,
            epoch=facts.record.epoch,
            target=target,
            reason=f"{spec.name} failed and its restarts are used up",
            failed_at_us=now,
        )
        return [self._change(facts, change)]

    def _stay_failed(self, facts: GroupFacts, spec: ResourceSpec, reason: str, id: int = 1069) -> list[Action]:
        resource = facts.resources[spec.name]
        if resource.told_no_candidate:
            return []
        resource.told_no_candidate = True
        message = f"{spec.name} of group {facts.record.spec.name} stays Failed: {reason}"
        return [_log("resource-stays-failed", message, id=id, group=facts.record.spec.name, resource=spec.name)]

    def _next_target(self, now: int, facts: GroupFacts) -> str | None:
        cluster = self._membership.cluster
        assert cluster is not None
        alive = self._membership.candidates(now)
        return next_after_failure(
            group=facts.record.spec,
            nodes=[entry.name for entry in cluster.nodes],
            candidates=[entry.name for entry in cluster.nodes if entry.name in alive and not entry.paused],
            failed_on=self._session.node,
        )

    # A move under way

    def _go_on_moving(self, now: int, facts: GroupFacts) -> list[Action]:
        record = facts.record
        actions: list[Action] = []
        for spec in record.spec.resources:
            resource = facts.resources[spec.name]
            if resource.closed_epoch == record.epoch or not self._free(now, spec.name, facts, resource):
                continue
            actions += self._end_resource(facts, spec, resource)
        if all(facts.resources[spec.name].closed_epoch == record.epoch for spec in record.spec.resources):
            actions.append(self._hand_over(now, facts))
        return actions

    def _end_resource(self, facts: GroupFacts, spec: ResourceSpec, resource: ResourceFacts) -> list[Action]:
        if not facts.dependents_closed(spec):
            return []
        if resource.opened_epoch is None and not resource.open_errors:
            # The host has just come back: it must know the resource before it can end it.
            return [self._call(facts, spec, EntryPoint.OPEN, why=Why.MOVE, adopt=True)]
        if resource.state is ResourceState.ONLINE:
            return [self._call(facts, spec, EntryPoint.OFFLINE, why=Why.MOVE)]
        if resource.state.pending and not resource.open_errors:
            return []
        return [self._call(facts, spec, EntryPoint.CLOSE, why=Why.MOVE)]

    def _hand_over(self, now: int, facts: GroupFacts) -> Action:
        record, cluster = facts.record, self._membership.cluster
        assert cluster is not None
        assert record.move is not None
        entry = cluster.node(record.move.target)
        if entry is None or entry.session is None or record.move.target not in self._membership.candidates(now):
            other = self._next_target(now, facts)
            entry = cluster.node(other) if other is not None else None
        if entry is None or entry.session is None:
            return self._change(facts, CancelMove(session=self._session, epoch=record.epoch))
        change = Release(session=self._session, epoch=record.epoch, new_owner=entry.session)
        return self._change(facts, change)

    # Parts

    def _set_persistent_state(self, facts: GroupFacts, name: str, *, wanted: bool) -> Action:
        change = SetPersistentState(
            session=self._session, epoch=facts.record.epoch, resource=name, wanted=wanted
        )
        return self._change(facts, change, resource=name)

    def _change(self, facts: GroupFacts, change: Change, *, resource: str | None = None) -> ChangeRegister:
        name = facts.record.spec.name
        wish = ChangeRegister(id=self._ids.next(), key=group_key(name), change=change)
        self._changes[wish.id] = (name, resource)
        facts.change = wish.id
        if resource is not None:
            facts.resources[resource].change = wish.id
        return wish

    def _call(
        self,
        facts: GroupFacts,
        spec: ResourceSpec,
        entry_point: EntryPoint,
        *,
        why: Why,
        adopt: bool = False,
    ) -> CallHost:
        end = self._node.lease_end_us()
        assert end is not None
        opening = entry_point is EntryPoint.OPEN
        request = HostRequest(
            number=self._ids.next(),
            entry_point=entry_point,
            resource=spec.name,
            group=facts.record.spec.name,
            session=self._session,
            epoch=facts.record.epoch,
            not_after_us=end,
            why=why,
            wanted=facts.record.persistent.get(spec.name, False),
            adopt=adopt,
            spec=spec if opening else None,
        )
        resource = facts.resources[spec.name]
        resource.request, resource.asked_us = request, self._now_us
        return CallHost(request)


def _log(event: str, message: str, *, id: int | None = None, **fields: object) -> Log:
    return Log(component=COMPONENT, event=event, message=message, id=id, fields=fields)


def _log_wishes(old: GroupRecord, new: GroupRecord) -> list[Action]:
    """Tells each change of a PersistentState; the owner does, so that it is told once."""
    return [
        _log(
            "persistent-state",
            f"{name} of group {new.spec.name}: PersistentState is {wanted:d}",
            group=new.spec.name,
            resource=name,
            wanted=wanted,
        )
        for name, wanted in new.persistent.items()
        if old.persistent.get(name) != wanted
    ]


def _log_failure(report: HostReport) -> Log:
    return _log(
        "resource-failed",
        f"{report.resource} of group {report.group} failed: {report.evidence or report.error or 'no evidence'}",
        id=1069,
        group=report.group,
        resource=report.resource,
        ending=report.ending,
        live=report.live,
    )


def _log_online(report: HostReport, epoch: int) -> Log:
    return _log(
        "resource-online",
        f"{report.resource} of group {report.group} is Online",
        group=report.group,
        resource=report.resource,
        epoch=epoch,
    )
