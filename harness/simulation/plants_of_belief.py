"""Broken clusters, continued: each believes something that the design takes for no proof.

An answer that came from elsewhere, an age by another's clock, a rejection, an error, a promise to have switched off.
Like those of `plants`, they exist only as compositions of a simulated world.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness.cluster_service.core.messages import Action, ChangeRegister, Event, FenceNode
from harness.cluster_service.database import DatabaseManager
from harness.cluster_service.membership.fencing import FencingManager
from harness.cluster_service.membership.lease import LeaseView
from harness.cluster_service.membership.node import NodeManager
from harness.cluster_service.placement.failover import FailoverManager
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.cluster_service.resources.resource_facts import GroupFacts
from harness.cluster_service.service import ClusterService, ServiceConfiguration
from harness.database.acceptor import Acceptor
from harness.database.proposer import Proposer, Result
from harness.database.protocol import NO_BALLOT, Accept, Admit, BeatAnswer, Call, Form, Hello, ReadAnswer, Reply
from harness.drivers.registry import built_in_drivers
from harness.model.changes import RecordRestart
from harness.model.host_messages import HostRequest
from harness.model.records import ClusterRecord, Restart
from harness.model.session import Session
from harness.model.topology import Fencing, ResourceSpec
from harness.model.vm import Ending
from harness.ports import Hypervisor, OrderRefused
from harness.resource_host.host import ResourceHost
from harness.simulation.invariants.reads import WatchedDatabase
from harness.simulation.plants import (
    Plant,
    StopsInsteadOfRemoving,
    service_of,
    service_with,
    vmms_with,
    with_power,
)
from harness.simulation.plants_of_rules import RemembersItsSet
from harness.vmms.engine_event_watcher import EngineEventWatcher
from harness.vmms.power import Power
from harness.vmms.vmms import Vmms

__all__ = ["PLANTS_OF_BELIEF", "with_leases", "with_watch"]

HOUR_US = 3_600_000_000
FOR_EVER_US = 1 << 60


# Clocks


class _CountsFromTheAnswer(LeaseView):
    def answered(
        self, now: int, voter: str, sent_us: int, connection: int, answer: BeatAnswer, counts: bool
    ) -> None:
        del sent_us
        super().answered(now, voter, now, connection, answer, counts)


class _BelievesAges(LeaseView):
    """Keeps when each session has renewed by the clocks of the voters."""

    raw: dict[str, int]

    def _see_peers(self, now: int, seen: Any, answer: BeatAnswer) -> None:
        raw = self.__dict__.setdefault("raw", {})
        for lease in answer.leases:
            renewed_us = now - (answer.clock_us - lease.at_us)
            raw[lease.session] = min(raw.get(lease.session, now), renewed_us)
        super()._see_peers(now, seen, answer)


def with_leases(leases: type[LeaseView]) -> type[NodeManager]:
    """A Node Manager that reckons leases in that way."""

    class WithLeases(NodeManager):
        def handle(self, now: int, event: Event) -> list[Action]:
            if self._leases is not None:
                self._leases.__class__ = leases
            return super().handle(now, event)

    return WithLeases


_CountingFromTheAnswer = with_leases(_CountsFromTheAnswer)
_BelievingAges = with_leases(_BelievesAges)


class LeaseCountsFromTheAnswer(Plant):
    """A lease is reckoned from when a voter's answer came, not from when it was asked (design, section 4)."""

    fencing = Fencing.SELF
    service = service_of("node", _CountingFromTheAnswer)


class _WaitsSinceTheRenewal(FencingManager):
    def _see_cluster(self, now: int, record: ClusterRecord) -> None:
        super()._see_cluster(now, record)
        leases = self._node._leases
        raw = leases.__dict__.get("raw", {}) if leases is not None else {}
        for session, since_us in self._down_since_us.items():
            self._down_since_us[session] = min(since_us, raw.get(str(session), since_us))


def _wait_by_a_voters_clock(managers: Any) -> None:
    managers.node.__class__ = _BelievingAges
    managers.fencing.__class__ = _WaitsSinceTheRenewal


class WaitsByAVotersClock(Plant):
    """Survivors wait from the last renewal, as old as a voter's clock says, not from the Down (finding 12 b)."""

    fencing = Fencing.SELF
    service = service_with(_wait_by_a_voters_clock)


class _WaitsForNothing(FencingManager):
    def _wait_us(self) -> int:
        return 0


class SurvivorsDoNotWait(Plant):
    """Under fencing `self` a Down session counts as over at once, although its VMs take time to end (12 d)."""

    fencing = Fencing.SELF
    service = service_of("fencing", _WaitsForNothing)


# Rounds


class _TakesRejectionForTheEnd(Proposer):
    def _advance_accept(self, now: int, operation: Any) -> None:
        before = len(self.settlements)
        super()._advance_accept(now, operation)
        backs_off = operation.phase.value == "backoff" and len(self.settlements) == before
        if backs_off and operation.change is not None and operation.accept_sent:
            self._settle(now, operation, Result.NOT_DONE, None, NO_BALLOT)


class _RejectedIsNotDone(DatabaseManager):
    def _become_known(self, now: int, events: list[Event], actions: list[Action]) -> None:
        super()._become_known(now, events, actions)
        if self._proposer is not None:
            self._proposer.__class__ = _TakesRejectionForTheEnd


class RejectedIsNotDone(Plant):
    """That a majority has rejected an accept is told as "certainly not done", and can still be revived (finding 9)."""

    service = service_of("database", _RejectedIsNotDone)


class _NeverInDoubt(DatabaseManager):
    def _note_doubt(self, settlement: Any, *, plain_read: bool) -> bool:
        super()._note_doubt(settlement, plain_read=plain_read)
        return False


class DoubtEndsWithARead(Plant):
    """What a plain read shows while a change of unknown outcome may still land is told as the truth (finding 9)."""

    service = service_of("database", _NeverInDoubt)


class _BelievesTheFirst(Proposer):
    def _advance_read(self, now: int, operation: Any) -> None:
        for answer in operation.answers.values():
            if isinstance(answer, ReadAnswer):
                stored = self._codec.decode(answer.value) if answer.value is not None else None
                self._settle(now, operation, Result.DONE, stored, answer.accepted)
                return
        super()._advance_read(now, operation)


class _ReadsOne(WatchedDatabase):
    def _become_known(self, now: int, events: list[Event], actions: list[Action]) -> None:
        super()._become_known(now, events, actions)
        if self._proposer is not None:
            self._proposer.__class__ = _BelievesTheFirst

    def _begin_reads(self, now: int, proposer: Proposer, actions: list[Action]) -> None:
        super()._begin_reads(now, proposer, actions)
        for survey in self._surveys.values():
            survey._majority = 1


class StaleReadDecides(Plant):
    """A read believes the first voter that answers, and takes what that shows for the truth (design, section 3)."""

    service = service_of("database", _ReadsOne)


class BallotsAreUsedTwice(Plant):
    """A restarted service counts ballots and changes from one again, under the same name (finding 8)."""

    def service(self, *, configuration: ServiceConfiguration, jitter: Callable[[], float]) -> ClusterService:
        return super().service(
            configuration=replace(configuration, process=configuration.session.node), jitter=jitter
        )


# Voters


class _AnswersForAll(Acceptor):
    """Takes a call for another as its own, and answers in the other's name."""

    def handle(self, call: Call, *, clock_us: int) -> Reply:
        if isinstance(call, Hello | Form | Admit) or not self.incarnation or call.to.voter == self.voter:
            return super().handle(call, clock_us=clock_us)
        mine = call.to._replace(voter=self.voter, incarnation=self.incarnation)
        reply: Any = super().handle(_with(call, to=mine), clock_us=clock_us)
        return _with(reply, of=call.to) if reply.of == mine else reply  # type: ignore[no-any-return]


def _with(message: Any, **changed: Any) -> Any:
    made: Any = getattr(message, "_replace", None)
    return made(**changed) if made is not None else replace(message, **changed)


class AnswersForAnother(Plant):
    """A voter that is reached by mistake votes in the name of another, so that one counts twice (finding 6)."""

    voters_admit_all = True

    def acceptor(self) -> Acceptor:
        return _AnswersForAll()


class _VotesOnceWritten(RemembersItsSet):
    """With the first accept, which is how an identity change comes."""

    def takes_on(self, call: Call) -> bool:
        return isinstance(call, Accept)


class IdentityChangeReadmits(Plant):
    """A voter without its disk counts again as soon as something was written to it (finding 5 c)."""

    def acceptor(self) -> Acceptor:
        return _VotesOnceWritten()


class _SyncsNowAndThen(Acceptor):
    """Its disk is as it was a second ago at most."""

    _synced: tuple[Any, ...] | None = None
    _synced_us = 0

    def handle(self, call: Call, *, clock_us: int) -> Reply:
        if self._synced is None or clock_us - self._synced_us >= 1_000_000:
            self._synced, self._synced_us = self._state(), clock_us
        return super().handle(call, clock_us=clock_us)

    def lose(self) -> None:
        """The power is gone."""
        if self._synced is None:
            return
        names = ("rig", "voter", "incarnation", "birth", "behind", "voter_set", "revision", "registers", "leases")
        for name, value in zip(names, self._synced, strict=True):
            setattr(self, name, value)
        self._synced = self._filed = None

    def _state(self) -> tuple[Any, ...]:
        who = (self.rig, self.voter, self.incarnation, self.birth, self.behind, self.voter_set, self.revision)
        return (*who, copy.deepcopy(self.registers), copy.deepcopy(self.leases))


class WritesAreNotSynced(Plant):
    """Voters answer before the disk has it, and lose the last second with the power: lost fsyncs (finding 20)."""

    def acceptor(self) -> Acceptor:
        return _SyncsNowAndThen()

    def voter_lost_power(self, acceptor: Acceptor) -> None:
        """What an honest disk never does."""
        assert isinstance(acceptor, _SyncsNowAndThen)
        acceptor.lose()


# Fences


class _BelievesTheSwitch(Power):
    async def _wait_off(self, session: Session, killed: dict[str, str], errors: list[Exception]) -> None:
        del session, killed, errors


class FenceBelievesTheSwitch(Plant):
    """A node is off because its switch has said so, or has said nothing; nobody looks (design, section 4)."""

    vmms = vmms_with(with_power(_BelievesTheSwitch))


class _FencesSuspects(FencingManager):
    """Does not wait until the Down is recorded."""

    def handle(self, now: int, event: Event) -> list[Action]:
        actions = super().handle(now, event)
        cluster = self._membership.cluster
        if cluster is None or not self._membership.may_act(now) or not self._node.may_judge(now):
            return actions
        for entry in cluster.up_nodes():
            if entry.session is None or entry.session == self._session or not self._node.expired(now, entry.session):
                continue
            actions.append(FenceNode(session=entry.session, not_after_us=self._node.lease_end_us() or now))
        return actions


class SuspectsAreFenced(Plant):
    """A node is switched off because it is silent, before its Down is recorded (finding 14)."""

    service = service_of("fencing", _FencesSuspects)


# VMs


class _TakesKillsForWishes(EngineEventWatcher):
    def _died(self, record: Any, box: Any, exit_code: int | None) -> None:
        if box.running and box.evidence.signals and not box.evidence.asked:
            box.running = box.paused = False
            box.exit_code = exit_code
            self._conclude(record, box, Ending.STOPPED, "a signal through the engine")
            return
        super()._died(record, box, exit_code)


class _LeavesLateStarts(EngineEventWatcher):
    def _start_of_a_stranger(self, event: Any) -> None:
        del event


def with_watch(watch: type[EngineEventWatcher]) -> Callable[[Any], None]:
    """What makes a VMMS watch its engine in that way."""

    class WithWatch(Vmms):
        @property
        def _watch(self) -> EngineEventWatcher:
            made: EngineEventWatcher = self.__dict__["watch"]
            return made

        @_watch.setter
        def _watch(self, made: EngineEventWatcher) -> None:
            made.__class__ = watch
            self.__dict__["watch"] = made

    def weaken(vmms: Any) -> None:
        vmms.__class__ = WithWatch

    return weaken


class AKillIsAWish(Plant):
    """Any signal through the engine, a fence's too, is taken for an administrator's stop (docker-trials, section 4)."""

    vmms = vmms_with(with_watch(_TakesKillsForWishes))


def _adopt_late_starts(vmms: Any) -> None:
    with_power(StopsInsteadOfRemoving)(vmms)
    with_watch(_LeavesLateStarts)(vmms)


class LateStartIsAdopted(Plant):
    """What an earlier session asked for runs on in the next life of its node (findings 2 and 3)."""

    vmms = vmms_with(_adopt_late_starts)

    async def clear_earlier_sessions(self, hypervisor: Hypervisor) -> None:
        del hypervisor


class _ChecksNothing(Vmms):
    def _check(self, record: Any, order: Any, turn: int) -> None:
        del order
        if record.turn != turn:
            raise OrderRefused(f"start of {record.name}: it was ended meanwhile")


def _check_nothing(vmms: Any) -> None:
    vmms.__class__ = _ChecksNothing


class _NeverLate(ResourceHost):
    def take(self, request: HostRequest) -> None:
        super().take(replace(request, not_after_us=FOR_EVER_US))


class OrdersAreNotChecked(Plant):
    """Nobody on the way to the engine minds session, epoch and `not_after` of an order (design, section 4)."""

    fencing = Fencing.SELF
    vmms = vmms_with(_check_nothing)

    def resource_host(self, **named: Any) -> ResourceHost:
        return _NeverLate(**named, storage=self.storage, drivers=built_in_drivers())


# Policy


class _NeverForgets(GroupFacts):
    __slots__ = ()

    def restarts_of(self, now: int, spec: ResourceSpec, session: Session) -> list[Restart]:
        del now
        return [
            entry for entry in self.record.restarts if entry.resource == spec.name and entry.session == session
        ]


class _EndsProvidersFirst(GroupFacts):
    __slots__ = ()

    def dependents_down(self, spec: ResourceSpec) -> bool:
        del spec
        return True


class _CountsForEver(ResourceControlManager):
    def _next_for(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        facts.__class__ = _NeverForgets
        return [_for_ever(action) for action in super()._next_for(now, facts, spec)]


def _for_ever(action: Action) -> Action:
    if isinstance(action, ChangeRegister) and isinstance(action.change, RecordRestart):
        return replace(action, change=replace(action.change, period_us=HOUR_US))
    return action


class _TakesProvidersAway(ResourceControlManager):
    def _next_for(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        facts.__class__ = _EndsProvidersFirst
        return super()._next_for(now, facts, spec)


class RestartsAreNeverForgotten(Plant):
    """The restart counter never resets: a failure long ago uses up a restart (the rules of the cluster, section 4)."""

    service = service_of("resource_control", _CountsForEver)


class ProvidersEndFirst(Plant):
    """What a VM depends on is ended while the VM runs (the rules of the cluster, section 4)."""

    service = service_of("resource_control", _TakesProvidersAway)


class _PlacesOnThePaused(FailoverManager):
    def _claim_orphans(self, now: int) -> list[Action]:
        cluster = self._membership.cluster
        if cluster is None:
            return super()._claim_orphans(now)
        nodes = tuple(replace(entry, paused=False) for entry in cluster.nodes)
        self._membership.cluster = replace(cluster, nodes=nodes)
        try:
            return super()._claim_orphans(now)
        finally:
            self._membership.cluster = cluster


class PlacedOnThePaused(Plant):
    """A group without an owner goes to a Paused node although another could take it (the rules, section 6)."""

    service = service_of("failover", _PlacesOnThePaused)


PLANTS_OF_BELIEF: tuple[type[Plant], ...] = (
    LeaseCountsFromTheAnswer,
    WaitsByAVotersClock,
    SurvivorsDoNotWait,
    RejectedIsNotDone,
    DoubtEndsWithARead,
    StaleReadDecides,
    BallotsAreUsedTwice,
    AnswersForAnother,
    IdentityChangeReadmits,
    WritesAreNotSynced,
    FenceBelievesTheSwitch,
    SuspectsAreFenced,
    AKillIsAWish,
    LateStartIsAdopted,
    OrdersAreNotChecked,
    RestartsAreNeverForgotten,
    ProvidersEndFirst,
    PlacedOnThePaused,
)
