"""Machines that end while the service or the resource host is away: what counts as a failure, and what does not."""

import pytest

from harness.simulation.schedule import small_topology
from harness.simulation.world import World

SECOND = 1_000_000


def formed(seed: int) -> World:
    world = World(small_topology(), seed=seed)
    assert world.run_until_settled(15 * SECOND) == []
    return world


def ended_since(world: World, at_us: int) -> list[tuple[str, str]]:
    """Machines whose main process ended, and where."""
    return [
        (str(line.fields["machine"]), line.node)
        for line in world.trace
        if line.at_us >= at_us and (line.component, line.event) == ("engine", "machine-ended")
    ]


def restarts_left(world: World, node: str, machine: str) -> int:
    service = world.nodes[node].service
    assert service is not None
    for group in service.snapshot(world.clock.now_us)["groups"]:
        for resource in group["resources"]:
            if resource["name"] == machine:
                return int(resource["restarts_left"])
    raise AssertionError(f"{node} does not know {machine}")


@pytest.mark.parametrize("process", ["service", "host"])
@pytest.mark.parametrize("seed", range(4))
def test_a_machine_that_crashes_while_nobody_watches_has_failed(process: str, seed: int) -> None:
    world = formed(seed)
    box = world.instances.running("vm1")[0]
    before = restarts_left(world, box.node, "vm1")

    world.nodes[box.node].kill_process(process)
    world.engine.crash_machine(box.id)
    world.run(5 * SECOND)

    assert [run.node for run in world.instances.running("vm1")] == [box.node]
    assert (before, restarts_left(world, box.node, "vm1")) == (1, 0)
    failed = [line for line in world.trace if line.event == "resource-failed"]
    assert len(failed) == 1
    assert "nobody watched" in failed[0].fields["message"]


def test_a_crash_that_was_seen_and_found_again_counts_once() -> None:
    world = formed(1)
    box = world.instances.running("vm1")[0]

    world.engine.crash_machine(box.id)
    for _ in range(100):
        world.clock.run_until(world.clock.now_us + 1_000)
        if any(line.event == "resource-failed" for line in world.trace):
            break
    world.nodes[box.node].kill_process("service")
    world.run(6 * SECOND)

    assert [run.node for run in world.instances.running("vm1")] == [box.node]
    assert restarts_left(world, box.node, "vm1") == 0


def test_machines_that_pid_1_ends_with_the_lease_have_not_failed() -> None:
    world = formed(2)
    node = world.instances.running("vm1")[0].node
    others = [name for name in world.nodes if name != node]
    away_us = world.clock.now_us

    world.network.cut([node], others)
    world.network.cut(others, [node])
    for name in others:  # nobody may fence it: the same node must take its machines up again
        world.network.cut([name], [other for other in world.nodes if other != name])
    world.run(2_400_000)
    world.network.heal()
    world.run(10 * SECOND)

    assert ("vm1", node) in ended_since(world, away_us)
    assert [str(line) for line in world.trace if line.event == "resource-failed"] == []
    assert world.unsettled() == []


def test_a_service_that_comes_back_after_its_lease_counts_no_failures() -> None:
    world = formed(3)
    node = world.instances.running("vm1")[0].node
    away_us = world.clock.now_us
    # The others are frozen meanwhile: nobody can call the node lost, and their machines end at the thaw.
    for name in world.nodes:
        if name != node:
            world.nodes[name].freeze()
    while world.instances.running("vm1"):
        world.nodes[node].kill_process("service")
        world.run(20_000)
    for name in world.nodes:
        world.nodes[name].thaw()
    world.run(12 * SECOND)

    assert ("vm1", node) in ended_since(world, away_us)
    assert [line for line in world.trace if line.event == "node-down"] == []
    assert [str(line) for line in world.trace if line.event == "resource-failed"] == []
