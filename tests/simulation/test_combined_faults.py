"""The combinations of faults that people try first, in the seeded world: nothing runs twice, and what can be recovered
is.

The watchers of the world hold the safety invariants through all of it; each test asks for them, and for rest, at the
end. Who may be hit by what at which moment is spread over seeds and times.
"""

from collections.abc import Callable
from typing import Any

import pytest

from harness.simulation.faults.injection import injection
from harness.simulation.faults.schedule import small_topology
from harness.simulation.world.fault_kinds import FaultKind, Planned
from harness.simulation.world.world import World

SECOND = 1_000_000
MS = 1_000
SEEDS = pytest.mark.parametrize("seed", range(2))

REST_US = 60 * SECOND
"""Boots, fences and back-offs of the restart policy, several in a row."""


def formed(seed: int, *, nodes: int = 3) -> World:
    world = World(small_topology(nodes=nodes), seed=seed)
    assert world.run_until_converged(15 * SECOND) == []
    return world


def owner_of(world: World, vm: str) -> str:
    return world.instances.running(vm)[0].node


def vms_on(world: World, node: str) -> list[str]:
    names = [f"vm{number}" for number in range(1, 5)]
    return [name for name in names if any(box.node == node for box in world.instances.running(name))]


def wait_for(world: World, what: str, holds: Callable[[], bool], *, limit_us: int = REST_US) -> None:
    end_us = world.clock.now_us + limit_us
    while not holds():
        assert world.clock.now_us < end_us, f"waited {limit_us / 1e6:g} s for {what}"
        assert world.violations == []
        world.run(20 * MS)


def expect_rest(world: World) -> None:
    """Nothing was violated, and everything wanted runs again."""
    assert world.run_until_converged(REST_US) == []
    assert world.violations == []


def lines(world: World, event: str, *, since_us: int = 0) -> list[Any]:
    return [line for line in world.trace if line.event == event and line.at_us >= since_us]


def wanted(world: World) -> dict[str, int]:
    """Each VM's PersistentState as its owner tells it."""
    found: dict[str, int] = {}
    for name, node in world.nodes.items():
        told = node.service.snapshot(world.clock.now_us) if node.service is not None else None
        for group in told["groups"] if told is not None else ():
            if group["owner"] == name:
                found |= {entry["name"]: entry["persistent_state"] for entry in group["resources"]}
    return found


@SEEDS
def test_a_hung_vm_on_a_node_whose_power_is_cut_runs_elsewhere(seed: int) -> None:
    """A frozen guest keeps its node's PID 1 from dying: whoever cuts or fences must end both at once."""
    world = formed(seed)
    box = world.instances.running("vm1")[0]

    world.engine.pause(box.id)
    world.run(300 * MS)
    world.engine.hold(world.topology.rig, box.node)
    world.engine.power_off_node(box.node)
    wait_for(world, "vm1 elsewhere", lambda: any(run.node != box.node for run in world.instances.running("vm1")))
    world.engine.release(world.topology.rig, box.node)

    expect_rest(world)


@SEEDS
def test_a_hung_vm_on_a_node_that_resets_itself_is_ended_by_the_fence(seed: int) -> None:
    world = formed(seed)
    box = world.instances.running("vm1")[0]

    world.engine.pause(box.id)
    world.engine.end_node(box.node, 87)

    expect_rest(world)


def test_a_frozen_guest_alone_outlives_the_pid_1_of_its_node() -> None:
    world = formed(1)
    box = world.instances.running("vm1")[0]
    node = world.engine.node(box.node)

    world.engine.pause(box.id)
    world.engine.end_node(box.node, 87)

    assert world.nodes[box.node].processes() == {}
    assert vms_on(world, box.node) == ["vm1"]
    assert node.alive
    world.engine.unpause(box.id)
    assert not node.alive


@SEEDS
@pytest.mark.parametrize("frozen_ms", [700, 1_900, 2_300, 2_700, 3_100, 3_700, 5_000, 12_000])
def test_a_node_that_freezes_is_failed_over_and_thaws(seed: int, frozen_ms: int) -> None:
    world = formed(seed)
    victim = owner_of(world, "vm1")
    session_ended = len(lines(world, "fence-verified"))

    world.nodes[victim].freeze()
    world.run(frozen_ms * MS)
    world.nodes[victim].thaw()

    expect_rest(world)
    if frozen_ms < 1_000:
        assert len(lines(world, "fence-verified")) == session_ended, "a freeze under a lease is no failure"


@SEEDS
@pytest.mark.parametrize("after_ms", [100, 1_500, 2_100, 2_400, 2_700, 3_000, 3_500, 4_500])
def test_the_power_that_returns_during_the_failover_changes_nothing(seed: int, after_ms: int) -> None:
    world = formed(seed)
    victim = owner_of(world, "vm1")

    world.engine.hold(world.topology.rig, victim)
    world.engine.power_off_node(victim)
    world.run(after_ms * MS)
    world.engine.release(world.topology.rig, victim)
    world.engine.start_node(victim)

    expect_rest(world)


@SEEDS
@pytest.mark.parametrize("after_ms", [0, 1_000, 2_300, 2_600, 3_000, 4_000])
def test_the_second_node_lost_during_the_recovery_of_the_first(seed: int, after_ms: int) -> None:
    world = formed(seed, nodes=5)
    first = owner_of(world, "vm1")
    second = next(name for name in world.nodes if name != first and vms_on(world, name))
    for name in (first, second):
        world.engine.hold(world.topology.rig, name)

    world.engine.power_off_node(first)
    world.run(after_ms * MS)
    world.engine.power_off_node(second)
    survivors = set(world.nodes) - {first, second}
    wait_for(
        world,
        "every VM on the survivors",
        lambda: sum(len(vms_on(world, name)) for name in survivors) == 4,
    )
    for name in (first, second):
        world.engine.release(world.topology.rig, name)
        world.engine.start_node(name)

    expect_rest(world)


@SEEDS
def test_the_second_of_three_lost_stops_the_last_one_safely_until_it_returns(seed: int) -> None:
    """Two of three votes at once are a majority: the last node must start nothing and end what it runs."""
    world = formed(seed)
    last = owner_of(world, "vm1")
    lost = [name for name in world.nodes if name != last]
    for name in lost:
        world.engine.hold(world.topology.rig, name)
    lost_us = world.clock.now_us

    world.engine.power_off_node(lost[0])
    world.run(1_500 * MS)
    world.engine.power_off_node(lost[1])
    world.run(8 * SECOND)

    assert world.violations == []
    assert vms_on(world, last) == []
    without_quorum_us = world.clock.now_us - 3 * SECOND
    assert lines(world, "vm-started", since_us=without_quorum_us) == []
    assert lost_us < without_quorum_us
    for name in lost:
        world.engine.release(world.topology.rig, name)
        world.engine.start_node(name)
    expect_rest(world)


@SEEDS
@pytest.mark.parametrize("hung_ms", [1_000, 2_500, 4_000, 20_000])
def test_a_service_that_hangs_while_its_vms_run_costs_at_most_the_session(seed: int, hung_ms: int) -> None:
    world = formed(seed)
    victim = owner_of(world, "vm1")

    world.nodes[victim].hang_process("service", hung_ms * MS)
    if hung_ms > 4_000:
        # A hung service cannot pet: PID 1 ends the VMs at the lease's end, and nobody may start them before.
        wait_for(world, "vm1 elsewhere", lambda: any(run.node != victim for run in world.instances.running("vm1")))

    expect_rest(world)


@SEEDS
@pytest.mark.parametrize("gap_ms", [300, 1_200, 2_500])
def test_watchdog_resets_in_a_row_end_with_everything_online(seed: int, gap_ms: int) -> None:
    world = formed(seed)
    victim = owner_of(world, "vm1")

    for _ in range(4):
        box = world.engine.node(victim)
        if box.alive and not box.paused:
            world.engine.end_node(victim, 87)
        world.run(gap_ms * MS)

    expect_rest(world)


@SEEDS
@pytest.mark.parametrize("blow", ["reset", "freeze", "power", "service"])
@pytest.mark.parametrize("late_ms", [1_000, 4_000, 9_000])
def test_a_start_that_the_engine_carries_out_late_finds_nothing_to_start(seed: int, blow: str, late_ms: int) -> None:
    """The oldest trouble: the order was given up, the node has failed over, the engine gets to it."""
    world = formed(seed)
    box = world.instances.running("vm1")[0]
    node = world.nodes[box.node]

    node.client.hold_starts(world.clock.now_us + late_ms * MS)
    world.engine.crash_vm(box.id)
    world.run(600 * MS)
    match blow:
        case "reset":
            world.engine.end_node(box.node, 87)
        case "freeze":
            node.freeze()
            world.clock.after(5 * SECOND, node.thaw)
        case "power":
            world.engine.power_off_node(box.node)
        case "service":
            node.kill_process("service")
    world.run(12 * SECOND)

    expect_rest(world)


@SEEDS
def test_ten_seconds_without_the_engine_are_no_failure(seed: int) -> None:
    world = formed(seed)
    victim = owner_of(world, "vm1")
    before, began_us = wanted(world), world.clock.now_us

    world.nodes[victim].client.stall(began_us + 10 * SECOND)
    world.run(12 * SECOND)

    assert lines(world, "vm-ended", since_us=began_us) == []
    assert lines(world, "fencing", since_us=began_us) == []
    assert wanted(world) == before
    assert set(before.values()) == {1}
    expect_rest(world)


@SEEDS
def test_a_vm_that_crashes_while_the_engine_is_stalled_restarts_when_it_ends(seed: int) -> None:
    world = formed(seed)
    box = world.instances.running("vm1")[0]
    began_us = world.clock.now_us

    world.nodes[box.node].client.stall(began_us + 10 * SECOND)
    world.run(SECOND)
    world.engine.crash_vm(box.id)
    world.run(8 * SECOND)
    assert world.instances.running("vm1") == []
    wait_for(world, "vm1 again", lambda: bool(world.instances.running("vm1")), limit_us=8 * SECOND)

    assert owner_of(world, "vm1") == box.node, "a stall of the engine moves nothing"
    assert wanted(world)["vm1"] == 1
    expect_rest(world)


@SEEDS
def test_a_node_whose_engine_is_stalled_cannot_fence_so_another_one_does(seed: int) -> None:
    world = formed(seed)
    victim = owner_of(world, "vm1")
    survivors = [name for name in world.nodes if name != victim]

    world.nodes[survivors[0]].client.stall(world.clock.now_us + 10 * SECOND)
    world.engine.hold(world.topology.rig, victim)
    world.engine.power_off_node(victim)
    wait_for(world, "vm1 elsewhere", lambda: any(run.node != victim for run in world.instances.running("vm1")))

    (verified, *_) = lines(world, "fence-verified", since_us=0)[-1:]
    assert verified.node == survivors[1]
    world.engine.release(world.topology.rig, victim)
    world.run(10 * SECOND)
    expect_rest(world)


@SEEDS
def test_a_node_cut_off_while_its_engine_is_stalled_ends_its_vms_by_itself(seed: int) -> None:
    """Neither its engine nor the others reach it: only its own first process can end its VMs in time."""
    world = formed(seed)
    victim = owner_of(world, "vm1")
    others = [name for name in world.nodes if name != victim]

    world.nodes[victim].client.stall(world.clock.now_us + 10 * SECOND)
    world.network.cut([victim], others)
    world.network.cut(others, [victim])
    world.run(15 * SECOND)
    world.network.heal()

    expect_rest(world)


@SEEDS
def test_two_of_five_that_are_cut_off_leave_the_majority_as_it_is(seed: int) -> None:
    world = formed(seed, nodes=5)
    minority = [owner_of(world, "vm1"), next(name for name in reversed(world.nodes) if name != owner_of(world, "vm1"))]
    majority = [name for name in world.nodes if name not in minority]
    began_us = world.clock.now_us

    for name in minority:
        others = [other for other in world.nodes if other != name]
        world.network.cut([name], others)
        world.network.cut(others, [name])
    wait_for(world, "all in the majority", lambda: sum(len(vms_on(world, name)) for name in majority) == 4)
    world.run(5 * SECOND)

    lapsed = {line.node for line in lines(world, "lease-lapsed", since_us=began_us)}
    assert lapsed & set(majority) == set(), "the majority keeps its leases"
    assert [name for name in minority if vms_on(world, name)] == []
    world.network.heal()
    expect_rest(world)


@SEEDS
@pytest.mark.parametrize("direction", ["in", "out"])
def test_a_node_that_is_heard_but_does_not_hear_is_never_a_second_owner(seed: int, direction: str) -> None:
    world = formed(seed)
    victim = owner_of(world, "vm1")
    others = [name for name in world.nodes if name != victim]

    if direction == "in":
        world.network.cut(others, [victim])
    else:
        world.network.cut([victim], others)
    wait_for(world, "vm1 elsewhere", lambda: any(run.node != victim for run in world.instances.running("vm1")))
    world.network.heal()

    expect_rest(world)


@pytest.mark.parametrize("process", ["service", "host", "vmms", "voter"])
def test_a_thaw_sets_nothing_going_that_a_signal_has_stopped(process: str) -> None:
    world = formed(0)
    node = world.nodes["node3"]
    node.stop_process(process)
    node.freeze()
    world.run(200 * MS)

    node.thaw()
    world.run(200 * MS)

    stopped = {name for name, seen in node.processes().items() if seen.stopped}
    assert stopped == {process}
    node.continue_process(process)
    assert not any(seen.stopped for seen in node.processes().values())
    expect_rest(world)


def test_a_signal_to_go_on_that_comes_to_a_frozen_node_is_heard_at_the_thaw() -> None:
    world = formed(0)
    node = world.nodes["node3"]
    node.stop_process("voter")
    node.freeze()

    node.continue_process("voter")

    assert node.processes()["voter"].stopped
    node.thaw()
    assert not node.processes()["voter"].stopped
    expect_rest(world)


def test_a_vm_that_hangs_stands_still_for_so_long_and_then_everything_is_as_it_should_be() -> None:
    world = formed(0)
    (box,) = world.instances.running("vm1")
    fault = Planned(at_us=world.clock.now_us, kind=FaultKind.VM_HANG, target="vm1", duration_us=SECOND)

    injection(world, fault)()

    assert box.paused
    world.run(SECOND + MS)
    assert not box.paused
    expect_rest(world)
