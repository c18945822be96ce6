"""VMs that end while the service or the resource host is away: what counts as a failure, and what does not."""

import pytest

from harness.simulation.faults.schedule import small_topology
from harness.simulation.world.world import World

SECOND = 1_000_000


def formed(seed: int) -> World:
    world = World(small_topology(), seed=seed)
    assert world.run_until_converged(15 * SECOND) == []
    return world


def ended_since(world: World, at_us: int) -> list[tuple[str, str]]:
    """VMs whose main process ended, and where."""
    return [
        (str(line.fields["vm"]), line.node)
        for line in world.trace
        if line.at_us >= at_us and (line.component, line.event) == ("engine", "vm-ended")
    ]


def restarts_left(world: World, node: str, vm: str) -> int:
    service = world.nodes[node].service
    assert service is not None
    for group in service.snapshot(world.clock.now_us)["groups"]:
        for resource in group["resources"]:
            if resource["name"] == vm:
                return int(resource["restarts_left"])
    raise AssertionError(f"{node} does not know {vm}")


@pytest.mark.parametrize("process", ["service", "host"])
@pytest.mark.parametrize("seed", range(4))
def test_a_vm_that_crashes_while_nobody_watches_has_failed(process: str, seed: int) -> None:
    world = formed(seed)
    box = world.instances.running("vm1")[0]
    before = restarts_left(world, box.node, "vm1")

    world.nodes[box.node].kill_process(process)
    world.engine.crash_vm(box.id)
    world.run(5 * SECOND)

    assert [run.node for run in world.instances.running("vm1")] == [box.node]
    assert (before, restarts_left(world, box.node, "vm1")) == (1, 0)
    failed = [line for line in world.trace if line.event == "resource-failed"]
    assert len(failed) == 1
    assert "nobody watched" in failed[0].fields["message"]


def test_a_crash_that_was_seen_and_found_again_counts_once() -> None:
    world = formed(1)
    box = world.instances.running("vm1")[0]

    world.engine.crash_vm(box.id)
    for _ in range(100):
        world.clock.run_until(world.clock.now_us + 1_000)
        if any(line.event == "resource-failed" for line in world.trace):
            break
    world.nodes[box.node].kill_process("service")
    world.run(6 * SECOND)

    assert [run.node for run in world.instances.running("vm1")] == [box.node]
    assert restarts_left(world, box.node, "vm1") == 0


def alone(seed: int) -> World:
    """A cluster of one node: nobody else can call it lost, so that it comes back to its own VMs."""
    world = World(small_topology(nodes=1, groups=2), seed=seed)
    assert world.run_until_converged(15 * SECOND) == []
    return world


@pytest.mark.parametrize("seed", range(8))
def test_vms_that_pid_1_ends_with_the_lease_have_not_failed(seed: int) -> None:
    world = alone(seed)
    away_us = world.clock.now_us

    world.voters["node1"].stop()
    world.run(2_300_000)
    world.voters["node1"].start()
    world.run(10 * SECOND)

    assert sorted(ended_since(world, away_us)) == [("vm1", "node1"), ("vm2", "node1")]
    assert [str(line) for line in world.trace if line.event == "resource-failed"] == []
    assert world.unconverged() == []


@pytest.mark.parametrize("seed", range(8))
def test_a_service_that_comes_back_after_its_lease_counts_no_failures(seed: int) -> None:
    world = alone(seed)
    away_us = world.clock.now_us

    for _ in range(6_000):
        world.nodes["node1"].kill_process("service")
        world.clock.run_until(world.clock.now_us + 500)
        if not world.instances.running("vm1"):
            break
    world.run(10 * SECOND)

    assert sorted(ended_since(world, away_us)) == [("vm1", "node1"), ("vm2", "node1")]
    assert [str(line) for line in world.trace if line.event == "resource-failed"] == []
    assert world.unconverged() == []
