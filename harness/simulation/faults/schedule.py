"""Random fault schedules, swarm style: each run draws which kinds of fault are enabled and how dense they are.

Faults first, then everything is healed and a quiet phase must bring the world to rest. The seed of `blackstart search`.
"""

import random
import traceback
from dataclasses import dataclass, replace
from pathlib import PurePath

from harness.model.topology import (
    SECOND_US,
    Fencing,
    GroupSpec,
    NodeSpec,
    ResourcePolicy,
    ResourceSpec,
    Settings,
    Topology,
)
from harness.simulation.faults.injection import injection, power_on, vm_names
from harness.simulation.kernel.deferred_gc import collected_later
from harness.simulation.kernel.node_clock import MAX_DRIFT_PPM
from harness.simulation.world.composition import Composition
from harness.simulation.world.fault_kinds import (
    ABOUT_VMS,
    BEFALLS_NODES,
    CUTS,
    DISTURBS_ENDS,
    DISTURBS_STARTS,
    ENDS_NODES,
    HURTS_VOTERS,
    NOT_UNDER_SELF,
    OF_VOTERS,
    ONLY_ABOUT_SETS,
    THEMES,
    FaultKind,
    Planned,
    has_others,
)
from harness.simulation.world.world import Drift, World

__all__ = ["FAULTS_END_US", "Outcome", "plan", "run_schedule", "small_topology"]

FORMING_US = 8 * SECOND_US
FAULTS_US = 30 * SECOND_US
FAULTS_END_US = FORMING_US + FAULTS_US + 8 * SECOND_US
"""Then everything is healed."""
QUIET_US = 60 * SECOND_US
"""Longer than every back-off and time-out of the cluster that a schedule can leave behind."""

DURATIONS_US = (200_000, 900_000, 2_000_000, 3_500_000, 7_000_000)
THEMED, OF_THEME = 0.6, 0.6
"""How many runs have a theme, and how much of it they enable."""
SHARES_BESIDE = (0.0, 0.1, 0.2)
SHARES = (0.2, 0.35, 0.5)
"""How many of the kinds a run enables: few of them meet often, many of them seldom."""
BURSTS = ((1, 2), (1, 4), (3, 6))
MAX_AHEAD_US = 1000 * SECOND_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a schedule: violated invariants, what had not converged, and the plan. `defect`: a part of
    Blackstart raised that, and the run did not come to its end; the only violation tells of it.
    """

    seed: int
    plan: tuple[Planned, ...]
    violations: tuple[str, ...]
    unconverged: tuple[str, ...]
    world: World
    defect: Exception | None = None

    @property
    def broken(self) -> bool:
        """Whether the cluster failed."""
        return bool(self.violations or self.unconverged)


def small_topology(
    *, nodes: int = 3, groups: int = 4, fencing: Fencing = Fencing.POWER, witness: bool = False
) -> Topology:
    """Nodes with a voter each, a witness if asked for, and groups of one VM and its address."""
    return Topology(
        rig="sim",
        subnet="10.87.0.0/24",
        nodes=tuple(
            NodeSpec(name=f"node{i}", address=f"10.87.0.{10 + i}", voter=True) for i in range(1, nodes + 1)
        ),
        groups=tuple(_group(i) for i in range(1, groups + 1)),
        settings=Settings(fencing=fencing),
        witness=NodeSpec(name="witness", address="10.87.0.10", voter=True) if witness else None,
    )


def _group(number: int) -> GroupSpec:
    address = f"10.87.0.{100 + number}"
    ip = ResourceSpec(name=f"ip{number}", type="ip-address", properties={"address": f"{address}/24"})
    vm = ResourceSpec(
        name=f"vm{number}",
        type="virtual-machine",
        depends_on=((f"ip{number}",),),
        properties={"image": "blackstart/guest", "address": address, "user": str(10_000 + number)},
        policy=ResourcePolicy(restart_threshold=1, restart_period_us=10 * SECOND_US),
    )
    return GroupSpec(name=f"web{number}", resources=(ip, vm), failover_threshold=1000)


class _Drawing:
    """One schedule as it is drawn: what is enabled, and what was planned so far."""

    def __init__(self, rng: random.Random, topology: Topology, among: tuple[FaultKind, ...]) -> None:
        power = topology.settings.fencing is Fencing.POWER
        kinds = [
            kind
            for kind in among or FaultKind
            if (power or kind not in NOT_UNDER_SELF) and has_others(kind, topology)
        ]
        self.planned: list[Planned] = []
        self._rng = rng
        self._topology = topology
        self._enabled = self._enable(kinds, themed=not among)
        self._nodes = [node.name for node in topology.nodes]
        self._voters = [node.name for node in topology.nodes if node.voter]
        self._vms = vm_names(topology)
        self._starts = [kind for kind in self._enabled if kind in DISTURBS_STARTS]
        self._blows = [kind for kind in self._enabled if kind in BEFALLS_NODES]
        self._ends = [kind for kind in self._enabled if kind in DISTURBS_ENDS]
        self._cuts = [kind for kind in self._enabled if kind in CUTS]
        self._hurts = [kind for kind in self._enabled if kind in HURTS_VOTERS]
        self._striking = [kind for kind in self._enabled if kind is not FaultKind.CLOCK_DRIFT]

    def _enable(self, kinds: list[FaultKind], *, themed: bool) -> list[FaultKind]:
        """Most of a theme and a few others, or a share of all."""
        rng = self._rng
        theme = rng.choice(THEMES) if themed and rng.random() < THEMED else frozenset()
        share = rng.choice(SHARES_BESIDE if theme else SHARES)
        if themed:
            kinds = [kind for kind in kinds if kind in theme or kind not in ONLY_ABOUT_SETS]
        return [kind for kind in kinds if rng.random() < (OF_THEME if kind in theme else share)] or [rng.choice(kinds)]

    def draw(self) -> None:
        """Everything."""
        rng = self._rng
        if FaultKind.CLOCK_DRIFT in self._enabled:
            for node in self._nodes:
                self._add(0, FaultKind.CLOCK_DRIFT, node, rng.randint(0, MAX_DRIFT_PPM))
        for _ in range(rng.randint(*rng.choice(BURSTS)) if self._striking else 0):
            begin_us = FORMING_US + rng.randint(0, FAULTS_US)
            node, vm = rng.choice(self._nodes), rng.choice(self._vms)
            if self._starts and self._blows and rng.random() < 0.35:
                self._while_it_starts(begin_us, node)
            elif self._ends and self._blows and rng.random() < 0.35:
                self._while_it_ends(begin_us, node)
            elif self._cuts and self._hurts and rng.random() < 0.35:
                self._while_links_fail(begin_us, node)
            elif FaultKind.COMMAND in self._enabled and rng.random() < 0.5:
                self._commands(begin_us, node)
            elif self._blows and rng.random() < 0.3:
                self._while_it_recovers(begin_us, node, vm)
            else:
                self._anything(begin_us, node, vm)

    def _while_it_starts(self, begin_us: int, node: str) -> None:
        """The oldest trouble of them all: something befalls a node while a start is under way in its engine."""
        rng = self._rng
        self._add(begin_us, rng.choice(self._starts), node, rng.randint(500_000, 8_000_000))
        lethal = [kind for kind in self._blows if kind in ENDS_NODES]
        blow = rng.choice(lethal if lethal and rng.random() < 0.7 else self._blows)
        self._add(begin_us + rng.randint(20_000, 2_000_000), blow, node, self._duration())

    def _while_it_ends(self, begin_us: int, node: str) -> None:
        """VMs, or the switch of a node, do not end what they should, and then that node is struck."""
        rng = self._rng
        for _ in range(rng.randint(1, 3)):
            kind = rng.choice(self._ends)
            target = rng.choice(self._vms) if kind in ABOUT_VMS else node
            self._add(begin_us, kind, target, rng.randint(500_000, 8_000_000))
        lethal = [kind for kind in self._blows if kind in ENDS_NODES] or self._blows
        self._add(begin_us + rng.randint(0, 1_000_000), rng.choice(lethal), node, self._duration())

    def _while_links_fail(self, begin_us: int, node: str) -> None:
        """A node misses what is written, and another voter is hurt meanwhile."""
        rng = self._rng
        self._add(begin_us, rng.choice(self._cuts), node, rng.randint(400_000, 3_000_000))
        about = [kind for kind in (FaultKind.COMMAND, FaultKind.VM_CRASH) if kind in self._enabled]
        for _ in range(rng.randint(1, 4) if about else 0):
            kind = rng.choice(about)
            target = rng.choice(self._vms)
            if kind is FaultKind.COMMAND:
                target = f"{rng.choice(self._nodes)}/{rng.choice(self._topology.groups).name}"
            self._add(begin_us + rng.randint(0, 2_000_000), kind, target, self._duration())
        hurt = rng.choice([name for name in self._nodes if name != node] or [node])
        self._add(begin_us + rng.randint(100_000, 3_000_000), rng.choice(self._hurts), hurt, self._duration())

    def _commands(self, begin_us: int, node: str) -> None:
        """Commands in quick succession about one group, and a blow in their midst."""
        rng = self._rng
        group = rng.choice(self._topology.groups)
        spread_us = rng.choice([20_000, 200_000, 1_500_000])
        for _ in range(rng.randint(2, 6)):
            asked = rng.choice(self._nodes)
            at_us = begin_us + rng.randint(0, spread_us)
            self._add(at_us, FaultKind.COMMAND, f"{asked}/{group.name}", self._duration())
        if rng.random() < 0.5:
            vm = rng.choice(vm_names(replace(self._topology, groups=(group,))) or self._vms)
            self._add(begin_us + rng.randint(0, spread_us), FaultKind.VM_CRASH, vm, self._duration())
        elif self._blows:
            self._add(begin_us + rng.randint(0, spread_us), rng.choice(self._blows), node, self._duration())

    def _while_it_recovers(self, begin_us: int, node: str, vm: str) -> None:
        """A node is struck, and the cluster again and again while it recovers from that."""
        rng = self._rng
        lease_us = self._topology.settings.lease_us
        self._add(begin_us, rng.choice(self._blows), node, self._duration())
        at_us = begin_us + lease_us // 2
        for _ in range(rng.randint(1, 4)):
            at_us += rng.randint(0, lease_us)
            self._strike(at_us, rng.choice(self._nodes), vm)

    def _anything(self, begin_us: int, node: str, vm: str) -> None:
        """Most of it on one node and its VMs, because trouble breaks clusters where it meets."""
        rng = self._rng
        spread_us = rng.choice([300_000, 1_500_000, 5_000_000])
        for _ in range(rng.randint(1, 5)):
            elsewhere = rng.random() < 0.25
            self._strike(
                begin_us + rng.randint(0, spread_us),
                rng.choice(self._nodes) if elsewhere else node,
                rng.choice(self._vms) if elsewhere else vm,
            )

    def _strike(self, at_us: int, node: str, vm: str) -> None:
        kind = self._rng.choice(self._striking)
        self._add(at_us, kind, vm if kind in ABOUT_VMS else node, self._duration())

    def _add(self, at_us: int, kind: FaultKind, target: str, duration_us: int) -> None:
        if kind in OF_VOTERS and target not in self._voters:
            target = self._voters[self._nodes.index(target) % len(self._voters)]
        self.planned.append(Planned(at_us=at_us, kind=kind, target=target, duration_us=duration_us))

    def _duration(self) -> int:
        return self._rng.choice(DURATIONS_US) + self._rng.randint(0, 400_000)


def plan(rng: random.Random, topology: Topology, among: tuple[FaultKind, ...] = ()) -> tuple[Planned, ...]:
    """Draw a schedule: bursts of faults, from all kinds or from `among`."""
    drawing = _Drawing(rng, topology, among)
    drawing.draw()
    return tuple(sorted(drawing.planned, key=lambda fault: fault.at_us))


def run_schedule(
    seed: int,
    *,
    topology: Topology | None = None,
    composition: Composition | None = None,
    planned: tuple[Planned, ...] | None = None,
    among: tuple[FaultKind, ...] = (),
) -> Outcome:
    """Run the schedule of that seed, or the one given, to its end or to the first violation."""
    topology = topology or small_topology()
    faults = planned if planned is not None else plan(random.Random(seed), topology, among)
    drifts = {fault.target: _drift(fault) for fault in faults if fault.kind is FaultKind.CLOCK_DRIFT}
    with collected_later():
        world = World(topology, seed=seed, composition=composition, drifts=drifts)
        for fault in faults:
            world.clock.at(fault.at_us, injection(world, fault))
        try:
            world.run(FAULTS_END_US)
            _heal(world)
            unconverged = world.run_until_converged(QUIET_US)
        except Exception as error:  # noqa: BLE001 - whatever a part raises is what this schedule has found
            return Outcome(
                seed=seed, plan=faults, violations=(_told(error),), unconverged=(), world=world, defect=error
            )
    return Outcome(
        seed=seed,
        plan=faults,
        violations=tuple(world.violations),
        unconverged=tuple(unconverged) if not world.violations else (),
        world=world,
    )


def _told(defect: Exception) -> str:
    first: BaseException = defect
    while first.__cause__ is not None:
        first = first.__cause__
    where = traceback.extract_tb(first.__traceback__)[-1]
    return f"a defect, {type(first).__name__} in {PurePath(where.filename).name} line {where.lineno}: {defect}"


def _drift(fault: Planned) -> Drift:
    """The fault's length is what the clock gains, or if it is odd loses, in a second."""
    rate_ppm = min(fault.duration_us, MAX_DRIFT_PPM)
    ahead_us = fault.choice.randint(0, MAX_AHEAD_US)
    return Drift(rate_ppm=-rate_ppm if fault.duration_us % 2 else rate_ppm, ahead_us=ahead_us)


def _heal(world: World) -> None:
    """End whatever faults there are left."""
    world.network.heal()
    world.engine.troubles.clear()
    world.revive_witness()
    for name, node in world.nodes.items():
        node.drivers.next.clear()
        node.thaw()
        power_on(world, name)
