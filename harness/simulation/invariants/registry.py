"""Every watcher of a world, and what each of them hears of: the one place that knows them all."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.model.session import Session
from harness.model.topology import SECOND_US
from harness.simulation.invariants.consensus import (
    AbsentVotes,
    AnsweredIsMade,
    BehindTheirCount,
    PromisedFirst,
    SetChanges,
)
from harness.simulation.invariants.entry_points import EntryPointsReturn, StartsAtOnce, TerminatedFirst, UrgentFirst
from harness.simulation.invariants.failure_handling import (
    DisturbanceTracker,
    DrainedOwnsNothing,
    FailuresCount,
    RestartActions,
    RunningStays,
    StartsAreWishes,
    StopsAreWishes,
)
from harness.simulation.invariants.node_lifecycle import (
    ClearedBeforeItJoins,
    DeadlinesHold,
    DownResets,
    EndsAreProved,
    HeldNodesStayOff,
)
from harness.simulation.invariants.orders import OrdersInTime, SettledBeforeItActs
from harness.simulation.invariants.placement import (
    Candidates,
    FailbackByPolicy,
    FirstInTurn,
    NextInTheCycle,
    OverSince,
    PreferredFirst,
)
from harness.simulation.invariants.policy import (
    DependentsGoneFirst,
    OnlyRequestedStateChanges,
    OnlyTheDownAreFenced,
    PlacedWhereItMayRun,
    RestartDelays,
    Thresholds,
)
from harness.simulation.invariants.recovery import (
    AdoptsItsOwn,
    FenceOrdersRespected,
    OnlyLeaseholdersDeclareDown,
    OwnersWrite,
    OwnLeases,
    TurnsPass,
)
from harness.simulation.invariants.resource_host import (
    FailedStartsAreTerminated,
    HangsAreFound,
    OneCallAtATime,
    SilenceEndsACall,
)
from harness.simulation.invariants.starts import LeaseOracle, OrderedStarts, PausedNodes, ProvidersFirst
from harness.simulation.kernel.node_clock import MAX_DRIFT_PPM
from harness.simulation.twins.container import SimulatedContainer
from harness.simulation.world.fault_kinds import FaultKind

if TYPE_CHECKING:
    from harness.simulation.world.world import TraceLine, World

__all__ = ["Watchers"]


class Watchers:
    """Hooked to a world whose parts are made and whose nodes are not switched on yet. `one_clock`: no node's clock
    drifts.
    """

    def __init__(self, world: "World", *, one_clock: bool, told: Callable[[str], None]) -> None:
        self._world = world
        self._topology = world.topology
        self._chosen = world.chosen
        self._told = told
        clock = world.clock
        self._now: Callable[[], int] = lambda: clock.now_us
        self._lease_us = _longest(world.topology.settings.lease_us)
        self._starts: list[Callable[[SimulatedContainer, int], None]] = []
        self._lapses: list[Callable[[str], None]] = []
        self._leases = LeaseOracle(
            sets=self._chosen.sets,
            lease_us=self._lease_us,
            pause_us=world.topology.settings.lease_us // 2,
            now=self._now,
            told=told,
        )
        self._watch_leases()
        self._watch_rounds()
        self._watch_orders()
        self._watch_recovery()
        self._watch_nodes()
        self._watch_policies(one_clock=one_clock)
        self._watch_hands()
        self._watch_places()
        self._watch_entry_points()
        self._watch_starts()
        self._watch_hosts()
        for node in world.nodes.values():
            node.client.on_start_ordered.append(self._start_ordered)
        world.listeners.append(self._heard)

    def _since(self, node: str) -> int:
        return self._world.nodes[node].service_since_us

    def _frozen(self, node: str) -> bool:
        return self._world.nodes[node].frozen

    def _watch_leases(self) -> None:
        judges = OnlyLeaseholdersDeclareDown(
            codec=self._world.composition.codec,
            leases=self._leases,
            lease_us=self._topology.settings.lease_us,
            told=self._told,
        )
        self._starts.append(self._leases.ordered)
        self._chosen.on_chosen.append(judges.chose)
        for voter in self._world.voters.values():
            voter.watch(self._leases.saw, LeaseOracle.HEARS)
            voter.on_proposed.append(judges.proposed)
        for node in self._world.nodes.values():
            node.on_pet.append(self._petted)
            node.on_fence.append(self._fence_ordered)

    def _watch_rounds(self) -> None:
        sets, behind = SetChanges(self._topology, told=self._told), BehindTheirCount(told=self._told)
        promised = PromisedFirst(sets=self._chosen.sets, told=self._told)
        made = self._world.administrator.made = AnsweredIsMade(self._topology, now=self._now, told=self._told)
        self._chosen.on_chosen += [self._world.made.chose, made.chose, sets.chose]
        for voter in self._world.voters.values():
            voter.watch(sets.saw, SetChanges.HEARS)
            voter.watch(behind.saw, BehindTheirCount.HEARS)
            voter.watch(promised.saw, PromisedFirst.HEARS)

    def _watch_orders(self) -> None:
        world, told = self._world, self._told
        providers = ProvidersFirst(
            self._topology, present=lambda node, address: world.nodes[node].has_address(address), told=told
        )
        ends = DependentsGoneFirst(self._topology, instances=world.instances, told=told)
        adoption = AdoptsItsOwn(chosen=self._chosen, instances=world.instances, told=told)
        in_time = OrdersInTime(now=lambda name: world.clock_of(name).now_us, told=told)
        settled = SettledBeforeItActs(chosen=self._chosen, since=self._since, now=self._now, told=told)
        self._chosen.on_chosen.append(settled.chose)
        self._starts += [providers.ordered, in_time.ordered]
        for node in world.nodes.values():
            node.on_host_call += [ends.ordered, in_time.asked, settled.asked, adoption.asked]

    def _watch_recovery(self) -> None:
        world = self._world
        fences = OnlyTheDownAreFenced(chosen=self._chosen, told=self._told)
        writers = OwnersWrite(chosen=self._chosen, told=self._told)
        switches = FenceOrdersRespected(
            engine=world.engine,
            chosen=self._chosen,
            leases=self._leases,
            rig=self._topology.rig,
            clock=world.clock,
            lease_us=self._lease_us,
            told=self._told,
        )
        settings, told = self._topology.settings, self._told
        own = OwnLeases(settings, since=self._since, now=self._now)
        turns = TurnsPass(settings, chosen=self._chosen, own=own, clock=world.clock, told=told)
        votes = AbsentVotes(settings, chosen=self._chosen, own=own, leases=self._leases, clock=world.clock, told=told)
        self._chosen.on_chosen += [writers.chose, switches.chose, turns.chose, votes.chose]
        world.engine.on_node_down.append(switches.down)
        world.on_disturbed.append(switches.disturbed)
        for name, node in world.nodes.items():
            switches.listen(name, node.client)
            node.on_fence += [fences.ordered, switches.ordered, turns.ordered]
            node.on_pet.append(own.petted)

    def _watch_nodes(self) -> None:
        world, engine, told = self._world, self._world.engine, self._told
        deadlines = DeadlinesHold(
            engine=engine,
            clock_of=world.clock_of,
            frozen=self._frozen,
            grace_us=self._topology.settings.grace_us,
            told=told,
        )
        down = DownResets(engine=engine, since=self._since, frozen=self._frozen, told=told)
        cleared = ClearedBeforeItJoins(engine=engine, told=told)
        proved = EndsAreProved(
            chosen=self._chosen, since=self._since, host_of=self._host_of, now=self._now, told=told
        )
        held = HeldNodesStayOff(engine=engine, told=told)
        world.reads.on_cluster_seen.append(down.seen)
        engine.on_node_up.append(cleared.up)
        self._chosen.on_chosen.append(cleared.chose)
        self._lapses.append(proved.lapsed)
        world.on_fault.append(held.struck)
        world.on_disturbed.append(held.disturbed)
        for name, node in world.nodes.items():
            node.on_pet.append(deadlines.petted)
            node.on_host_call.append(proved.asked)
            node.on_host_report.append(proved.answered)
            held.listen(name, node.client)

    def _watch_policies(self, *, one_clock: bool) -> None:
        world, told = self._world, self._told
        wishes = OnlyRequestedStateChanges(may_be_wanted=world.administrator.may_be_wanted, told=told)
        thresholds = Thresholds(self._topology, chosen=self._chosen, one_clock=one_clock, told=told)
        actions, failures = RestartActions(told=told), FailuresCount(told=told)
        delays = RestartDelays(self._topology, chosen=self._chosen, now=self._now, told=told)
        watchers = (wishes, thresholds, actions, failures, delays)
        self._chosen.on_chosen += [watcher.chose for watcher in watchers]
        self._starts.append(delays.ordered)
        self._lapses.append(delays.lapsed)
        self._thresholds = thresholds
        world.engine.on_ended.append(delays.ended)

    def _watch_hands(self) -> None:
        world, told = self._world, self._told
        troubles, but_starts = (
            DisturbanceTracker(now=self._now),
            DisturbanceTracker(now=self._now, meant=FaultKind.VM_START_BY_HAND),
        )
        known: dict[str, Any] = {"instances": world.instances, "now": self._now, "told": told}
        stops = StopsAreWishes(self._topology, chosen=self._chosen, troubles=troubles, **known)
        starts = StartsAreWishes(self._topology, chosen=self._chosen, troubles=but_starts, **known)
        stays = RunningStays(troubles=troubles, **known)
        self._chosen.on_chosen += [stops.chose, starts.chose, stays.chose]
        self._starts.append(stops.ordered)
        self._lapses += [troubles.lapsed, but_starts.lapsed]
        world.engine.on_by_hand.append(stops.by_hand)
        world.engine.on_started.append(starts.started)
        world.on_fault += [stops.struck, troubles.struck, but_starts.struck]
        world.on_disturbed += [starts.disturbed, stays.disturbed]
        for node in world.nodes.values():
            node.on_host_call.append(starts.asked)

    def _watch_places(self) -> None:
        settings, told = self._topology.settings, self._told
        seen_us = settings.lease_us + SECOND_US
        paused = PausedNodes(seen_us=seen_us, now=self._now)
        starts = OrderedStarts(chosen=self._chosen, paused=paused, told=told)
        places = PlacedWhereItMayRun(chosen=self._chosen, paused=paused, told=told)
        drained = DrainedOwnsNothing(chosen=self._chosen, seen_us=seen_us, now=self._now, told=told)
        candidates = Candidates(settings, leases=self._leases, sets=self._chosen.sets, now=self._now)
        back = FailbackByPolicy(
            chosen=self._chosen,
            seen_us=seen_us,
            now=lambda name: self._world.clock_of(name).now_us,
            world_us=self._now,
            told=told,
        )
        self._starts.append(starts.ordered)
        self._chosen.on_chosen += [watcher.chose for watcher in (paused, places, drained, candidates, back)]
        if len(self._topology.nodes) <= settings.everyone_watches_up_to:
            over = OverSince(now=self._now)
            known: dict[str, Any] = {"chosen": self._chosen, "candidates": candidates, "told": told}
            preferred = PreferredFirst(settings, over=over, now=self._now, **known)
            first = FirstInTurn(settings, over=over, paused=paused, now=self._now, **known)
            cycle = NextInTheCycle(**known)
            self._chosen.on_chosen += [over.chose, preferred.chose, first.chose, cycle.chose]

    def _watch_entry_points(self) -> None:
        returns = EntryPointsReturn(self._topology, host_of=self._host_of, now=self._now, told=self._told)
        urgent = UrgentFirst(self._topology, chosen=self._chosen, now=self._now, told=self._told)
        self._world.on_fault += [returns.struck, urgent.struck]
        self._world.on_disturbed += [returns.disturbed, urgent.disturbed]
        for node in self._world.nodes.values():
            node.on_host_call += [returns.asked, urgent.asked]
            node.on_host_report += [returns.answered, urgent.answered]

    def _watch_starts(self) -> None:
        world, told = self._world, self._told
        at_once = StartsAtOnce(
            self._topology, life_of=self._life_of, now=lambda name: world.clock_of(name).now_us, told=told
        )
        terminated = TerminatedFirst(told=told)
        self._chosen.on_chosen.append(terminated.chose)
        self._lapses.append(at_once.lapsed)
        for node in world.nodes.values():
            node.on_host_call += [at_once.asked, terminated.asked]
            node.on_host_report += [at_once.answered, terminated.answered]

    def _watch_hosts(self) -> None:
        world, told = self._world, self._told
        one, left = OneCallAtATime(told=told), FailedStartsAreTerminated(told=told)
        silence = SilenceEndsACall(self._topology, clock=world.clock, told=told)
        hangs = HangsAreFound(
            self._topology, instances=world.instances, host_of=self._host_of, clock=world.clock, told=told
        )
        calls = world.composition.calls
        calls.on_begun += [one.begun, left.begun, silence.begun]
        calls.on_ended += [one.ended, left.ended, silence.ended]
        world.on_fault += [silence.struck, hangs.struck]
        world.on_disturbed += [silence.disturbed, hangs.disturbed]
        for node in world.nodes.values():
            node.on_host_call.append(hangs.asked)
            node.on_host_report += [left.answered, silence.answered, hangs.answered]

    # What several of them hear.

    def _life_of(self, node: str) -> object | None:
        host = self._host_of(node)
        return (host, self._since(node)) if host is not None else None

    def _host_of(self, node: str) -> int | None:
        return self._world.nodes[node].host_since_us

    def _heard(self, line: "TraceLine") -> None:
        if line.event == "lease-lapsed":
            for lapsed in self._lapses:
                lapsed(line.node)
        elif line.event == "resource-stays-failed" and line.fields["id"] == 1254:
            self._thresholds.stays_failed(line.fields["group"], self._world.clock_of(line.node).now_us)

    def _start_ordered(self, container: str) -> None:
        box = self._world.engine.boxes.get(container)
        if box is not None:
            for ordered in self._starts:
                ordered(box, self._now())

    def _petted(self, session: Session, lease_left_us: int) -> None:
        self._leases.petted(str(session), self._now() + lease_left_us)

    def _fence_ordered(self, by: Session, whom: Session) -> None:
        self._leases.acted(str(by), f"{by} fences {whom}", self._now())


def _longest(lease_us: int) -> int:
    """What a lease may last by the clock of the slowest node, in the time of the fastest voter."""
    return lease_us * (1_000_000 + 2 * MAX_DRIFT_PPM + 1) // 1_000_000
