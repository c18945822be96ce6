"""Random fault schedules, swarm style: each run draws which kinds of fault are enabled and how dense they are.

Faults first, then everything is healed and a quiet phase must bring the world to rest. The seed of `blackstart search`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from harness.model.topology import SECOND_US, Fencing, GroupSpec, NodeSpec, ResourceSpec, Settings, Topology
from harness.simulation.composition import Composition
from harness.simulation.world import World

__all__ = ["FaultKind", "Outcome", "Planned", "plan", "run_schedule", "small_topology"]

FORMING_US = 8 * SECOND_US
FAULTS_US = 30 * SECOND_US
QUIET_US = 60 * SECOND_US
"""Longer than every back-off and time-out of the cluster that a schedule can leave behind."""


DURATIONS_US = (200_000, 900_000, 2_000_000, 3_500_000, 7_000_000)


class FaultKind(StrEnum):
    """What a schedule may do to the world."""

    POWER_OFF = "node.power-off"
    RESET = "node.reset"
    FREEZE = "node.freeze"
    ISOLATE = "node.isolate"
    ONE_WAY = "node.one-way"
    LOSSY = "network.lossy"
    SERVICE_KILL = "service.kill"
    SERVICE_HANG = "service.hang"
    HOST_KILL = "rhs.kill"
    VMMS_KILL = "vmms.kill"
    VOTER_KILL = "voter.kill"
    ENGINE_STALL = "engine.stall"
    VM_CRASH = "vm.crash"
    VM_CRASH_LOOP = "vm.crash-loop"
    SLOW_START = "engine.lost-answer"


NOT_UNDER_SELF = frozenset({FaultKind.FREEZE, FaultKind.ENGINE_STALL, FaultKind.SLOW_START})
"""What fencing `self` cannot cover: a node that freezes with its watchdog, and engine calls that outlive the bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One fault at one time, with its target and its length in microseconds."""

    at_us: int
    kind: FaultKind
    target: str
    duration_us: int

    def __str__(self) -> str:
        return f"{self.at_us / 1e6:7.3f} s {self.kind} {self.target} for {self.duration_us / 1e6:.3f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a schedule: violated invariants, what had not converged, and the plan."""

    seed: int
    plan: tuple[Planned, ...]
    violations: tuple[str, ...]
    unsettled: tuple[str, ...]
    world: World

    @property
    def broken(self) -> bool:
        """Whether the cluster failed."""
        return bool(self.violations or self.unsettled)


def small_topology(*, nodes: int = 3, groups: int = 4, fencing: Fencing = Fencing.POWER) -> Topology:
    """Nodes with a voter each, and groups of one machine and its address."""
    return Topology(
        rig="sim",
        subnet="10.87.0.0/24",
        nodes=tuple(
            NodeSpec(name=f"node{i}", address=f"10.87.0.{10 + i}", voter=True) for i in range(1, nodes + 1)
        ),
        groups=tuple(_group(i) for i in range(1, groups + 1)),
        settings=Settings(fencing=fencing),
    )


def _group(number: int) -> GroupSpec:
    address = f"10.87.0.{100 + number}"
    ip = ResourceSpec(name=f"ip{number}", type="ip-address", properties={"address": f"{address}/24"})
    machine = ResourceSpec(
        name=f"vm{number}",
        type="virtual-machine",
        depends_on=((f"ip{number}",),),
        properties={"image": "blackstart/guest", "address": address, "user": str(10_000 + number)},
    )
    return GroupSpec(name=f"web{number}", resources=(ip, machine), failover_threshold=1000)


def plan(rng: random.Random, topology: Topology) -> tuple[Planned, ...]:
    """Draw a schedule: bursts of faults, most of each on one node and its machines, because trouble breaks clusters
    where it meets.
    """
    kinds = [kind for kind in FaultKind if topology.settings.fencing is Fencing.POWER or kind not in NOT_UNDER_SELF]
    enabled = [kind for kind in kinds if rng.random() < 0.5] or [rng.choice(kinds)]
    nodes = [node.name for node in topology.nodes]
    machines = [r.name for group in topology.groups for r in group.resources if r.type == "virtual-machine"]
    planned = []
    for _ in range(rng.randint(1, 4)):
        begin_us = FORMING_US + rng.randint(0, FAULTS_US)
        spread_us = rng.choice([300_000, 1_500_000, 5_000_000])
        node, machine = rng.choice(nodes), rng.choice(machines)
        for _ in range(rng.randint(1, 5)):
            kind = rng.choice(enabled)
            about_machine = kind in (FaultKind.VM_CRASH, FaultKind.VM_CRASH_LOOP)
            elsewhere = rng.random() < 0.25
            here, anywhere = (machine, machines) if about_machine else (node, nodes)
            planned.append(
                Planned(
                    at_us=begin_us + rng.randint(0, spread_us),
                    kind=kind,
                    target=rng.choice(anywhere) if elsewhere else here,
                    duration_us=rng.choice(DURATIONS_US) + rng.randint(0, 400_000),
                )
            )
    return tuple(sorted(planned, key=lambda fault: fault.at_us))


def run_schedule(
    seed: int,
    *,
    topology: Topology | None = None,
    composition: Composition | None = None,
    planned: tuple[Planned, ...] | None = None,
) -> Outcome:
    """Run the schedule of that seed, or the one given, to its end or to the first violation."""
    topology = topology or small_topology()
    faults = planned if planned is not None else plan(random.Random(seed), topology)
    world = World(topology, seed=seed, composition=composition)
    for fault in faults:
        world.clock.at(fault.at_us, _injection(world, fault))
    world.run(FORMING_US + FAULTS_US + 8 * SECOND_US)
    world.network.heal()
    world.network.loss = world.network.slow = 0.0
    for name, node in world.nodes.items():
        node.thaw()
        if not world.engine.node(name).running:
            world.engine.start_node(name)
    unsettled = world.run_until_settled(QUIET_US)
    return Outcome(
        seed=seed,
        plan=faults,
        violations=tuple(world.violations),
        unsettled=tuple(unsettled) if not world.violations else (),
        world=world,
    )


def _injection(world: World, fault: Planned) -> Callable[[], None]:
    def inject() -> None:
        world.record(fault.target, "fault", fault.kind, {"duration_s": fault.duration_us / 1e6})
        _INJECTIONS[fault.kind](world, fault)

    return inject


def _later(world: World, fault: Planned, heal: Callable[[], None]) -> None:
    def go() -> None:
        world.record(fault.target, "fault", f"{fault.kind} healed", {})
        heal()

    world.clock.after(fault.duration_us, go)


def _power_off(world: World, fault: Planned) -> None:
    held = fault.duration_us % 2 == 0
    if held:
        world.engine.hold(world.topology.rig, fault.target)
    world.engine.power_off_node(fault.target)

    def power_on() -> None:
        world.engine.release(world.topology.rig, fault.target)
        if not world.engine.node(fault.target).running:
            world.engine.start_node(fault.target)

    _later(world, fault, power_on)


def _reset(world: World, fault: Planned) -> None:
    box = world.engine.node(fault.target)
    if box.alive and not box.paused:
        world.engine.end_node(fault.target, 87)


def _freeze(world: World, fault: Planned) -> None:
    world.nodes[fault.target].freeze()
    _later(world, fault, world.nodes[fault.target].thaw)


def _isolate(world: World, fault: Planned) -> None:
    others = [name for name in world.nodes if name != fault.target]
    world.network.cut([fault.target], others)
    world.network.cut(others, [fault.target])
    _later(world, fault, world.network.heal)


def _one_way(world: World, fault: Planned) -> None:
    others = [name for name in world.nodes if name != fault.target]
    if fault.duration_us % 2:
        world.network.cut([fault.target], others)
    else:
        world.network.cut(others, [fault.target])
    _later(world, fault, world.network.heal)


def _lossy(world: World, fault: Planned) -> None:
    world.network.loss, world.network.slow = 0.15, 0.15

    def calm() -> None:
        world.network.loss = world.network.slow = 0.0

    _later(world, fault, calm)


def _crash(world: World, fault: Planned) -> None:
    for box in world.instances.running(fault.target):
        if not box.paused:
            world.engine.crash_machine(box.id)


def _crash_loop(world: World, fault: Planned) -> None:
    end_us = world.clock.now_us + fault.duration_us

    def again() -> None:
        _crash(world, fault)
        if world.clock.now_us < end_us:
            world.clock.after(400_000, again)

    again()


def _lost_answer(world: World, fault: Planned) -> None:
    calls = ("start", "start", "create", "remove", "kill")
    world.nodes[fault.target].client.lose_next_answer(calls[fault.duration_us % len(calls)])


def _kill(process: str) -> Callable[[World, Planned], None]:
    return lambda world, fault: world.nodes[fault.target].kill_process(process)


_INJECTIONS: dict[FaultKind, Callable[[World, Planned], None]] = {
    FaultKind.POWER_OFF: _power_off,
    FaultKind.RESET: _reset,
    FaultKind.FREEZE: _freeze,
    FaultKind.ISOLATE: _isolate,
    FaultKind.ONE_WAY: _one_way,
    FaultKind.LOSSY: _lossy,
    FaultKind.SERVICE_KILL: _kill("service"),
    FaultKind.SERVICE_HANG: lambda world, fault: world.nodes[fault.target].hang_service(fault.duration_us),
    FaultKind.HOST_KILL: _kill("host"),
    FaultKind.VMMS_KILL: _kill("vmms"),
    FaultKind.VOTER_KILL: _kill("voter"),
    FaultKind.ENGINE_STALL: lambda world, fault: world.nodes[fault.target].client.stall(
        world.clock.now_us + fault.duration_us
    ),
    FaultKind.VM_CRASH: _crash,
    FaultKind.VM_CRASH_LOOP: _crash_loop,
    FaultKind.SLOW_START: _lost_answer,
}
