"""For each scenario a cluster without the rule that it is about. Only here, and in `harness.simulation.plants`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness.cluster_service.core.messages import Action, CallHost, ChangeRegister, Event, RequestReceived
from harness.cluster_service.database import DatabaseManager
from harness.cluster_service.membership.membership import MembershipManager
from harness.cluster_service.membership.voter_set import VoterSetManager
from harness.cluster_service.placement.failover import FailoverManager
from harness.cluster_service.program_liveness import ProgramWatch
from harness.cluster_service.resources.group_move import GroupMove
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.cluster_service.service import ClusterService, ServiceConfiguration
from harness.database.acceptor import Acceptor
from harness.database.protocol import Admit, Call, Form, Hello, RefusalReason, Reply
from harness.model.administrative_changes import RequestState
from harness.model.changes import SetPersistentState
from harness.model.host_messages import CallReason, EntryPoint
from harness.model.records import GroupRecord, SessionState
from harness.model.topology import Failback, RestartAction
from harness.simulation.plants import (
    Plant,
    StoppedNotRemovedAtFence,
    StoppedNotRemovedAtJoin,
    service_of,
    service_with,
)
from harness.simulation.plants_of_belief import PlacedOnThePaused
from harness.simulation.plants_of_policy import (
    AlternativesAreAllNeeded,
    FailoversAreNotCounted,
    NothingIsRetried,
    PossibleOwnersAreIgnored,
    RestartDelayIsIgnored,
    RestartsAreNotCounted,
    with_policy,
)
from harness.simulation.plants_of_rules import MinorityKeepsItsLease, PersistentStateIsIgnored
from harness.simulation.world.composition import Composition

__all__ = ["SWITCHED_OFF"]


def _weakened(weaken: Callable[[Any], None]) -> type[Composition]:
    """A composition whose services have managers that `weaken` has changed."""

    class Weakened(Plant):
        service = service_with(weaken)

    return Weakened


def _with(manager: str, weak: type) -> type[Composition]:
    """A composition whose services have that manager with another class."""

    class Weakened(Plant):
        service = service_of(manager, weak)

    return Weakened


class _NobodyIsLost(MembershipManager):
    def _declare_lost(self, _now: int) -> list[Action]:
        return []


class _RecoversFromOneLoss(FailoverManager):
    """Takes over what the first node that is lost has left, and looks no further."""

    def _claim_orphans(self, now: int) -> list[Action]:
        lost: set[Any] = self.__dict__.setdefault("_lost_so_far", set())
        if self._membership.cluster is not None:
            down = [entry for entry in self._membership.cluster.nodes if entry.state is SessionState.DOWN]
            lost.update(entry.session for entry in down)
        return super()._claim_orphans(now) if len(lost) < 2 else []


class _AsksOnce(DatabaseManager):
    def _hello_if_due(self, now: int, actions: list[Action]) -> None:
        super()._hello_if_due(now, actions)
        self._next_hello_us = 1 << 62


class _WantsNothingElse(ResourceControlManager):
    """A start by hand is a wish for that VM alone."""

    def _next_for(self, now: int, facts: Any, spec: Any) -> list[Action]:
        actions = super()._next_for(now, facts, spec)
        return [
            replace(action, change=self._alone(action.change))
            if isinstance(action, ChangeRegister) and isinstance(action.change, RequestState)
            else action
            for action in actions
        ]

    def _alone(self, change: RequestState) -> SetPersistentState:
        return SetPersistentState(
            session=self._session, epoch=change.epoch, resource=str(change.resource), wanted=change.wanted
        )


class _GoesBack(ResourceControlManager):
    def seen(self, record: GroupRecord) -> list[Action]:
        return super().seen(replace(record, spec=replace(record.spec, failback=Failback.ALLOW)))


class _LetsItRun(ResourceControlManager):
    def _stand_ready(self, now: int, facts: Any) -> list[Action]:
        return [
            action
            for action in super()._stand_ready(now, facts)
            if not (isinstance(action, CallHost) and action.request.entry_point is EntryPoint.TERMINATE)
        ]


class _RestartsAllTheSame(Plant):
    service = with_policy(restart_action=RestartAction.RESTART)


class _PrefersNobody(ResourceControlManager):
    def seen(self, record: GroupRecord) -> list[Action]:
        return super().seen(replace(record, spec=replace(record.spec, preferred_owners=())))


class _NeverGoesBack(GroupMove):
    def _go_back(self, now: int, facts: Any) -> None:
        del now, facts


def _never_go_back(managers: Any) -> None:
    managers.resource_control._moves.__class__ = _NeverGoesBack


class _NothingGoesBack(Plant):
    service = service_with(_never_go_back)


class _WaitsForEver(ResourceControlManager):
    """The pending-timeout is an hour."""

    def seen(self, record: GroupRecord) -> list[Action]:
        specs = tuple(
            replace(spec, policy=replace(spec.policy, pending_timeout_us=3_600_000_000))
            for spec in record.spec.resources
        )
        return super().seen(replace(record, spec=replace(record.spec, resources=specs)))


class _VotesStay(VoterSetManager):
    def _to_remove(self, *_arguments: Any) -> str:
        return ""


class _NobodyIsAdded(VoterSetManager):
    def _add(self, *_arguments: Any) -> list[Action]:
        return []


class _LooksAway(ProgramWatch):
    def handle(self, now: int, event: Event) -> list[Action]:
        del now, event
        return []


class _StartsAgain(ResourceControlManager):
    """Has a VM ended and started for every request, whatever it does at the moment."""

    def handle(self, now: int, event: Event) -> list[Action]:
        actions = super().handle(now, event)
        if isinstance(event, RequestReceived) and event.call == "resource.online":
            for facts in self._groups.values():
                for spec in facts.record.spec.resources if self._owns(facts.record) else ():
                    facts.resources[spec.name].request = None
                    actions.append(self._orders.call(now, facts, spec, EntryPoint.TERMINATE, why=CallReason.REQUEST))
        return actions


class _SilentWitness(Acceptor):
    def handle(self, call: Call, *, clock_us: int) -> Reply:
        if self.voter == "witness" and clock_us > 5_000_000 and not isinstance(call, Hello | Form | Admit):
            return self._refuse(call, RefusalReason.BEHIND)
        return super().handle(call, clock_us=clock_us)


class _WitnessIsSilent(Plant):
    def acceptor(self) -> Acceptor:
        return _SilentWitness()


class _ProgramsAreNotWatched(Plant):
    def service(self, *, configuration: ServiceConfiguration, jitter: Callable[[], float]) -> ClusterService:
        service = super().service(configuration=configuration, jitter=jitter)
        service._programs.__class__ = _LooksAway
        return service


class _NothingIsRemoved(StoppedNotRemovedAtJoin):
    vmms = StoppedNotRemovedAtFence.vmms


SWITCHED_OFF: dict[str, type[Composition]] = {
    "asked-during-the-recovery": PersistentStateIsIgnored,
    "asked-twice-started-once": _with("resource_control", _StartsAgain),
    "drained-node-gets-its-groups-back": _NothingGoesBack,
    "failover-threshold-is-kept": FailoversAreNotCounted,
    "next-preferred-owner": _with("resource_control", _PrefersNobody),
    "no-restart-is-none": _RestartsAllTheSame,
    "one-of-two-addresses-is-enough": AlternativesAreAllNeeded,
    "second-restart-waits": RestartDelayIsIgnored,
    "not-ready-in-time": _with("resource_control", _WaitsForEver),
    "tried-again-after-the-retry-period": NothingIsRetried,
    "witness-keeps-the-majority": _WitnessIsSilent,
    "all-networks-lost": MinorityKeepsItsLease,
    "claimant-lost-during-the-failover": _with("failover", _RecoversFromOneLoss),
    "database-unreadable": MinorityKeepsItsLease,
    "failed-stays-failed": FailoversAreNotCounted,
    "late-start": _NothingIsRemoved,
    "no-possible-node": PossibleOwnersAreIgnored,
    "nodes-lost-one-after-another": _with("voter_set", _VotesStay),
    "paused-node-gets-nothing": PlacedOnThePaused,
    "recovered-node-starts-nothing": _with("resource_control", _GoesBack),
    "resource-host-hangs": _ProgramsAreNotWatched,
    "restart-then-relocate": RestartsAreNotCounted,
    "single-node-network-loss": _with("membership", _NobodyIsLost),
    "start-without-network": _with("database", _AsksOnce),
    "started-by-hand-elsewhere": _with("resource_control", _LetsItRun),
    "started-by-hand-on-its-owner": _with("resource_control", _WantsNothingElse),
    "stopped-by-hand": PersistentStateIsIgnored,
    "voter-comes-back-empty": _with("voter_set", _NobodyIsAdded),
}
