"""Broken clusters, continued: each sends groups where the rules of the cluster do not, or at the wrong time, or counts
as a failure what is none.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from harness.cluster_service.administration.drain import DrainManager
from harness.cluster_service.core.messages import Action, CallHost, ChangeRegister
from harness.cluster_service.placement.failover import FailoverManager
from harness.cluster_service.resources.group_move import GroupMove
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.cluster_service.resources.resource_facts import GroupFacts
from harness.cluster_service.service import ClusterService
from harness.model.changes import BeginMove, Claim, Record, Refusal
from harness.model.host_messages import EntryPoint
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry, ResumeFailback
from harness.model.session import Session
from harness.model.states import DrainState
from harness.model.topology import SECOND_US, Failback, GroupSpec, Priority, ResourceSpec, RestartAction
from harness.simulation.plants import Plant, service_of
from harness.simulation.plants_of_policy import with_policy

__all__ = ["PLANTS_OF_PLACES"]

HOUR_US = 3600 * SECOND_US


def moves_of(weak: type[GroupMove]) -> Callable[..., ClusterService]:
    """What makes a service whose groups move in that way."""
    return service_of("resource_control._moves", weak)


# Preferred owners


class _ClaimsByLoad(FailoverManager):
    def _places(self, now: int, cluster: ClusterRecord, orphans: list[GroupSpec]) -> dict[str, int]:
        return super()._places(now, cluster, [replace(group, preferred_owners=()) for group in orphans])


class ClaimsIgnorePreferredOwners(Plant):
    """What a lost node owned goes to whoever owns least, and not to a preferred owner (the rules, section 5)."""

    group = {"preferred-owners": ["node3", "node2", "node1"]}
    service = service_of("failover", _ClaimsByLoad)


class _ClaimsAtOnce(FailoverManager):
    def _places(self, now: int, cluster: ClusterRecord, orphans: list[GroupSpec]) -> dict[str, int]:
        return dict.fromkeys(super()._places(now, cluster, orphans), 0)


class ClaimsIgnoreTurns(Plant):
    """What a lost node owned is claimed by whoever sees first that it is lost (finding 14)."""

    service = service_of("failover", _ClaimsAtOnce)


class _CountsNoGroups(FailoverManager):
    def groups_owned(self, group: GroupSpec) -> Mapping[str, int]:
        del group
        return {}


class ClaimsIgnoreLoads(Plant):
    """What a lost node owned goes to nodes in turn, and not to whoever owns least (the rules, section 5)."""

    service = service_of("failover", _CountsNoGroups)


class _WaitsForNobody(FailoverManager):
    def _is_over(self, now: int, cluster: ClusterRecord, owner: Session | None) -> bool:
        return owner is None or super()._is_over(now, cluster, owner)


class GroupWaitIsIgnored(Plant):
    """A cluster that starts places its groups on whoever comes first (group-wait; the rules, section 5)."""

    service = service_of("failover", _WaitsForNobody)


class _MovesAnywhere(GroupMove):
    def refusals(self, now: int, facts: GroupFacts) -> dict[str, str]:
        return super().refusals(now, replace(facts, record=_said(facts.record, possible_owners=())))


class MovesIgnorePossibleOwners(Plant):
    """A group is moved to a node that is no possible owner of it (the rules of the cluster, section 5)."""

    group = {"possible-owners": ["node1", "node2"]}
    service = moves_of(_MovesAnywhere)


class _MovesToThePaused(GroupMove):
    def refusals(self, now: int, facts: GroupFacts) -> dict[str, str]:
        return {
            name: "" if reason == "it is Paused" else reason
            for name, reason in super().refusals(now, facts).items()
        }


class MovesGoToThePaused(Plant):
    """A group is moved to a Paused node although another could take it (the rules of the cluster, section 5)."""

    service = moves_of(_MovesToThePaused)


class _EmptiesThePaused(GroupMove):
    def _leave_paused(self, now: int, facts: GroupFacts) -> BeginMove | None:
        return self.away_from_pause(now, facts, facts.record.spec.name) if self.paused() else None


class PausedNodesAreEmptied(Plant):
    """What runs on a node that is Paused, and not drained, is moved away (the rules of the cluster, section 5)."""

    service = moves_of(_EmptiesThePaused)


class _MovesByLoad(FailoverManager):
    def targets(self, groups: list[GroupSpec], able: Any) -> dict[str, list[str]]:
        return super().targets([replace(group, preferred_owners=()) for group in groups], able)


class MovesIgnorePreferredOwners(Plant):
    """A drain moves groups to whoever owns least, and not to a preferred owner (the rules, section 5)."""

    group = {"preferred-owners": ["node3", "node2", "node1"]}
    service = service_of("failover", _MovesByLoad)


class _TakesTheFirst(GroupMove):
    def next_target(self, now: int, facts: GroupFacts) -> str | None:
        return next((name for name, reason in self.refusals(now, facts).items() if not reason), None)


class FailuresGoToTheFirst(Plant):
    """After a failure a group goes to the first candidate of all, not to the next one (the rules, section 5)."""

    service = moves_of(_TakesTheFirst)


# Failback


def going_back(weaken: Callable[[GroupRecord], GroupRecord]) -> Callable[..., ClusterService]:
    """What makes a service whose groups go back by what `weaken` makes of their records."""

    class Weak(GroupMove):
        def _go_back(self, now: int, facts: GroupFacts) -> BeginMove | None:
            return super()._go_back(now, replace(facts, record=weaken(facts.record)))

    return moves_of(Weak)


def _said(record: GroupRecord, **said: Any) -> GroupRecord:
    return replace(record, spec=replace(record.spec, **said))


class FailbackIsNeverDone(Plant):
    """A group stays where it is although its most preferred owner is Up again (failback; the rules, section 5)."""

    unrest = True
    group = {"failback": "allow", "preferred-owners": ["node1", "node2", "node3"]}
    service = going_back(lambda record: _said(record, failback=Failback.PREVENT))


class ResumeBringsNothingBack(Plant):
    """What a drain moved away stays there after a resume with failback immediate (the rules, section 5)."""

    unrest = True
    service = going_back(lambda record: replace(record, drained=None))


class _ResumesAtOnce(GroupMove):
    def _cluster(self) -> ClusterRecord:
        cluster = super()._cluster()
        return replace(
            cluster, nodes=tuple(replace(entry, failback=ResumeFailback.IMMEDIATE) for entry in cluster.nodes)
        )


class ResumeBringsAllBack(Plant):
    """What a drain moved away goes back although the resume asked for failback none (the rules, section 5)."""

    service = moves_of(_ResumesAtOnce)


class FailbackIsNotPrevented(Plant):
    """A group goes back to its preferred owner although its failback is prevent (the rules, section 5)."""

    group = {"preferred-owners": ["node1", "node2", "node3"]}
    service = going_back(lambda record: _said(record, failback=Failback.ALLOW))


class FailbackWindowIsIgnored(Plant):
    """A group goes back to its preferred owner outside of its failback-window (the rules, section 5)."""

    group = {"failback": "allow", "failback-window": [12, 13], "preferred-owners": ["node1", "node2", "node3"]}
    service = going_back(lambda record: _said(record, failback_window=None))


class FailbackToWhereItFailed(Plant):
    """A group goes back to where it has just failed, and fails again (failback; docs/rules.md)."""

    group = {"failback": "allow", "preferred-owners": ["node1", "node2", "node3"]}
    service = going_back(lambda record: replace(record, left=()))


# Failures


class RestartsOnlyIsIgnored(Plant):
    """A group moves for a VM whose restart-action is restart (the rules, section 4)."""

    vm = {"restart-action": "restart"}
    service = with_policy(restart_action=RestartAction.RESTART_THEN_FAILOVER)


class StaysFailedIsIgnored(Plant):
    """A VM whose restart-action is none is restarted all the same (the rules, section 4)."""

    vm = {"restart-action": "none"}
    service = with_policy(restart_action=RestartAction.RESTART)


class _CountsTheClaim(Claim):
    def apply(self, record: Record | None) -> Record | Refusal:
        claimed = super().apply(record)
        if isinstance(claimed, GroupRecord) and self.owner is not None:
            return replace(claimed, failovers=(*claimed.failovers, 0))
        return claimed


class _CountsNodeDeaths(FailoverManager):
    def _claim_orphans(self, now: int) -> list[Action]:
        return [
            replace(action, change=_counted(action.change))
            if isinstance(action, ChangeRegister) and isinstance(action.change, Claim)
            else action
            for action in super()._claim_orphans(now)
        ]


def _counted(claim: Claim) -> Claim:
    return _CountsTheClaim(claimant=claim.claimant, owner=claim.owner, epoch=claim.epoch)


class NodeDeathsAreCounted(Plant):
    """A move after a node's death uses up a failover of the group (finding 18, and the rules, section 5)."""

    group = {"failover-threshold": 1}
    service = service_of("failover", _CountsNodeDeaths)


class _StopsAreFailures(ResourceControlManager):
    @staticmethod
    def _must_not_stop(facts: GroupFacts, name: str) -> bool:
        del facts, name
        return True


class StopsAreFailures(Plant):
    """A VM that somebody stops by hand is started again (out-of-band changes; the rules, section 3)."""

    service = service_of("resource_control", _StopsAreFailures)


class _LeavesItRunning(ResourceControlManager):
    def _stand_ready(self, now: int, facts: GroupFacts) -> list[Action]:
        left: list[Action] = []
        for call in super()._stand_ready(now, facts):
            if isinstance(call, CallHost) and call.request.entry_point is EntryPoint.TERMINATE:
                facts.resources[call.request.resource].request = None
            else:
                left.append(call)
        return left


class StrayVmsRunOn(Plant):
    """A VM that somebody starts by hand where its group is not runs on there (the rules, section 3)."""

    unrest = True
    service = service_of("resource_control", _LeavesItRunning)


# Time-outs, order of starting, dependents


class _WaitsForEver(ResourceControlManager):
    given: dict[str, Any] = {}

    def seen(self, record: GroupRecord) -> list[Action]:
        specs = tuple(
            replace(spec, policy=replace(spec.policy, **self.given)) for spec in record.spec.resources
        )
        return super().seen(replace(record, spec=replace(record.spec, resources=specs)))


class _PendingForEver(_WaitsForEver):
    given = {"pending_timeout_us": 24 * HOUR_US}


class PendingTimeoutIsIgnored(Plant):
    """A VM that never becomes ready is OnlinePending for ever (pending-timeout; the rules, section 4)."""

    unrest = True
    vm = {
        "pending-timeout": "3s",
        "restart-action": "restart",
        "readiness": {"command": ["false"]},
    }
    service = service_of("resource_control", _PendingForEver)


class _DeadlockedForEver(_WaitsForEver):
    given = {"deadlock_timeout_us": 24 * HOUR_US}


class DeadlockTimeoutIsIgnored(Plant):
    """An entry point that does not return is waited for (deadlock-timeout; the rules, section 4)."""

    vm = {"deadlock-timeout": "1s"}
    service = service_of("resource_control", _DeadlockedForEver)


class _InAnyOrder(ResourceControlManager):
    def _start(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        group = replace(facts.record.spec, priority=Priority.MEDIUM)
        return super()._start(now, replace(facts, record=replace(facts.record, spec=group)), spec)


class PriorityIsIgnored(Plant):
    """VMs that wait for others to start go in any order (priority; the rules of the cluster, section 5)."""

    groups = 33
    last_group = {"priority": "high"}
    service = service_of("resource_control", _InAnyOrder)


class _StartsAll(ResourceControlManager):
    def seen(self, record: GroupRecord) -> list[Action]:
        if record.spec.priority is Priority.NO_AUTO_START:
            record = replace(record, persistent=dict.fromkeys(record.persistent, True))
        return super().seen(record)


class NoAutoStartIsIgnored(Plant):
    """A group that waits until somebody asks for it starts with the cluster (priority; the rules, section 5)."""

    group = {"priority": "no-auto-start"}
    service = service_of("resource_control", _StartsAll)


class _NeedsNoProvider(GroupFacts):
    __slots__ = ()

    def providers_gone(self, spec: ResourceSpec) -> bool:
        del spec
        return False


class _GoesOnWithout(ResourceControlManager):
    def _next_for(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        facts.__class__ = _NeedsNoProvider
        return super()._next_for(now, facts, spec)


class DependentsGoOn(Plant):
    """A VM goes on although the last address that it needs is gone (the rules of the cluster, section 4)."""

    unrest = True
    address = {"restart-action": "none"}
    service = service_of("resource_control", _GoesOnWithout)


# Drains


class _IsDoneAtOnce(DrainManager):
    def _next_step(self, now: int, cluster: ClusterRecord, entry: NodeEntry, watched: Any) -> list[Action]:
        if watched.ending is not None:
            return super()._next_step(now, cluster, entry, watched)
        return self._end(watched, DrainState.COMPLETED, f"{entry.name} is drained")


class DrainsEndAtOnce(Plant):
    """A drain is told Completed while the node still owns groups (the rules of the cluster, section 5)."""

    service = service_of("drain", _IsDoneAtOnce)


class _MovesNothing(GroupMove):
    def _drain(self, now: int, facts: GroupFacts) -> BeginMove | None:
        del now, facts
        return None


class DrainsMoveNothing(Plant):
    """A drain is begun, and no group leaves the node (the rules of the cluster, section 5)."""

    unrest = True
    service = moves_of(_MovesNothing)


PLANTS_OF_PLACES: tuple[type[Plant], ...] = (
    ClaimsIgnorePreferredOwners,
    ClaimsIgnoreTurns,
    ClaimsIgnoreLoads,
    GroupWaitIsIgnored,
    MovesIgnorePreferredOwners,
    MovesIgnorePossibleOwners,
    MovesGoToThePaused,
    PausedNodesAreEmptied,
    FailuresGoToTheFirst,
    FailbackIsNeverDone,
    ResumeBringsNothingBack,
    ResumeBringsAllBack,
    FailbackIsNotPrevented,
    FailbackWindowIsIgnored,
    FailbackToWhereItFailed,
    RestartsOnlyIsIgnored,
    StaysFailedIsIgnored,
    NodeDeathsAreCounted,
    StopsAreFailures,
    StrayVmsRunOn,
    PendingTimeoutIsIgnored,
    DeadlockTimeoutIsIgnored,
    PriorityIsIgnored,
    NoAutoStartIsIgnored,
    DependentsGoOn,
    DrainsEndAtOnce,
    DrainsMoveNothing,
)
