"""Single situations in the seeded world, each once found broken: by a review, or by the search itself."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.model.topology import ResourcePolicy
from harness.simulation.faults.schedule import small_topology
from harness.simulation.world.world import World

SECOND = 1_000_000


def formed(seed: int) -> World:
    world = World(small_topology(), seed=seed)
    assert world.run_until_converged(15 * SECOND) == []
    return world


def ended_since(world: World, at_us: int) -> list[str]:
    return [str(line) for line in world.trace if line.at_us >= at_us and line.event == "vm-ended"]


@pytest.mark.parametrize("process", ["service", "host", "vmms", "voter"])
@pytest.mark.parametrize("seed", range(6))
def test_killing_a_process_of_the_node_stops_no_vm(process: str, seed: int) -> None:
    world = formed(seed)
    killed_us = world.clock.now_us

    world.nodes["node1"].kill_process(process)
    world.run(12 * SECOND)

    assert ended_since(world, killed_us) == []
    assert world.unconverged() == []


@pytest.mark.parametrize(
    "blow",
    [
        pytest.param(lambda world: world.nodes["node1"].kill_process("service"), id="service killed"),
        pytest.param(
            lambda world: world.nodes["node1"].client.stall(world.clock.now_us + 6 * SECOND), id="engine stalled"
        ),
    ],
)
def test_a_majority_that_a_fence_has_switched_off_comes_back_though_the_fencer_is_struck(
    blow: Callable[[World], None],
) -> None:
    world = formed(5)
    world.engine.hold(world.topology.rig, "node3")
    world.engine.power_off_node("node3")
    world.run(12 * SECOND)
    world.nodes["node2"].hang_process("service", 60 * SECOND)
    for _ in range(200):
        world.run(50_000)
        if any(line.event == "fence-verified" and "node2" in str(line.fields["session"]) for line in world.trace):
            break
    else:
        pytest.fail("node2 was never fenced")

    blow(world)
    world.run(45 * SECOND)

    assert world.violations == []
    assert all(world.instances.running(f"vm{number}") for number in range(1, 5))


def test_nodes_that_boot_late_in_a_cold_start_are_not_fenced() -> None:
    world = formed(3)
    for name in world.nodes:
        world.engine.power_off_node(name)
    world.run(SECOND)
    began_us = world.clock.now_us

    for name, delay in (("node1", 0), ("node2", 100_000), ("node3", 3_200_000)):
        world.clock.after(delay, lambda name=name: world.engine.start_node(name))  # type: ignore[misc]
    world.run(20 * SECOND)

    assert [str(line) for line in world.trace if line.at_us > began_us and line.event == "fencing"] == []
    assert world.unconverged() == []


def test_a_node_that_is_held_off_keeps_nobody_busy() -> None:
    world = formed(2)
    world.engine.hold(world.topology.rig, "node3")
    world.engine.power_off_node("node3")
    world.run(20 * SECOND)
    steps = [0]
    service = world.nodes["node2"].service
    assert service is not None
    handle = service.handle
    service.handle = lambda now, event: (steps.__setitem__(0, steps[0] + 1), handle(now, event))[1]  # type: ignore[method-assign,func-returns-value]

    world.run(10 * SECOND)

    assert steps[0] < 300


def test_a_group_whose_vm_cannot_be_prepared_goes_elsewhere() -> None:
    world = formed(4)
    victim = next(name for name in world.nodes if any(box.node == name for box in world.instances.running("vm1")))
    client = world.nodes[victim].client
    world.nodes[victim].kill_process("vmms")
    for _ in range(40):
        client.lose_next_request("create")
    world.engine.remove_by_hand(world.instances.running("vm1")[0].id)

    world.run(60 * SECOND)

    assert world.violations == []
    assert world.instances.running("vm1")
    assert world.instances.running("vm1")[0].node != victim


@pytest.mark.parametrize("process", ["host", "vmms"])
@pytest.mark.parametrize("seed", range(3))
def test_a_program_that_hangs_for_ever_is_restarted_and_stops_no_vm(process: str, seed: int) -> None:
    world = formed(seed)
    hung_us = world.clock.now_us

    world.nodes["node1"].hang_process(process, 3600 * SECOND)
    world.run(12 * SECOND)

    told = [line.event for line in world.trace if line.at_us >= hung_us and line.node == "node1"]
    assert told.count("program-hung") == 1
    assert ended_since(world, hung_us) == []
    assert world.unconverged() == []


def test_a_program_that_hangs_shorter_than_the_limit_is_left_alone() -> None:
    world = formed(1)
    hung_us = world.clock.now_us

    world.nodes["node1"].hang_process("vmms", 3_500_000)
    world.run(12 * SECOND)

    assert [str(line) for line in world.trace if line.at_us >= hung_us and line.event == "program-hung"] == []


@pytest.mark.parametrize("process", ["host", "vmms"])
def test_a_vm_that_crashes_while_a_program_hangs_is_restarted_in_place(process: str) -> None:
    world = formed(6)
    box = world.instances.running("vm1")[0]

    world.nodes[box.node].hang_process(process, 3600 * SECOND)
    world.engine.crash_vm(box.id)
    world.run(20 * SECOND)

    assert world.violations == []
    (again,) = world.instances.running("vm1")
    assert again.node == box.node
    assert world.unconverged() == []


def test_an_entry_point_that_does_not_return_costs_its_resource_host_and_nothing_else() -> None:
    topology = small_topology()
    impatient = ResourcePolicy(deadlock_timeout_us=5 * SECOND, restart_threshold=3)
    groups = tuple(
        replace(group, resources=tuple(replace(spec, policy=impatient) for spec in group.resources))
        for group in topology.groups
    )
    world = World(replace(topology, groups=groups), seed=6)
    assert world.run_until_converged(15 * SECOND) == []
    box = world.instances.running("vm1")[0]

    world.nodes[box.node].drivers.next.append(60 * SECOND)
    world.engine.crash_vm(box.id)
    world.run(SECOND)
    assert world.run_until_converged(20 * SECOND) == []

    lines = [(line.node, line.event) for line in world.trace]
    assert (box.node, "entry-point-deadlocked") in lines
    assert (box.node, "process-killed") in lines
    assert (box.node, "resource-host-lost") in lines
    assert [line for line in world.trace if line.event == "node-down"] == []


def test_a_vmms_that_hangs_and_that_nobody_asks_costs_its_node_the_session() -> None:
    """The second line: of what nobody can tell for a pending-timeout it is taken that it has failed, and where no proof
    of its end comes within another one the session ends.
    """
    topology = small_topology()
    patient = replace(topology.settings, program_silence_us=3600 * SECOND)
    world = World(replace(topology, settings=patient), seed=6)
    assert world.run_until_converged(15 * SECOND) == []
    box = world.instances.running("vm1")[0]

    world.nodes[box.node].hang_process("vmms", 3600 * SECOND)
    world.engine.crash_vm(box.id)
    world.run(400 * SECOND)

    assert world.violations == []
    assert world.instances.running("vm1")
    assert world.unconverged() == []


@pytest.mark.parametrize("seed", range(3))
def test_what_a_node_owned_before_it_was_reset_is_not_counted_as_what_it_owns(seed: int) -> None:
    world = formed(seed)
    before = owners(world)
    first = next(name for name, vms in before.items() if vms == 2)

    world.engine.end_node(first, 87)
    world.run(500_000)
    assert world.run_until_converged(15 * SECOND) == []

    assert [line.node for line in world.trace if line.event in ("node-joined", "group-claimed")][-3:] == [first] * 3
    assert owners(world) == before


def owners(world: World) -> Counter[str]:
    return Counter(box.node for number in range(1, 5) for box in world.instances.running(f"vm{number}"))
