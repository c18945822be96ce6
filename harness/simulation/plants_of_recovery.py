"""Broken clusters, continued: who judges, who is switched off and on, who claims, and what an owner believes of stops.

Like those of `plants`, they exist only as compositions of a simulated world.
"""

from dataclasses import dataclass, replace
from typing import Any

from harness.cluster_service.core.messages import Action, CallHost, Event
from harness.cluster_service.membership.fencing import FencingManager
from harness.cluster_service.membership.lease import LeaseView
from harness.cluster_service.membership.node import NodeManager
from harness.cluster_service.placement.failover import FailoverManager
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.cluster_service.resources.resource_facts import GroupFacts, ResourceFacts
from harness.database.protocol import BeatAnswer
from harness.errors import EngineError
from harness.model.changes import Record, Refusal, SetPersistentState
from harness.model.host_messages import EntryPoint, HostReport
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import Fencing, ResourceSpec
from harness.model.vm import Ending
from harness.ports import Container
from harness.simulation.plants import Plant, service_of, vmms_with, with_power
from harness.simulation.plants_of_belief import with_leases, with_watch
from harness.vmms.engine_event_watcher import EngineEventWatcher
from harness.vmms.power import Power
from harness.vmms.vmms import Vmms

__all__ = ["PLANTS_OF_RECOVERY"]

FOR_EVER_US = 1 << 60
AGAIN_US = 250_000


# Judging others, and the own lease


class _BelievesFirstSight(LeaseView):
    """Judges with its first renewal, by what each voter says at once of how long ago the others have renewed."""

    def may_judge(self, now: int) -> bool:
        return self.end_us is not None and now < self.end_us

    def _see_peers(self, now: int, seen: Any, answer: BeatAnswer) -> None:
        super()._see_peers(now, seen, answer)
        for lease in answer.leases:
            seen.peers[lease.session].renewed_us = lease.at_us + now - answer.clock_us
        self.breaks += 1

    def expires_us(self, session: str) -> int | None:
        heard = sorted(voter.peers[session].renewed_us for voter in self._voters.values() if session in voter.peers)
        return heard[self._majority - 1] + self.lease_us if len(heard) >= self._majority else None

    def expired(self, now: int, session: str) -> bool:
        ends_us = self.expires_us(session)
        return ends_us is not None and now >= ends_us


class JudgesAtOnce(Plant):
    """A survivor judges others with its first renewal, while its own lease has just been broken (finding 7)."""

    service = service_of("node", with_leases(_BelievesFirstSight))


class _NewestCounts(LeaseView):
    def _reckon_end(self) -> int | None:
        counted = [voter.counted_us for voter in self._voters.values() if voter.counted_us is not None]
        return max(counted) + self.lease_us if len(counted) >= self._majority else None


class LeaseEndsByTheNewest(Plant):
    """A lease ends a lease after the newest renewal, and not after the one that makes a majority (finding 21)."""

    fencing = Fencing.SELF
    service = service_of("node", with_leases(_NewestCounts))


class _CountsUnderAnySet(NodeManager):
    def handle(self, now: int, event: Event) -> list[Action]:
        before = self._leases
        actions = super().handle(now, event)
        if before is not None and self._leases is not None and self._leases is not before:
            for name, voter in self._leases._voters.items():
                if before._lives.get(name) == self._leases._lives[name]:
                    voter.counted_us = before._voters[name].counted_us
        return actions


class LeaseCountsOverTwoSets(Plant):
    """What voters have renewed under two versions of their set makes one lease (design, section 4)."""

    nodes = 5
    service = service_of("node", _CountsUnderAnySet)


# Recovery


class _RecoversOnce(FailoverManager):
    """Claims at the moment in which it learns that an owner is over, or never."""

    MOMENT_US = 200_000
    _learned_us: dict[Session, int]

    def _see_lost(self, now: int, cluster: ClusterRecord) -> None:
        super()._see_lost(now, cluster)
        first = "_learned_us" not in self.__dict__
        learned = self.__dict__.setdefault("_learned_us", {})
        for session in self._over_us:
            learned.setdefault(session, -FOR_EVER_US if first else now)

    def _is_over(self, now: int, cluster: ClusterRecord, owner: Session | None) -> bool:
        over = super()._is_over(now, cluster, owner)
        return over and (owner is None or now < self._learned_us.get(owner, 0) + self.MOMENT_US)


class RecoveryIsAnEdge(Plant):
    """Groups are claimed at the moment at which their owner is fenced, by who is first in turn, or never (finding 14).
    """

    unrest = True
    service = service_of("failover", _RecoversOnce)


class _FirstInTurnOnly(FencingManager):
    def _next_step(self, now: int, entry: NodeEntry) -> list[Action]:
        if self._membership.turn_of(now, without=entry.name):
            return []
        return super()._next_step(now, entry)


class TurnsAreNotPassedOn(Plant):
    """Only the first in turn fences a Down session, however often that fails (finding 14)."""

    service = service_of("fencing", _FirstInTurnOnly)


# The switch of a node's power


class _FencesHoweverLate(Power):
    """Tries until it has succeeded."""

    async def fence(self, session: Session, *, not_after_us: int) -> None:
        del not_after_us
        while True:
            try:
                await super().fence(session, not_after_us=FOR_EVER_US)
            except EngineError:
                await self._runtime.sleep(AGAIN_US)
            else:
                return


class FencesComeLate(Plant):
    """A fence outlives the lease under which it was ordered, and ends the node's next session (finding 16)."""

    vmms = vmms_with(with_power(_FencesHoweverLate))


class _LeavesThemOff(FencingManager):
    def _power_on(self, now: int, entry: NodeEntry) -> list[Action]:
        del now, entry
        return []

    def _power_on_without_quorum(self, now: int) -> list[Action]:
        del now
        return []


class _SwitchesOffOnly(Vmms):
    async def _power_on_again(self, node: str) -> None:
        del node


def _switch_off_only(vmms: Any) -> None:
    vmms.__class__ = _SwitchesOffOnly


class FencedNodesStayOff(Plant):
    """Nobody switches a fenced node on again (findings 7 and 16)."""

    service = service_of("fencing", _LeavesThemOff)
    vmms = vmms_with(_switch_off_only)


# What an owner does with what runs, and with what has stopped


class _OpensAfresh(ResourceControlManager):
    def _next_for(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        return [_not_adopting(action) for action in super()._next_for(now, facts, spec)]


def _not_adopting(action: Action) -> Action:
    if isinstance(action, CallHost) and action.request.entry_point is EntryPoint.OPEN:
        return CallHost(replace(action.request, adopt=False))
    return action


class OpenEndsWhatRuns(Plant):
    """A service that starts makes sure that its VMs are offline, the healthy ones too (finding 21)."""

    service = service_of("resource_control", _OpensAfresh)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SetsForAnybody(SetPersistentState):
    """Whoever owns the group by now."""

    def apply(self, record: Record | None) -> Record | Refusal:
        if not isinstance(record, GroupRecord) or record.owner is None:
            return Refusal("nobody owns the group")
        change = SetPersistentState(
            session=record.owner, epoch=record.epoch, resource=self.resource, wanted=self.wanted
        )
        return change.apply(record)


class _WritesWhatItSaw(ResourceControlManager):
    """Takes what has ended in a group that it has given away for stopped on purpose."""

    def seen(self, record: GroupRecord) -> list[Action]:
        facts = self._groups.get(record.spec.name)
        given_away = facts is not None and self._owns(facts.record) and not self._owns(record)
        actions = super().seen(record)
        if facts is not None and given_away:
            for spec in record.spec.resources:
                resource = facts.resources[spec.name]
                resource.clean_stop = spec.type == "virtual-machine" and resource.state is ResourceState.OFFLINE
        return actions

    def _stand_ready(self, now: int, facts: GroupFacts) -> list[Action]:
        for name, resource in facts.resources.items():
            if resource.clean_stop and resource.change is None and facts.record.persistent.get(name, False):
                change = _SetsForAnybody(session=self._session, epoch=facts.record.epoch, resource=name, wanted=False)
                return [self._orders.change(facts, change, resource=name)]
        return super()._stand_ready(now, facts)


class StopsOutliveOwnership(Plant):
    """A node writes PersistentState 0 for what it saw stop in a group that has another owner by then (finding 8 d)."""

    service = service_of("resource_control", _WritesWhatItSaw)


class _TakesFoundForStopped(EngineEventWatcher):
    def _agree(self, listed: list[Container], versions: dict[str, int]) -> bool:
        settled = super()._agree(listed, versions)
        for box in self._boxes():
            if box.ending is Ending.UNKNOWN:
                box.conclude(Ending.STOPPED, "found stopped by listing")
        return settled


class _BelievesReplays(ResourceControlManager):
    def _heard(self, now: int, report: HostReport, *rest: Any, **named: Any) -> list[Action]:
        return super()._heard(now, replace(report, live=True), *rest, **named)

    def _found(self, now: int, report: HostReport, facts: GroupFacts, resource: ResourceFacts) -> list[Action]:
        actions = super()._found(now, report, facts, resource)
        if report.state is ResourceState.OFFLINE and report.run and report.ending is Ending.STOPPED:
            resource.clean_stop = True
        return actions


class FoundStoppedIsAWish(Plant):
    """What is found stopped, and was not seen to stop, counts as stopped on purpose (finding 8 c)."""

    vmms = vmms_with(with_watch(_TakesFoundForStopped))
    service = service_of("resource_control", _BelievesReplays)


PLANTS_OF_RECOVERY: tuple[type[Plant], ...] = (
    JudgesAtOnce,
    LeaseEndsByTheNewest,
    LeaseCountsOverTwoSets,
    RecoveryIsAnEdge,
    TurnsAreNotPassedOn,
    FencesComeLate,
    FencedNodesStayOff,
    OpenEndsWhatRuns,
    StopsOutliveOwnership,
    FoundStoppedIsAWish,
)
