"""Resource Control Manager: brings the resources of the groups that this session owns to their PersistentState.

It keeps facts (what the register says, what the resource host reported) and decides anew after each of them, one
resource at a time, what single request brings the group nearer to what is wanted. The comparison of wanted and
reported state that the article gives to the resource host is made here, because only the service holds lease and epoch.

What is done for one resource of an owned group that is not being moved, first match wins:

| facts | then |
|---|---|
| a request or a change is under way | wait for its end |
| an administrator has asked for something | as `group_requests` says |
| not opened under this epoch | OPEN, adopting what runs |
| a clean stop by hand was reported | SetPersistentState 0 |
| Online by hand, not wanted | RequestState 1, with its providers, as if it had been asked for |
| Failed | as `failure_policy` says |
| there is a reason to move the group | BeginMove, as `group_move` says |
| Offline, wanted, providers Online, this node not Paused | ONLINE, when it is its turn |
| Online, not wanted, or a provider set without any Online | OFFLINE, once no dependent is up |

A group that is being moved: as `group_move` says.
A resource of a group that another session may own: OPEN without adopting, so that its stopped VM stands ready.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import (
    ROUTINE,
    Action,
    ChangeRegister,
    ChangeSettled,
    Event,
    HostConnected,
    HostLost,
    HostReported,
    RegisterSeen,
    ResetNode,
)
from harness.cluster_service.core.pending_requests import OpenRequests
from harness.cluster_service.core.resync import RESYNC_ACTIVE_US, RESYNC_IDLE_US
from harness.cluster_service.membership.membership import MembershipManager
from harness.cluster_service.membership.node import NodeManager
from harness.cluster_service.placement.failover import FailoverManager
from harness.cluster_service.placement.ranking import urgency
from harness.cluster_service.placement.warm_standby import stands_ready
from harness.cluster_service.resources.explanation import restarts_left, why_not_online
from harness.cluster_service.resources.failure_policy import FailurePolicy
from harness.cluster_service.resources.group_move import GroupMove
from harness.cluster_service.resources.group_requests import GroupRequests
from harness.cluster_service.resources.resource_facts import GroupFacts, ResourceFacts
from harness.cluster_service.resources.resource_log import (
    failure_line,
    move_line,
    online_line,
    resource_line,
    wish_lines,
)
from harness.cluster_service.resources.resource_orders import ResourceOrders
from harness.database.proposer import Result
from harness.model.administrative_changes import RequestState
from harness.model.changes import (
    SetPersistentState,
)
from harness.model.host_messages import CallReason, EntryPoint, HostReport, HostRequest
from harness.model.records import GroupRecord
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import ResourceSpec, RestartAction, ShutdownAction
from harness.model.vm import Ending

__all__ = ["ResourceControlManager"]

RETRY_US = 100_000
"""After a request that ended with an error: how long until the facts are looked at again."""

STARTS_AT_ONCE = 8
"""Starts under way on this node. An engine gains nothing from more, measured with up to 125: they would only wait in it
while the time for which their orders are good runs out.
"""

START_PLACE_US = 3_000_000
"""How long a start counts as one of them: many times what eight at once take."""

OPEN_ATTEMPTS = 3
MAX_OPEN_RETRY_US = 5_000_000
"""So often OPEN may fail in a row before the group goes elsewhere; where it cannot, it is tried on with this pause
at most.
"""

ANSWER_MARGIN_US = 10_000_000
"""The resource host settles each request within the pending-timeout by itself; one that is this much later hangs."""

END_NEWS_US = 1_000_000
"""The news of an end took at most 0.6 s on a real engine."""

_CLEAN = (Ending.STOPPED, Ending.SHUT_DOWN)
_BAD = (Ending.CRASHED, Ending.KILLED, Ending.UNKNOWN)


def _failure_of(report: HostReport) -> str:
    """The failure's name: the run that ended, so that whoever hears of it twice counts it once."""
    return f"{report.epoch}.{report.run or report.at_us}"


def _is_about_one_group(event: Event) -> bool:
    if isinstance(event, RegisterSeen):
        return isinstance(event.record, GroupRecord)
    return isinstance(event, (HostReported, ChangeSettled))


class ResourceControlManager:
    """Acts on groups whose register names this session, and only while the membership says that it may act."""

    def __init__(
        self,
        *,
        session: Session,
        node: NodeManager,
        membership: MembershipManager,
        failover: FailoverManager,
        requests: OpenRequests,
        ids: Ids,
        guests_ended_us: Callable[[], int | None],
        hour_of_day: Callable[[], int],
    ) -> None:
        """`guests_ended_us` says when PID 1 may have ended the guests with the lease, as far as these managers must
        reckon with it; None when not since before they were made.
        """
        self._session = session
        self._membership = membership
        self._failover = failover
        self._guests_ended_us = guests_ended_us
        self._host_connected = False
        self._look_at_all_us = self._look_at_settled_us = 0
        self._restless: set[str] = set()
        self._changed: set[str] = set()
        self._places: dict[str, int] = {}
        self._groups: dict[str, GroupFacts] = {}
        self._awake: dict[str, int] = {}
        self._starts: dict[int, int] = {}
        self._held_back: list[tuple[int, int, str]] = []
        self._orders = ResourceOrders(session=session, node=node, ids=ids)
        self._moves = GroupMove(
            session=session,
            membership=membership,
            failover=failover,
            orders=self._orders,
            hour_of_day=hour_of_day,
        )
        self._failures = FailurePolicy(
            session=session, membership=membership, moves=self._moves, orders=self._orders
        )
        self._requests = GroupRequests(session=session, requests=requests, moves=self._moves, orders=self._orders)

    def states(self, group: str) -> dict[str, ResourceState]:
        """The reported state of each resource of a group that this session owns, for display."""
        facts = self._groups.get(group)
        return {name: resource.state for name, resource in facts.resources.items()} if facts else {}

    def told(self, now: int, group: str) -> dict[str, dict[str, Any]]:
        """More about each resource of such a group, for display: why it is not Online, and its restarts left."""
        facts = self._groups.get(group)
        if facts is None:
            return {}
        paused, reasons = self._moves.paused(), self._moves.refusals(now, facts)
        return {
            spec.name: {
                "why": why_not_online(facts, spec, paused=paused, reasons=reasons),
                "restarts_left": restarts_left(now, facts, spec, self._session),
            }
            for spec in facts.record.spec.resources
        }

    def handle(self, now: int, event: Event) -> list[Action]:
        """Take a fact in; then decide for every group."""
        actions: list[Action] = []
        match event:
            case HostConnected():
                self._host_connected = True
                self._forget_states()
            case HostLost():
                self._host_connected = False
                self._forget_states()
                actions.append(resource_line("resource-host-lost", "the resource host is gone", id=1146))
            case HostReported():
                actions += self._reported(now, event.report)
            case RegisterSeen(record=GroupRecord() as record):
                actions += self.seen(record)
            case ChangeSettled():
                actions += self._settled(now, event)
            case _:
                pass
        if not self._host_connected or not self._membership.may_act(now):
            return actions
        for name in self._to_look_at(now, event):
            facts = self._groups[name]
            self._orders.looks_at(name)
            steps = self._next_step(now, facts)
            actions += steps
            if not steps and self._owns(facts.record) and self._is_settled(facts):
                self._restless.discard(name)
        while self._held_back and self._may_start(now):
            _, _, name = heapq.heappop(self._held_back)
            actions += self._next_step(now, self._groups[name])
        return actions

    def _to_look_at(self, now: int, event: Event) -> list[str]:
        """What a fact about one group changes is that group. A fact that may concern all is a look at all of them;
        otherwise those that are as they are wanted are looked at every few seconds, the others more often, and each
        when a time of its own has come.
        """
        names: Iterable[str] = self._awake
        one = _is_about_one_group(event)
        if not (one or isinstance(event, ROUTINE)) or now >= self._look_at_settled_us:
            self._look_at_settled_us, self._look_at_all_us = now + RESYNC_IDLE_US, now + RESYNC_ACTIVE_US
        elif not one or now >= self._look_at_all_us:
            self._look_at_all_us = now + RESYNC_ACTIVE_US
            names = self._restless | self._orders.due(now)
        else:
            names = self._changed | self._orders.due(now)
        awake = self._awake
        found = [name for name in names if name in awake]
        self._changed.clear()
        if len(found) > 1:
            found.sort(key=awake.__getitem__)
        return found

    def _is_settled(self, facts: GroupFacts) -> bool:
        """Whether a group of this session is as it is wanted, and nobody has asked for anything else."""
        record = facts.record
        if facts.change is not None or facts.uncertain or record.move is not None:
            return False
        return record.spec.name not in self._requests.groups() and all(
            resource.is_as_wanted(record.epoch, record.persistent.get(name, False))
            for name, resource in facts.resources.items()
        )

    def next_wake(self, now: int) -> int | None:
        """When a delay of some resource is over."""
        return self._orders.next_wake(now)

    # Facts

    def _owns(self, record: GroupRecord) -> bool:
        """A group is this session's, never this node's: a rebooted node owns nothing that its earlier life owned."""
        return record.owner == self._session

    def _wake(self, group: str) -> None:
        """Something of that group has changed: it is looked at again, in the order in which groups were seen first."""
        self._awake[group] = self._places[group]
        self._changed.add(group)
        self._restless.add(group)

    def _forget_states(self) -> None:
        self._awake = dict(self._places)
        self._restless.update(self._places)
        self._starts.clear()
        self._held_back.clear()
        for facts in self._groups.values():
            for name, old in list(facts.resources.items()):
                facts.resources[name] = ResourceFacts(
                    change=old.change,
                    retry_with=old.retry_with,
                    failure=old.failure,
                    failed_at_us=old.failed_at_us,
                    known=old.known,
                )

    def seen(self, record: GroupRecord) -> list[Action]:
        """A group's register was read."""
        name = record.spec.name
        facts = self._groups.get(name)
        if facts is None:
            facts = self._groups[name] = GroupFacts(record)
            self._places[name] = len(self._places)
        self._wake(name)
        old = facts.record
        facts.record = record
        facts.uncertain = False
        if (old.owner, old.epoch) != (record.owner, record.epoch):
            for resource in facts.resources.values():
                # What a person did by hand was seen under another right, and counts for nothing under this one.
                resource.clean_stop = resource.found_online = resource.try_again = False
                resource.to_fail = ""
                resource.stuck_since_us = None
        for spec in record.spec.resources:
            if spec.name not in facts.resources:
                facts.resources[spec.name] = ResourceFacts()
        actions: list[Action] = [*wish_lines(old, record)] if self._owns(record) else []
        if self._owns(old) and old.move != record.move:
            actions.append(move_line(old, record))
        return actions

    def _reported(self, now: int, report: HostReport) -> list[Action]:
        facts = self._groups.get(report.group)
        resource = facts.resources.get(report.resource) if facts else None
        if facts is None or resource is None:
            return []
        self._wake(report.group)
        owned = self._owns(facts.record)
        before, resource.state = resource.state, report.state
        asked = resource.request
        if asked is not None and report.number == asked.number:
            resource.request = None
            self._starts.pop(asked.number, None)
            self._request_ended(now, asked, report, resource)
        if not owned:
            return []
        if asked is not None and asked.entry_point is EntryPoint.OPEN:
            settled = report.number == asked.number and report.error is None
            return self._found(now, report, facts, resource) if settled else []
        return self._heard(now, report, facts, resource, before, spontaneous=asked is None)

    def _found(self, now: int, report: HostReport, facts: GroupFacts, resource: ResourceFacts) -> list[Action]:
        """OPEN has told how the resource is. One that is wanted and has ended while nobody watched has failed, unless
        PID 1 may have ended it together with the lease.
        """
        watched, resource.known = resource.known or self._guests_ended_us() is None, True
        wanted = facts.record.persistent.get(report.resource, False)
        ended = report.state is ResourceState.OFFLINE and bool(report.run)
        bad = report.ending in _BAD or (report.ending in _CLEAN and self._must_not_stop(facts, report.resource))
        if not (watched and wanted and ended and bad):
            return []
        told = replace(report, evidence=f"ended while nobody watched: {report.evidence or report.ending}")
        resource.become_failed(now, _failure_of(report), told.evidence)
        return [failure_line(told)]

    def _heard(
        self,
        now: int,
        report: HostReport,
        facts: GroupFacts,
        resource: ResourceFacts,
        before: ResourceState,
        *,
        spontaneous: bool,
    ) -> list[Action]:
        """What the resource does, by itself or because of a request."""
        if not resource.known:
            return []  # OPEN will tell
        if report.state is ResourceState.FAILED and report.ending in _BAD and self._may_be_the_lease(now):
            resource.state = ResourceState.OFFLINE
            return []
        clean = report.state is ResourceState.OFFLINE and report.live and report.ending in _CLEAN
        by_itself = report.number is None and report.epoch == facts.record.epoch
        if resource.to_fail and resource.state is ResourceState.OFFLINE and report.proof is not None:
            report = replace(report, evidence="an administrator has asked for it")
            resource.become_failed(now, resource.to_fail, report.evidence)
            return [failure_line(report)]
        if clean and by_itself and self._must_not_stop(facts, report.resource):
            report = replace(report, evidence=f"its shutdown-action is fail: {report.evidence}")
            resource.become_failed(now, _failure_of(report), report.evidence)
            return [failure_line(report)]
        if report.state is ResourceState.FAILED and before is not ResourceState.FAILED:
            resource.become_failed(now, _failure_of(report), report.evidence or report.error or "")
            return [failure_line(report)]
        if clean:
            resource.clean_stop = by_itself
        elif report.state is ResourceState.ONLINE and before is not ResourceState.ONLINE:
            resource.found_online = report.live and spontaneous and report.epoch == facts.record.epoch
            return [online_line(report, facts.record.epoch)]
        return []

    def _may_be_the_lease(self, now: int) -> bool:
        """Whether news of a VM's end may be that of PID 1's ending it: that is no failure of the VM."""
        ended_us = self._guests_ended_us()
        return ended_us is not None and now - ended_us < END_NEWS_US

    @staticmethod
    def _must_not_stop(facts: GroupFacts, name: str) -> bool:
        return facts.record.spec.resource(name).policy.shutdown_action is ShutdownAction.FAIL

    @staticmethod
    def _request_ended(now: int, asked: HostRequest, report: HostReport, resource: ResourceFacts) -> None:
        if report.error is not None:
            resource.not_before_us = now + RETRY_US
            if asked.entry_point is EntryPoint.OPEN:
                resource.evidence = report.error
                resource.open_errors += 1
                resource.not_before_us = now + min(RETRY_US << min(resource.open_errors, 10), MAX_OPEN_RETRY_US)
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
            resource.try_again = False

    def _settled(self, now: int, event: ChangeSettled) -> list[Action]:
        subject = self._orders.ended(event.id)
        if subject is None:
            return []
        group, name = subject
        facts = self._groups[group]
        self._wake(group)
        if facts.change == event.id:
            facts.change = None
        facts.uncertain |= event.result is Result.UNKNOWN
        for one in facts.resources.values():
            if one.retry_with == event.id:
                one.retry_with = None
                one.try_again = event.result is Result.DONE and one.state is ResourceState.FAILED
        if name is not None and (resource := facts.resources.get(name)) is not None:
            resource.change = None
            if event.result in (Result.DONE, Result.REFUSED):
                resource.clean_stop = resource.found_online = False
            else:
                resource.not_before_us = now + RETRY_US
        if event.result is Result.DONE:
            return []
        message = f"group {group}: a change was {event.result}: {event.reason or 'no majority answered'}"
        return [replace(resource_line("change-not-done", message, group=group), lasting=True)]

    # Decisions

    def _next_step(self, now: int, facts: GroupFacts) -> list[Action]:
        hopeless = self._hopeless(now, facts)
        if hopeless is not None:
            return [hopeless]
        if facts.change is not None or facts.uncertain:
            return []
        if not self._owns(facts.record):
            return self._stand_ready(now, facts)
        actions = self._requests.next_for(now, facts)
        if any(isinstance(action, ChangeRegister) for action in actions):
            return actions
        if facts.record.move is not None:
            return actions + self._moves.go_on(now, facts)
        begun = self._moves.begin_if_due(now, facts)
        if begun:
            return actions + begun
        for spec in facts.record.spec.resources:
            step = self._next_for(now, facts, spec)
            actions += step
            if any(isinstance(action, ChangeRegister) for action in step):
                break
        return actions

    def _hopeless(self, now: int, facts: GroupFacts) -> ResetNode | None:
        """This node can neither end a resource nor learn of it: only the end of the session proves anything then."""
        if not self._owns(facts.record):
            return None
        for spec in facts.record.spec.resources:
            resource, limit_us = facts.resources[spec.name], spec.policy.pending_timeout_us
            if resource.stuck_since_us is not None:
                if now - resource.stuck_since_us > limit_us:
                    return ResetNode(f"no proof that {spec.name} has ended within its pending-timeout")
                self._orders.wake(facts, resource.stuck_since_us + limit_us + 1)
            if resource.request is None:
                continue
            due = resource.asked_us + limit_us + ANSWER_MARGIN_US
            if now > due:
                return ResetNode(f"the resource host has not settled {resource.request.entry_point} of {spec.name}")
            self._orders.wake(facts, due + 1)
        return None

    def _start(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        """In its turn: of the groups that wait for other starts to end, the more urgent ones first."""
        group = facts.record.spec
        place = (urgency(group), self._places[group.name], group.name)
        if not self._may_start(now) or (self._held_back and self._held_back[0] < place):
            self._restless.discard(group.name)
            if place not in self._held_back:
                heapq.heappush(self._held_back, place)
            self._orders.wake(facts, min(self._starts.values(), default=now) + START_PLACE_US)
            return []
        call = self._orders.call(now, facts, spec, EntryPoint.ONLINE, why=CallReason.START)
        self._starts[call.request.number] = now
        return [call]

    def _may_start(self, now: int) -> bool:
        """Whether fewer starts are under way than an engine gains by. One that takes long, because its VM is not
        ready or its engine does not answer, holds up no others.
        """
        if len(self._starts) >= STARTS_AT_ONCE:
            self._starts = {number: since for number, since in self._starts.items() if now < since + START_PLACE_US}
        return len(self._starts) < STARTS_AT_ONCE

    def _stand_ready(self, now: int, facts: GroupFacts) -> list[Action]:
        """Open what another session owns or may own, without adopting; end what runs here all the same. When all of it
        is open and ended, nothing is to be done before something of it changes.
        """
        name, possible = facts.record.spec.name, facts.record.spec.possible_owners
        if (possible and self._session.node not in possible) or not self._stands_ready(name, facts):
            self._awake.pop(name, None)
            return []
        actions: list[Action] = []
        for spec in facts.record.spec.resources:
            resource = facts.resources[spec.name]
            if not self._orders.free(now, facts, resource):
                continue
            if resource.opened_epoch is None:
                actions.append(self._orders.call(now, facts, spec, EntryPoint.OPEN, why=CallReason.START, adopt=False))
            elif resource.state is ResourceState.ONLINE:
                actions.append(self._orders.call(now, facts, spec, EntryPoint.TERMINATE, why=CallReason.RUNDOWN))
        if not actions and all(self._is_ready(now, facts.resources[spec.name]) for spec in facts.record.spec.resources):
            self._awake.pop(facts.record.spec.name, None)
        return actions

    def _stands_ready(self, name: str, facts: GroupFacts) -> bool:
        """What was opened once is looked after for as long as it is known here."""
        if any(resource.opened_epoch is not None or resource.request for resource in facts.resources.values()):
            return True
        return stands_ready(self._session.node, name, self._failover.groups_asked())

    @staticmethod
    def _is_ready(now: int, resource: ResourceFacts) -> bool:
        waits = resource.request is not None or resource.change is not None or now < resource.not_before_us
        return not waits and resource.opened_epoch is not None and resource.state is not ResourceState.ONLINE

    def _next_for(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        record, resource = facts.record, facts.resources[spec.name]
        if not self._orders.free(now, facts, resource):
            return []
        wanted = record.persistent.get(spec.name, False)
        if resource.opened_epoch != record.epoch:
            may_move = spec.policy.restart_action is RestartAction.RESTART_THEN_FAILOVER
            if resource.open_errors >= OPEN_ATTEMPTS and may_move:
                leave = self._failures.escalate(now, facts, spec, "cannot be opened here")
                if any(isinstance(action, ChangeRegister) for action in leave):
                    return leave
            return [self._orders.call(now, facts, spec, EntryPoint.OPEN, why=CallReason.START, adopt=True)]
        if resource.clean_stop and wanted:
            off = SetPersistentState(session=self._session, epoch=record.epoch, resource=spec.name, wanted=False)
            return [self._orders.change(facts, off, resource=spec.name)]
        if resource.found_online and not wanted:
            on = RequestState(owner=self._session, epoch=record.epoch, resource=spec.name, wanted=True)
            return [self._orders.change(facts, on, resource=spec.name)]
        if resource.to_fail and resource.state is ResourceState.ONLINE:
            return [self._orders.call(now, facts, spec, EntryPoint.TERMINATE, why=CallReason.REQUEST)]
        if resource.state is ResourceState.FAILED:
            return self._failures.next_for(now, facts, spec, wanted)
        held = self._moves.paused() or self._requests.holds_starts(record.spec.name)
        if resource.state is ResourceState.OFFLINE and wanted and not held and facts.providers_online(spec):
            return self._start(now, facts, spec)
        must_end = not wanted or facts.providers_gone(spec)
        if resource.state is ResourceState.ONLINE and must_end and facts.dependents_down(spec):
            return [self._orders.call(now, facts, spec, EntryPoint.OFFLINE, why=CallReason.REQUEST)]
        return []
