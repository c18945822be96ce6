"""What each kind of fault does to a simulated world."""

from collections.abc import Callable
from dataclasses import replace

from harness.model.topology import SECOND_US, Topology
from harness.simulation.twins.engine_faults import StartTrouble, StopTrouble
from harness.simulation.twins.network import CUT, Link, LinkFault, among, between
from harness.simulation.world.fault_kinds import ABOUT_VMS, FaultKind, Planned
from harness.simulation.world.world import World

__all__ = ["AWAY_US", "cut_links", "injection", "pause_us", "power_on", "vm_names"]

AWAY_US = 12 * SECOND_US
"""Longer than a lost node keeps its vote."""
MAX_PAUSE_US = 100_000
"""Shorter than what fencing `self` waits longer than a lease."""
CRASH_AGAIN_US = 400_000


def vm_names(topology: Topology) -> list[str]:
    """Every VM of the rig."""
    return [
        resource.name
        for group in topology.groups
        for resource in group.resources
        if resource.type == "virtual-machine"
    ]


def injection(world: World, fault: Planned) -> Callable[[], None]:
    """What lets it strike; it is counted in the world's coverage and told in its trace."""

    def inject() -> None:
        vm = fault.target if fault.kind in ABOUT_VMS else ""
        role = world.role_of_vm(vm) if vm else world.role_of_node(fault.target.partition("/")[0])
        world.coverage[fault.kind.value, world.situation(), role] += 1
        world.record(fault.target, "fault", fault.kind, {"duration_s": fault.duration_us / 1e6})
        for struck in world.on_fault:
            struck(fault)
        _INJECTIONS[fault.kind](world, fault)

    return inject


def power_on(world: World, node: str) -> None:
    """Release the node and switch it on."""
    world.engine.release(world.topology.rig, node)
    if not world.engine.node(node).running:
        world.engine.start_node(node)


def _later(world: World, fault: Planned, heal: Callable[[], None]) -> None:
    def go() -> None:
        world.record(fault.target, "fault", f"{fault.kind} healed", {})
        heal()

    world.clock.after(fault.duration_us, go)


# Nodes


def _power_off(world: World, fault: Planned) -> None:
    if fault.duration_us % 2 == 0:
        world.engine.hold(world.topology.rig, fault.target)
    world.engine.power_off_node(fault.target)

    _later(world, fault, lambda: power_on(world, fault.target))


def _away(world: World, fault: Planned) -> None:
    """Off for long enough that its vote is taken out of the set."""
    world.engine.hold(world.topology.rig, fault.target)
    world.engine.power_off_node(fault.target)

    world.clock.after(AWAY_US + fault.duration_us, lambda: power_on(world, fault.target))


def _reset(world: World, fault: Planned) -> None:
    box = world.engine.node(fault.target)
    if box.alive and not box.paused:
        world.engine.end_node(fault.target, 87)


def _freeze(world: World, fault: Planned) -> None:
    world.nodes[fault.target].freeze()
    _later(world, fault, world.nodes[fault.target].thaw)


def _pause(world: World, fault: Planned) -> None:
    """As long as a snapshot takes; a world in which that happens to a node that is frozen has seen worse."""
    node = world.nodes[fault.target]
    if not node.frozen:
        node.freeze()
        world.clock.after(pause_us(fault), node.thaw)


def pause_us(fault: Planned) -> int:
    """How long a pause lasts that a schedule names."""
    return min(fault.duration_us // 10, MAX_PAUSE_US)


def _nothing(_world: World, _fault: Planned) -> None:
    """The world was made with it."""


def _step(world: World, fault: Planned) -> None:
    """The wall clock of the node steps, by which its voter reckons how old a renewal is."""
    world.voters[fault.target].step(-fault.duration_us if fault.duration_us % 2 else fault.duration_us)


# Links


def _everybody(world: World) -> list[str]:
    return [spec.name for spec in world.topology.everybody]


def _others(world: World, node: str) -> list[str]:
    return [name for name in _everybody(world) if name != node]


def cut_links(fault: Planned, names: list[str]) -> list[Link]:
    """What `network.partial`, `network.bridge` or `network.ring` cuts among these.

    Partial: the target and one other do not hear each other; everybody else hears both. Bridge: two halves hear each
    other only through the target, which hears all. Ring: everybody hears its two neighbours only; of three that cuts
    nobody off, so there one link goes.
    """
    others = [name for name in names if name != fault.target]
    if fault.kind is FaultKind.BRIDGE:
        fault.choice.shuffle(others)
        half = len(others) // 2
        return between(others[:half], others[half:])
    size = len(names)
    far = [
        (one, other)
        for place, one in enumerate(names)
        for step, other in enumerate(names)
        if min((place - step) % size, (step - place) % size) > 1
    ]
    if fault.kind is FaultKind.RING and far:
        return far
    return between([fault.target], [fault.choice.choice(others)])


def _lay(world: World, fault: Planned, links: list[Link], trouble: LinkFault) -> None:
    handle = world.network.trouble(links, trouble)
    _later(world, fault, lambda: world.network.mend(handle))


def _isolate(world: World, fault: Planned) -> None:
    _lay(world, fault, between([fault.target], _others(world, fault.target)), CUT)


def _one_way(world: World, fault: Planned) -> None:
    outward = fault.duration_us % 2
    others = _others(world, fault.target)
    _lay(world, fault, [(fault.target, one) if outward else (one, fault.target) for one in others], CUT)


def _cut(world: World, fault: Planned) -> None:
    _lay(world, fault, cut_links(fault, _everybody(world)), CUT)


def _links(trouble: LinkFault) -> Callable[[World, Planned], None]:
    """Every link, or those of the target alone."""

    def lay(world: World, fault: Planned) -> None:
        others = _others(world, fault.target)
        links = among(_everybody(world)) if fault.duration_us % 2 else between([fault.target], others)
        _lay(world, fault, links, trouble)

    return lay


def _misroute(world: World, fault: Planned) -> None:
    """What is meant for the target's voter reaches another one, as after an address was given away again."""
    voters = [name for name in world.voters if name != fault.target]
    world.network.misroute(fault.target, fault.choice.choice(voters))
    _later(world, fault, lambda: world.network.route_right(fault.target))


# Processes


def _kill(process: str) -> Callable[[World, Planned], None]:
    return lambda world, fault: world.nodes[fault.target].kill_process(process)


def _hang(process: str, *, times: int = 1) -> Callable[[World, Planned], None]:
    """`times` the drawn length: a hang that the service notices must outlast its patience."""
    return lambda world, fault: world.nodes[fault.target].hang_process(process, times * fault.duration_us)


def _crash_midway(world: World, fault: Planned) -> None:
    world.nodes[fault.target].crash_service_after(1 + fault.duration_us % 7)


def _late_accept(world: World, fault: Planned) -> None:
    """The service dies once it has asked the voters to accept something, and they hear of that much later; something
    that must be written, and that nobody asks for again, comes with it.
    """
    world.nodes[fault.target].crash_service_accepting(2 * fault.duration_us)
    here = _running_on(world, fault.target)
    groups = [group.name for group in world.topology.groups if any(spec.name in here for spec in group.resources)]
    if groups:
        verb = fault.choice.choice(("group.offline", "group.move"))
        world.administrator.ask(fault.target, verb, {"group": groups[0]})


def _running_on(world: World, node: str) -> list[str]:
    """The VMs that run there."""
    return [
        name
        for name in vm_names(world.topology)
        if any(box.node == node for box in world.instances.running(name))
    ]


def _driver(world: World, fault: Planned) -> None:
    """The next calls of the node's drivers break, or hang."""
    hangs_us = fault.duration_us if fault.kind is FaultKind.DRIVER_HANG else None
    world.nodes[fault.target].drivers.next.extend([hangs_us] * (1 + fault.duration_us % 3))


def _wipe(world: World, fault: Planned) -> None:
    """The voter comes back empty: its disk was emptied, or its file did not load. Never where that would take the
    majority for good, which no cluster survives.
    """
    if world.may_lose(fault.target):
        world.wipe_voter(fault.target)


def _torn_tail(world: World, fault: Planned) -> None:
    """What it wrote in its last moments was not synced, hence never answered; some of it is on the disk."""
    voter, node = world.voters[fault.target], world.nodes[fault.target]
    if not voter.running or voter.held:
        return
    voter.cut_off_before_the_sync()
    run = voter.runs

    def fall() -> None:
        if voter.running and voter.runs == run:
            voter.lose_the_tail(fault.duration_us % 3)
            node.voter_died()

    world.clock.after(fault.duration_us // 100, fall)


def _witness_kill(world: World, fault: Planned) -> None:
    witness = world.topology.witness
    if witness is not None:
        world.kill_witness(fault.duration_us)


# The engine


def _stall(world: World, fault: Planned) -> None:
    world.nodes[fault.target].client.stall(world.clock.now_us + fault.duration_us)


def _lost_answer(world: World, fault: Planned) -> None:
    calls = ("start", "start", "create", "remove", "kill")
    world.nodes[fault.target].client.lose_next_answer(calls[fault.duration_us % len(calls)])


def _late_start(world: World, fault: Planned) -> None:
    """The engine carries out starts late; something that must be started comes with it."""
    world.nodes[fault.target].client.hold_starts(world.clock.now_us + fault.duration_us)
    for name in _running_on(world, fault.target)[: 1 + fault.duration_us % 2]:
        _crash(world, replace(fault, target=name))


def _switch(world: World, fault: Planned) -> None:
    """The switch of the target's power does not answer, or answers before it has switched."""
    troubles, end_us = world.engine.troubles, world.clock.now_us + 2 * fault.duration_us
    if fault.kind is FaultKind.SWITCH_UNREACHABLE:
        troubles.switch_unreachable[fault.target] = end_us
    else:
        troubles.switch_late[fault.target] = end_us
        troubles.switch_delay_us = fault.duration_us


# VMs


def _crash(world: World, fault: Planned) -> None:
    for box in world.instances.running(fault.target):
        if not box.paused:
            world.engine.crash_vm(box.id)


def _crash_loop(world: World, fault: Planned) -> None:
    end_us = world.clock.now_us + fault.duration_us

    def again() -> None:
        _crash(world, fault)
        if world.clock.now_us < end_us:
            world.clock.after(CRASH_AGAIN_US, again)

    again()


def _vm_kill(world: World, fault: Planned) -> None:
    """`docker kill` by hand, with TERM or KILL: a failure, not a wish."""
    for box in world.instances.running(fault.target):
        world.engine.kill_by_hand(box.id, 15 if fault.duration_us % 2 else 9)


def _vm_hang(world: World, fault: Planned) -> None:
    """The engine freezes it. What is killed meanwhile dies at the thaw, and whoever ends it does not wait for that."""
    frozen = [box for box in world.instances.running(fault.target) if not box.paused]
    for box in frozen:
        world.engine.pause(box.id)

    def thaw() -> None:
        for box in frozen:
            if box.id in world.engine.boxes and box.paused and not world.nodes[box.node].frozen:
                world.engine.unpause(box.id)

    _later(world, fault, thaw)


def _start_trouble(trouble: StartTrouble) -> Callable[[World, Planned], None]:
    """Starts go wrong for a while; the VM ends, so that it must be started."""

    def lay(world: World, fault: Planned) -> None:
        world.engine.troubles.starts[fault.target, trouble] = world.clock.now_us + fault.duration_us
        _crash(world, fault)

    return lay


def _stop_trouble(trouble: StopTrouble) -> Callable[[World, Planned], None]:
    def lay(world: World, fault: Planned) -> None:
        world.engine.troubles.stops[fault.target, trouble] = world.clock.now_us + fault.duration_us

    return lay


def _slow_end(world: World, fault: Planned) -> None:
    """For a while its ends take their time: within what fencing `self` allows for, all the same."""
    troubles = world.engine.troubles
    troubles.stops[fault.target, StopTrouble.SLOW] = world.clock.now_us + 2 * fault.duration_us
    troubles.end_takes_us = min(max(fault.duration_us, 200_000), world.topology.settings.grace_us * 9 // 10)


def _stop_by_hand(world: World, fault: Planned) -> None:
    for box in world.instances.running(fault.target):
        world.engine.stop_by_hand(box.id)


def _start_by_hand(world: World, fault: Planned) -> None:
    """One of its containers that do not run, on any node."""
    boxes = [
        box
        for box in world.engine.boxes.values()
        if box.vm == fault.target and not box.running and not box.starting and not box.removing
    ]
    if boxes:
        box = fault.choice.choice(boxes)
        world.instances.foreign.add(box.id)
        world.engine.start_by_hand(box.id)


def _command(world: World, fault: Planned) -> None:
    """Something is asked of the target, NODE or NODE/GROUP."""
    node, _, group = fault.target.partition("/")
    world.administrator.command(fault.choice, node, group)


_INJECTIONS: dict[FaultKind, Callable[[World, Planned], None]] = {
    FaultKind.POWER_OFF: _power_off,
    FaultKind.RESET: _reset,
    FaultKind.FREEZE: _freeze,
    FaultKind.PAUSE: _pause,
    FaultKind.CLOCK_DRIFT: _nothing,
    FaultKind.CLOCK_STEP: _step,
    FaultKind.NODE_AWAY: _away,
    FaultKind.ISOLATE: _isolate,
    FaultKind.ONE_WAY: _one_way,
    FaultKind.PARTIAL: _cut,
    FaultKind.BRIDGE: _cut,
    FaultKind.RING: _cut,
    FaultKind.LOSSY: _links(LinkFault(loss=0.15, slow=0.15)),
    FaultKind.DOUBLING: _links(LinkFault(loss=0.05, double=0.3)),
    FaultKind.SHUFFLING: _links(LinkFault(shuffle=0.5)),
    FaultKind.MISROUTED: _misroute,
    FaultKind.SERVICE_KILL: _kill("service"),
    FaultKind.SERVICE_HANG: _hang("service"),
    FaultKind.SERVICE_CRASH_MIDWAY: _crash_midway,
    FaultKind.LATE_ACCEPT: _late_accept,
    FaultKind.HOST_KILL: _kill("host"),
    FaultKind.HOST_HANG: _hang("host", times=3),
    FaultKind.DRIVER_BREAK: _driver,
    FaultKind.DRIVER_HANG: _driver,
    FaultKind.VMMS_KILL: _kill("vmms"),
    FaultKind.VMMS_HANG: _hang("vmms", times=3),
    FaultKind.VOTER_KILL: _kill("voter"),
    FaultKind.VOTER_HANG: _hang("voter"),
    FaultKind.VOTER_WIPE: _wipe,
    FaultKind.VOTER_TORN_TAIL: _torn_tail,
    FaultKind.WITNESS_KILL: _witness_kill,
    FaultKind.ENGINE_STALL: _stall,
    FaultKind.LOST_ANSWER: _lost_answer,
    FaultKind.LATE_START: _late_start,
    FaultKind.SWITCH_UNREACHABLE: _switch,
    FaultKind.SWITCH_LATE: _switch,
    FaultKind.VM_CRASH: _crash,
    FaultKind.VM_CRASH_LOOP: _crash_loop,
    FaultKind.VM_KILL: _vm_kill,
    FaultKind.VM_HANG: _vm_hang,
    FaultKind.VM_SLOW_START: _start_trouble(StartTrouble.SLOW),
    FaultKind.VM_FAILING_START: _start_trouble(StartTrouble.FAILING),
    FaultKind.VM_ENDLESS_START: _start_trouble(StartTrouble.ENDLESS),
    FaultKind.VM_DEAF: _stop_trouble(StopTrouble.DEAF),
    FaultKind.VM_FAILING_STOP: _stop_trouble(StopTrouble.FAILING),
    FaultKind.VM_ENDLESS_STOP: _stop_trouble(StopTrouble.ENDLESS),
    FaultKind.VM_SLOW_END: _slow_end,
    FaultKind.VM_STOP_BY_HAND: _stop_by_hand,
    FaultKind.VM_START_BY_HAND: _start_by_hand,
    FaultKind.COMMAND: _command,
}
