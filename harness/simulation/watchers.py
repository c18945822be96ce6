"""Every watcher of a world, and what each of them hears of: the one place that knows them all."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.model.session import Session
from harness.model.topology import SECOND_US
from harness.simulation.container import SimulatedContainer
from harness.simulation.node_clock import DRIFT_MOST_PPM
from harness.simulation.watch import OrderedStarts, PausedNodes, ProvidersFirst, TrueLeases
from harness.simulation.watch_causes import DrainedOwnsNothing, FailuresCount, RestartActions, StopsAreWishes
from harness.simulation.watch_entry_points import EntryPointsReturn, UrgentFirst
from harness.simulation.watch_orders import OrdersInTime, SettledBeforeItActs
from harness.simulation.watch_places import Candidates, FailbackByPolicy, NextInTheCycle, PreferredFirst
from harness.simulation.watch_policy import (
    DependentsGoneFirst,
    OnlyTheDownAreFenced,
    PlacedWhereItMayRun,
    RestartDelays,
    Thresholds,
    WishesOnly,
)
from harness.simulation.watch_recovery import AdoptsItsOwn, Judges, OwnersWrite, Switches, TurnsPass
from harness.simulation.watch_rounds import AnsweredIsMade, BehindTheirCount, PromisedFirst, SetChanges

if TYPE_CHECKING:
    from harness.simulation.world import TraceLine, World

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
        self.leases = TrueLeases(
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
        self._watch_policies(one_clock=one_clock)
        self._watch_places()
        self._watch_entry_points()
        for node in world.nodes.values():
            node.client.on_start_ordered.append(self._start_ordered)
        world.listeners.append(self._heard)

    def _since(self, node: str) -> int:
        return self._world.nodes[node].service_since_us

    def _watch_leases(self) -> None:
        judges = Judges(
            codec=self._world.composition.codec,
            leases=self.leases,
            lease_us=self._topology.settings.lease_us,
            told=self._told,
        )
        self._starts.append(self.leases.ordered)
        self._chosen.on_chosen.append(judges.chose)
        for voter in self._world.voters.values():
            voter.watch(self.leases.saw, TrueLeases.HEARS)
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
        switches = Switches(
            engine=world.engine,
            chosen=self._chosen,
            leases=self.leases,
            rig=self._topology.rig,
            clock=world.clock,
            lease_us=self._lease_us,
            told=self._told,
        )
        turns = TurnsPass(
            self._topology.settings, chosen=self._chosen, clock=world.clock, since=self._since, told=self._told
        )
        self._chosen.on_chosen += [writers.chose, switches.chose, turns.chose]
        world.engine.on_node_down.append(switches.down)
        world.on_disturbed.append(switches.disturbed)
        for name, node in world.nodes.items():
            switches.listen(name, node.client)
            node.on_fence += [fences.ordered, switches.ordered, turns.ordered]
            node.on_pet.append(turns.petted)

    def _watch_policies(self, *, one_clock: bool) -> None:
        world, told = self._world, self._told
        wishes = WishesOnly(may_be_wanted=world.administrator.may_be_wanted, told=told)
        thresholds = Thresholds(self._topology, one_clock=one_clock, told=told)
        actions, failures = RestartActions(told=told), FailuresCount(told=told)
        delays = RestartDelays(self._topology, chosen=self._chosen, now=self._now, told=told)
        stops = StopsAreWishes(
            self._topology, instances=world.instances, chosen=self._chosen, now=self._now, told=told
        )
        watchers = (wishes, thresholds, actions, failures, delays, stops)
        self._chosen.on_chosen += [watcher.chose for watcher in watchers]
        self._starts += [delays.ordered, stops.ordered]
        self._lapses += [delays.lapsed, stops.lapsed]
        world.engine.on_ended.append(delays.ended)
        world.engine.on_by_hand.append(stops.by_hand)
        world.on_fault.append(stops.struck)

    def _watch_places(self) -> None:
        settings, told = self._topology.settings, self._told
        seen_us = settings.lease_us + SECOND_US
        paused = PausedNodes(seen_us=seen_us, now=self._now)
        starts = OrderedStarts(chosen=self._chosen, paused=paused, told=told)
        places = PlacedWhereItMayRun(chosen=self._chosen, paused=paused, told=told)
        drained = DrainedOwnsNothing(chosen=self._chosen, seen_us=seen_us, now=self._now, told=told)
        candidates = Candidates(settings, leases=self.leases, sets=self._chosen.sets, now=self._now)
        back = FailbackByPolicy(
            chosen=self._chosen,
            now=lambda name: self._world.clock_of(name).now_us,
            world_us=self._now,
            told=told,
        )
        self._starts.append(starts.ordered)
        self._chosen.on_chosen += [watcher.chose for watcher in (paused, places, drained, candidates, back)]
        if len(self._topology.nodes) <= settings.everyone_watches_up_to:
            preferred = PreferredFirst(
                settings, chosen=self._chosen, candidates=candidates, now=self._now, told=told
            )
            cycle = NextInTheCycle(chosen=self._chosen, candidates=candidates, told=told)
            self._chosen.on_chosen += [preferred.chose, cycle.chose]

    def _watch_entry_points(self) -> None:
        returns = EntryPointsReturn(self._topology, host_of=self._host_of, now=self._now, told=self._told)
        urgent = UrgentFirst(self._topology, chosen=self._chosen, now=self._now, told=self._told)
        self._world.on_fault += [returns.struck, urgent.struck]
        self._world.on_disturbed += [returns.disturbed, urgent.disturbed]
        for node in self._world.nodes.values():
            node.on_host_call += [returns.asked, urgent.asked]
            node.on_host_report += [returns.answered, urgent.answered]

    # What several of them hear.

    def _host_of(self, node: str) -> int | None:
        host = self._world.nodes[node].processes().get("host")
        return host.started_us if host is not None else None

    def _heard(self, line: "TraceLine") -> None:
        if line.event == "lease-lapsed":
            for lapsed in self._lapses:
                lapsed(line.node)

    def _start_ordered(self, container: str) -> None:
        box = self._world.engine.boxes.get(container)
        if box is not None:
            for ordered in self._starts:
                ordered(box, self._now())

    def _petted(self, session: Session, lease_left_us: int) -> None:
        self.leases.petted(str(session), self._now() + lease_left_us)

    def _fence_ordered(self, by: Session, whom: Session) -> None:
        self.leases.acted(str(by), f"{by} fences {whom}", self._now())


def _longest(lease_us: int) -> int:
    """What a lease may last by the clock of the slowest node, in the time of the fastest voter."""
    return lease_us * (1_000_000 + 2 * DRIFT_MOST_PPM + 1) // 1_000_000
