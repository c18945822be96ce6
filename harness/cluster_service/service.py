"""The cluster service: routes facts to the managers in a fixed order, and hands their actions out. No I/O, no clock.

Order of each step: the lease deadline first; then the Database Manager; then Node, Membership and Voter Set, which want
to hear of everything; then, when it is time for them to look, Fencing, Failover, Drain, Administration and Resource
Control. When the lease lapses all managers are thrown away and new ones learn
every fact afresh: nothing that was believed under the old lease can act under the next. What administrators had asked
is answered first. PID 1 ends the guests at that moment by itself. The watch over the node's other programs stands
beside the managers: it knows nothing of leases.
"""

import functools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cluster_service.administration.administration import AdministrationManager
from harness.cluster_service.administration.drain import DrainManager
from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import (
    ROUTINE,
    Action,
    AdoptVoters,
    ChangeRegister,
    ChangeSettled,
    Event,
    HostConnected,
    HostLost,
    HostReported,
    Log,
    Manager,
    PetWatchdog,
    ProgramAnswered,
    ReadRegister,
    RegisterNoticed,
    RegisterSeen,
    RewriteRegister,
    VoterAnswered,
)
from harness.cluster_service.core.pending_requests import OpenRequests
from harness.cluster_service.core.resync import ResyncTimer
from harness.cluster_service.core.takeover_delay import TakeoverDelays, earliest_after
from harness.cluster_service.database import DatabaseManager
from harness.cluster_service.idle_fast_path import IdleFastPath
from harness.cluster_service.membership.fencing import FencingManager
from harness.cluster_service.membership.membership import MembershipManager
from harness.cluster_service.membership.node import NodeManager
from harness.cluster_service.membership.sharding import ShardAssignment
from harness.cluster_service.membership.voter_set import VoterSetManager
from harness.cluster_service.placement.failover import FailoverManager
from harness.cluster_service.program_liveness import ProgramWatch
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.cluster_service.snapshot import snapshot
from harness.database.protocol import NO_BALLOT, BeatAnswer, WriteCounts
from harness.database.register import Codec
from harness.model.records import GroupRecord
from harness.model.session import Session
from harness.model.topology import Settings

__all__ = ["ClusterService", "ServiceConfiguration"]

STEP_LIMIT = 10_000
"""Facts handled in one step; more means that two managers feed each other for ever, which is a defect."""


_FOR_THE_DATABASE = (ChangeRegister, ReadRegister, RewriteRegister, AdoptVoters)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfiguration:
    """What a node knows from its environment. `process` must be unique per start of the service's process,
    everywhere and for ever. `guests_end_us` is what an earlier process of this session told PID 1 last, 0 for
    the first one. `hour_of_day` tells the hour, 0 to 23, for windows of failback.
    """

    rig: str
    session: Session
    voters: tuple[str, ...]
    settings: Settings
    process: str
    guests_end_us: int
    hour_of_day: Callable[[], int]


@dataclass(frozen=True, kw_only=True)
class _Managers:
    database: DatabaseManager
    node: NodeManager
    membership: MembershipManager
    fencing: FencingManager
    voter_set: VoterSetManager
    failover: FailoverManager
    drain: DrainManager
    requests: OpenRequests
    administration: AdministrationManager
    resource_control: ResourceControlManager

    @functools.cached_property
    def prompt(self) -> tuple[NodeManager, MembershipManager, VoterSetManager]:
        """Those that live by what the voters say."""
        return self.node, self.membership, self.voter_set

    @functools.cached_property
    def deliberate(self) -> tuple[Manager, ...]:
        """Those that decide by all of their facts."""
        return self.fencing, self.failover, self.drain, self.administration, self.resource_control

    @property
    def concerned_with_groups(self) -> tuple[Manager, ...]:
        """Those of them to whom a group's register, or the end of a change, may mean anything now."""
        if self.fencing.busy or self.drain.busy or len(self.requests):
            return self.deliberate
        return self.failover, self.resource_control


def _many(event: Event) -> type | None:
    """What kind of fact it is, if it is one of those that come by the hundred."""
    if isinstance(event, RegisterNoticed):
        return RegisterNoticed
    return GroupRecord if isinstance(event, RegisterSeen) and isinstance(event.record, GroupRecord) else None


class ClusterService:
    """One process of the service: `handle` each fact, carry the actions out in order, call again by `next_wake` at
    the latest.
    """

    def __init__(
        self, *, configuration: ServiceConfiguration, codec: Codec, jitter: Callable[[], float]
    ) -> None:
        self._configuration = configuration
        self._codec = codec
        self._jitter = jitter
        self._writes = WriteCounts()
        self._calls = Ids()
        self._ids = Ids()
        self._generation = 0
        self._host_connected = False
        self._leased = False
        self._guests_ended_us: int | None = None
        self._programs = ProgramWatch(settings=configuration.settings)
        self._begin()

    def handle(self, now: int, event: Event) -> list[Action]:
        """Take one fact in. Returns what to do, in the order in which it must be done."""
        actions = self._rest.handle(now, event)
        if actions is not None:
            return actions
        if isinstance(event, ProgramAnswered) and not self._managers.node.lapsed(now):
            return self._programs.handle(now, event)
        if isinstance(event, (VoterAnswered, HostReported)) and self._rest.concerns_one(now, event):
            return self._concerns_one(now, event)
        actions = self._step(now, event)
        self._rest.reckon(now, leased=self._leased, database_us=self._managers.database.next_wake())
        return actions

    def _concerns_one(self, now: int, event: VoterAnswered | HostReported) -> list[Action]:
        """A fact at rest that concerns one manager, and then whatever it leads to."""
        managers = self._managers
        events: deque[Event] = deque()
        actions: list[Action] = []
        if isinstance(event, VoterAnswered):
            managers.database.handle(now, event)
            self._collect(now, events, actions)
            if not events:
                self._rest.reckon_database(managers.database.next_wake())
                return actions
        else:
            self._look_alone(now, managers.resource_control, event, events, actions)
        self._follow(now, events, actions, event)
        self._rest.reckon(now, leased=self._leased, database_us=managers.database.next_wake())
        return actions

    def next_wake(self) -> int | None:
        """When the service wants a Tick, if nothing else happens before. May lie in the past."""
        return self._rest.wake_us

    def _step(self, now: int, event: Event) -> list[Action]:
        actions = self._programs.handle(now, event)
        events: deque[Event] = deque([event])
        if self._managers.node.lapsed(now):
            actions += self._lapse(now)
            if self._host_connected:
                events.appendleft(HostConnected())
        if isinstance(event, (HostConnected, HostLost)):
            self._host_connected = isinstance(event, HostConnected)
        self._follow(now, events, actions, event)
        return actions

    def _follow(self, now: int, events: deque[Event], actions: list[Action], cause: Event) -> None:
        """Route facts until there are no more."""
        for _ in range(STEP_LIMIT):
            if not events:
                return
            self._route(now, events.popleft(), events, actions)
        raise RuntimeError(f"{STEP_LIMIT} facts came out of one {type(cause).__name__}: the managers feed each other")

    @property
    def session(self) -> Session:
        """Whom it acts for."""
        return self._configuration.session

    def snapshot(self, now: int) -> dict[str, Any]:
        """What this node believes, for display."""
        managers = self._managers
        return snapshot(
            now,
            rig=self._configuration.rig,
            session=self._configuration.session,
            membership=managers.membership,
            node=managers.node,
            voter_set=managers.voter_set,
            failover=managers.failover,
            requests=managers.requests,
            resource_control=managers.resource_control,
        )

    def _route(self, now: int, event: Event, events: deque[Event], actions: list[Action]) -> None:
        managers = self._managers
        kind = _many(event)
        if kind is not None and events:
            event = self._take_many(now, event, kind, events, actions)
        if not (isinstance(event, VoterAnswered) and isinstance(event.reply, BeatAnswer)):
            # Beats are the Node Manager's own, and most of what voters say.
            managers.database.handle(now, event)
            self._collect(now, events, actions)
        for manager in managers.prompt:
            wishes = manager.handle(now, event)
            if wishes:
                self._take(now, wishes, events, actions)
        may_act = managers.membership.may_act(now)
        of_a_group = kind is GroupRecord or isinstance(event, ChangeSettled)
        if self._look.due(now, may_act=may_act, routine=of_a_group or isinstance(event, ROUTINE)):
            acted = False
            for decides in managers.deliberate:
                wishes = decides.handle(now, event)
                if wishes:
                    acted = True
                    self._take(now, wishes, events, actions)
            wake_us = earliest_after(now, [manager.next_wake(now) for manager in managers.deliberate])
            self._look.done(now, may_act=may_act, acted=acted, wake_us=wake_us)
        elif of_a_group:
            for decides in managers.concerned_with_groups:
                self._look_alone(now, decides, event, events, actions)
        elif kind is RegisterNoticed:
            self._look_alone(now, managers.failover, event, events, actions)
        elif isinstance(event, HostReported):
            self._look_alone(now, managers.resource_control, event, events, actions)
        noticed = managers.node.noticed
        if noticed:
            events.extend(noticed)
            noticed.clear()

    def _look_alone(
        self, now: int, manager: Manager, event: Event, events: deque[Event], actions: list[Action]
    ) -> None:
        """One of those that decide by all of their facts takes in what concerns none of the others."""
        wishes = manager.handle(now, event)
        self._take(now, wishes, events, actions)
        self._look.also(now, acted=bool(wishes), wake_us=manager.next_wake(now))

    def _take_many(
        self, now: int, first: Event, kind: type, events: deque[Event], actions: list[Action]
    ) -> Event:
        """A voter's answer brings many notices or groups at once after a cold start, and they concern two managers
        only: all but the last, which takes the way of every fact, so that what to do is decided when all are known.
        """
        wishes: list[Action] = []
        while events and _many(events[0]) is kind:
            wishes += self._take_in(now, first)
            first = events.popleft()
        self._take(now, wishes, events, actions)
        return first

    def _take_in(self, now: int, event: Event) -> list[Action]:
        managers = self._managers
        match event:
            case RegisterNoticed():
                managers.database.handle(now, event)
                return managers.failover.noticed(event)
            case RegisterSeen(record=GroupRecord() as record):
                managers.failover.seen(event)
                managers.administration.seen(record)
                return managers.resource_control.seen(record)
        raise AssertionError(f"{event!r} comes alone")

    def _take(self, now: int, wishes: Sequence[Action], events: deque[Event], actions: list[Action]) -> None:
        asked = False
        for wish in wishes:
            if isinstance(wish, _FOR_THE_DATABASE):
                self._managers.database.ask(now, wish)
                asked = True
            else:
                if isinstance(wish, PetWatchdog) and wish.guests_end_us and not self._leased:
                    # PID 1 hears this before the deadline that the process before has told it, or it has acted.
                    self._leased = True
                    self._guests_ended_us = now if 0 < self._configuration.guests_end_us <= now else None
                actions.append(wish)
        if asked:
            self._collect(now, events, actions)

    def _collect(self, now: int, events: deque[Event], actions: list[Action]) -> None:
        facts, calls = self._managers.database.collect(now)
        events.extend(facts)
        actions.extend(calls)

    def _lapse(self, now: int) -> list[Action]:
        self._generation += 1
        self._guests_ended_us = now
        answers = self._managers.requests.lapse()
        self._begin()
        told = Log(
            component="node-manager",
            event="lease-lapsed",
            message="the lease has ended without a majority's renewal; everything is learnt afresh",
            id=1177,
        )
        return [told, *answers]

    def _begin(self) -> None:
        self._look = ResyncTimer()
        self._managers = managers = self._build()
        self._rest = IdleFastPath(
            programs=self._programs,
            node=managers.node,
            membership=managers.membership,
            voter_set=managers.voter_set,
            look=self._look,
        )

    def _build_database(self) -> DatabaseManager:
        configuration = self._configuration
        return DatabaseManager(
            identity=f"{configuration.process}.{self._generation}",
            node=configuration.session.node,
            rig=configuration.rig,
            voters=configuration.voters,
            codec=self._codec,
            jitter=self._jitter,
            numbers=self._calls.next,
            writes=self._writes,
        )

    def _build(self) -> _Managers:
        configuration = self._configuration
        settings, session = configuration.settings, configuration.session
        turns = TakeoverDelays(lease_us=settings.lease_us)
        watch = ShardAssignment(session.node)
        database = self._build_database()
        node = NodeManager(
            rig=configuration.rig,
            session=session,
            settings=settings,
            seen=database.seen_ballot,
            to_be_read=lambda key: NO_BALLOT if database.is_reading(key) else failover.noticed_ballot(key),
            numbers=self._calls.next,
            writes=self._writes,
            watch=watch,
        )
        membership = MembershipManager(session=session, node=node, ids=self._ids, turns=turns)
        failover = FailoverManager(session=session, membership=membership, ids=self._ids, turns=turns, watch=watch)
        requests = OpenRequests()
        return _Managers(
            database=database,
            node=node,
            membership=membership,
            fencing=FencingManager(
                session=session,
                voters=configuration.voters,
                settings=settings,
                node=node,
                membership=membership,
                ids=self._ids,
                turns=turns,
            ),
            voter_set=VoterSetManager(
                rig=configuration.rig,
                session=session,
                settings=settings,
                membership=membership,
                ids=self._ids,
                numbers=self._calls.next,
                identity=f"{configuration.process}.{self._generation}",
            ),
            failover=failover,
            drain=DrainManager(session=session, membership=membership, failover=failover, ids=self._ids),
            requests=requests,
            administration=AdministrationManager(
                session=session,
                node=node,
                membership=membership,
                failover=failover,
                requests=requests,
                ids=self._ids,
            ),
            resource_control=ResourceControlManager(
                session=session,
                node=node,
                membership=membership,
                failover=failover,
                requests=requests,
                ids=self._ids,
                guests_ended_us=lambda: self._guests_ended_us,
                hour_of_day=configuration.hour_of_day,
            ),
        )
