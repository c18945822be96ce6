"""Random fault schedules, swarm style: each run draws which kinds of fault are enabled and how dense they are.

Faults first, then everything is healed and a quiet phase must bring the world to rest. The seed of `blackstart search`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

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
from harness.simulation.composition import Composition
from harness.simulation.world import World

__all__ = [
    "AWAY_US",
    "FAULTS_END_US",
    "NOT_UNDER_SELF",
    "SET_CHANGING",
    "FaultKind",
    "Outcome",
    "Planned",
    "machine_names",
    "plan",
    "run_schedule",
    "small_topology",
]

FORMING_US = 8 * SECOND_US
FAULTS_US = 30 * SECOND_US
FAULTS_END_US = FORMING_US + FAULTS_US + 8 * SECOND_US
"""Then everything is healed."""
QUIET_US = 60 * SECOND_US
"""Longer than every back-off and time-out of the cluster that a schedule can leave behind."""


AWAY_US = 12 * SECOND_US
"""Longer than a lost node keeps its vote."""

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
    HOST_HANG = "rhs.hang"
    VMMS_KILL = "vmms.kill"
    VMMS_HANG = "vmms.hang"
    VOTER_KILL = "voter.kill"
    VOTER_HANG = "voter.hang"
    VOTER_WIPE = "voter.wipe"
    NODE_AWAY = "node.away"
    WITNESS_KILL = "witness.kill"
    ENGINE_STALL = "engine.stall"
    VM_CRASH = "vm.crash"
    VM_CRASH_LOOP = "vm.crash-loop"
    LOST_ANSWER = "engine.lost-answer"
    LATE_START = "engine.late-start"
    COMMAND = "administrator.command"


NOT_UNDER_SELF = frozenset(
    {FaultKind.FREEZE, FaultKind.ENGINE_STALL, FaultKind.LOST_ANSWER, FaultKind.LATE_START}
)
"""What fencing `self` cannot cover: a node that freezes with its watchdog, and engine calls that outlive the bound."""

DISTURBS_STARTS = frozenset({FaultKind.ENGINE_STALL, FaultKind.LOST_ANSWER, FaultKind.LATE_START})
BEFALLS_NODES = frozenset(
    {
        FaultKind.POWER_OFF,
        FaultKind.RESET,
        FaultKind.FREEZE,
        FaultKind.ISOLATE,
        FaultKind.SERVICE_KILL,
        FaultKind.HOST_KILL,
        FaultKind.HOST_HANG,
        FaultKind.VMMS_KILL,
        FaultKind.VMMS_HANG,
    }
)


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


SET_CHANGING = (
    FaultKind.VOTER_WIPE,
    FaultKind.VOTER_WIPE,
    FaultKind.NODE_AWAY,
    FaultKind.WITNESS_KILL,
    FaultKind.VOTER_KILL,
    FaultKind.VOTER_HANG,
    FaultKind.POWER_OFF,
    FaultKind.RESET,
    FaultKind.ISOLATE,
    FaultKind.ONE_WAY,
    FaultKind.LOSSY,
    FaultKind.SERVICE_KILL,
    FaultKind.SERVICE_HANG,
    FaultKind.VM_CRASH,
)
"""The kinds among which a schedule draws that is about changes of the voter set."""


ONLY_ABOUT_SETS = frozenset({FaultKind.NODE_AWAY, FaultKind.WITNESS_KILL})
"""What other schedules leave out: a long absence, and a witness that most topologies lack, would take the place of what
finds the other rules.
"""


def small_topology(
    *, nodes: int = 3, groups: int = 4, fencing: Fencing = Fencing.POWER, witness: bool = False
) -> Topology:
    """Nodes with a voter each, a witness if asked for, and groups of one machine and its address."""
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


def machine_names(topology: Topology) -> list[str]:
    """Every machine of the rig."""
    return [
        resource.name
        for group in topology.groups
        for resource in group.resources
        if resource.type == "virtual-machine"
    ]


def _group(number: int) -> GroupSpec:
    address = f"10.87.0.{100 + number}"
    ip = ResourceSpec(name=f"ip{number}", type="ip-address", properties={"address": f"{address}/24"})
    machine = ResourceSpec(
        name=f"vm{number}",
        type="virtual-machine",
        depends_on=((f"ip{number}",),),
        properties={"image": "blackstart/guest", "address": address, "user": str(10_000 + number)},
        policy=ResourcePolicy(restart_threshold=1),
    )
    return GroupSpec(name=f"web{number}", resources=(ip, machine), failover_threshold=1000)


def plan(rng: random.Random, topology: Topology, among: tuple[FaultKind, ...] = ()) -> tuple[Planned, ...]:
    """Draw a schedule: bursts of faults, most of each on one node and its machines, because trouble breaks clusters
    where it meets.

    Every third burst is the oldest trouble of them all: something befalls a node while a start is under way in its
    engine. Where administrators are enabled, about as many are commands in quick succession, and a blow in their midst.
    """
    drawn_from = among or tuple(kind for kind in FaultKind if kind not in ONLY_ABOUT_SETS)
    power = topology.settings.fencing is Fencing.POWER
    kinds = [kind for kind in drawn_from if power or kind not in NOT_UNDER_SELF]
    enabled = [kind for kind in kinds if rng.random() < 0.5] or [rng.choice(kinds)]
    nodes = [node.name for node in topology.nodes]
    machines = machine_names(topology)
    planned: list[Planned] = []

    def add(at_us: int, kind: FaultKind, target: str, duration_us: int) -> None:
        planned.append(Planned(at_us=at_us, kind=kind, target=target, duration_us=duration_us))

    for _ in range(rng.randint(1, 4)):
        begin_us = FORMING_US + rng.randint(0, FAULTS_US)
        node, machine = rng.choice(nodes), rng.choice(machines)
        starts = [kind for kind in enabled if kind in DISTURBS_STARTS]
        blows = [kind for kind in enabled if kind in BEFALLS_NODES]
        if starts and blows and rng.random() < 0.35:
            add(begin_us, rng.choice(starts), node, rng.randint(500_000, 8_000_000))
            add(begin_us + rng.randint(20_000, 2_000_000), rng.choice(blows), node, _duration(rng))
            continue
        if FaultKind.COMMAND in enabled and rng.random() < 0.5:
            group = rng.choice(topology.groups)
            spread_us = rng.choice([20_000, 200_000, 1_500_000])
            for _ in range(rng.randint(2, 6)):
                asked = rng.choice(nodes)
                add(begin_us + rng.randint(0, spread_us), FaultKind.COMMAND, f"{asked}/{group.name}", _duration(rng))
            if rng.random() < 0.5:
                machine = rng.choice(machine_names(replace(topology, groups=(group,))))
                add(begin_us + rng.randint(0, spread_us), FaultKind.VM_CRASH, machine, _duration(rng))
            elif blows:
                add(begin_us + rng.randint(0, spread_us), rng.choice(blows), node, _duration(rng))
            continue
        spread_us = rng.choice([300_000, 1_500_000, 5_000_000])
        for _ in range(rng.randint(1, 5)):
            kind = rng.choice(enabled)
            about_machine = kind in (FaultKind.VM_CRASH, FaultKind.VM_CRASH_LOOP)
            elsewhere = rng.random() < 0.25
            here, anywhere = (machine, machines) if about_machine else (node, nodes)
            add(begin_us + rng.randint(0, spread_us), kind, rng.choice(anywhere) if elsewhere else here, _duration(rng))
    return tuple(sorted(planned, key=lambda fault: fault.at_us))


def _duration(rng: random.Random) -> int:
    return rng.choice(DURATIONS_US) + rng.randint(0, 400_000)


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
    world = World(topology, seed=seed, composition=composition)
    for fault in faults:
        world.clock.at(fault.at_us, _injection(world, fault))
    world.run(FAULTS_END_US)
    world.network.heal()
    world.network.loss = world.network.slow = 0.0
    world.revive_witness()
    for name, node in world.nodes.items():
        node.thaw()
        world.engine.release(topology.rig, name)
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
        world.coverage[fault.kind.value, world.situation()] += 1
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

    _later(world, fault, lambda: _power_on(world, fault.target))


def _power_on(world: World, node: str) -> None:
    world.engine.release(world.topology.rig, node)
    if not world.engine.node(node).running:
        world.engine.start_node(node)


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


def _late_start(world: World, fault: Planned) -> None:
    """The engine carries out starts late; something that must be started comes with it."""
    world.nodes[fault.target].client.hold_starts(world.clock.now_us + fault.duration_us)
    here = [
        name
        for name in machine_names(world.topology)
        if any(box.node == fault.target for box in world.instances.running(name))
    ]
    for name in here[: fault.duration_us % 3]:
        _crash(world, replace(fault, target=name))


def _command(world: World, fault: Planned) -> None:
    """Something is asked of the target, NODE or NODE/GROUP; drawn from the fault, so that it stays the same."""
    node, _, group = fault.target.partition("/")
    world.administrator.command(random.Random(f"{fault.at_us}.{fault.duration_us}"), node, group)


def _kill(process: str) -> Callable[[World, Planned], None]:
    return lambda world, fault: world.nodes[fault.target].kill_process(process)


def _hang(process: str, *, times: int = 1) -> Callable[[World, Planned], None]:
    """`times` the drawn length: a hang that the service notices must outlast its patience."""
    return lambda world, fault: world.nodes[fault.target].hang_process(process, times * fault.duration_us)


def _wipe(world: World, fault: Planned) -> None:
    """The voter comes back empty: its disk was emptied, or its file did not load. Never where that would take the
    majority for good, which no cluster survives.
    """
    if world.may_lose(fault.target):
        world.wipe_voter(fault.target)


def _away(world: World, fault: Planned) -> None:
    """Off for long enough that its vote is taken out of the set."""
    world.engine.hold(world.topology.rig, fault.target)
    world.engine.power_off_node(fault.target)

    world.clock.after(AWAY_US + fault.duration_us, lambda: _power_on(world, fault.target))


def _witness_kill(world: World, fault: Planned) -> None:
    witness = world.topology.witness
    if witness is not None:
        world.kill_witness(fault.duration_us)


_INJECTIONS: dict[FaultKind, Callable[[World, Planned], None]] = {
    FaultKind.POWER_OFF: _power_off,
    FaultKind.RESET: _reset,
    FaultKind.FREEZE: _freeze,
    FaultKind.ISOLATE: _isolate,
    FaultKind.ONE_WAY: _one_way,
    FaultKind.LOSSY: _lossy,
    FaultKind.SERVICE_KILL: _kill("service"),
    FaultKind.SERVICE_HANG: _hang("service"),
    FaultKind.HOST_KILL: _kill("host"),
    FaultKind.HOST_HANG: _hang("host", times=3),
    FaultKind.VMMS_KILL: _kill("vmms"),
    FaultKind.VMMS_HANG: _hang("vmms", times=3),
    FaultKind.VOTER_KILL: _kill("voter"),
    FaultKind.VOTER_HANG: _hang("voter"),
    FaultKind.VOTER_WIPE: _wipe,
    FaultKind.NODE_AWAY: _away,
    FaultKind.WITNESS_KILL: _witness_kill,
    FaultKind.ENGINE_STALL: lambda world, fault: world.nodes[fault.target].client.stall(
        world.clock.now_us + fault.duration_us
    ),
    FaultKind.VM_CRASH: _crash,
    FaultKind.VM_CRASH_LOOP: _crash_loop,
    FaultKind.LOST_ANSWER: _lost_answer,
    FaultKind.LATE_START: _late_start,
    FaultKind.COMMAND: _command,
}
