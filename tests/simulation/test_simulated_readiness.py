"""VMs with readiness checks in the seeded world: the whole cluster waits for them, and random faults break nothing
that holds without.
"""

import dataclasses
import json
from typing import Any

import pytest

from harness.model.topology import SECOND_US, ResourceSpec, Topology
from harness.simulation.faults.schedule import run_schedule, small_topology
from harness.simulation.world.world import World

SEEDS = 40
BLOCK = 10
CHECKS: list[dict[str, Any]] = [{"endpoint": "tcp:5432"}, {"command": ["ready"], "liveness": True}]


def with_checks(topology: Topology, *, pending_timeout_us: int = 180 * SECOND_US) -> Topology:
    """Every VM gets a check, in turn over the network and inside of it."""

    def checked(resource: ResourceSpec, number: int) -> ResourceSpec:
        if resource.type != "virtual-machine":
            return resource
        properties = {**resource.properties, "readiness": json.dumps(CHECKS[number % 2])}
        policy = dataclasses.replace(resource.policy, pending_timeout_us=pending_timeout_us)
        return dataclasses.replace(resource, properties=properties, policy=policy)

    groups = tuple(
        dataclasses.replace(group, resources=tuple(checked(resource, number) for resource in group.resources))
        for number, group in enumerate(topology.groups)
    )
    return dataclasses.replace(topology, groups=groups)


def state_of(world: World, group: str) -> str:
    """As the group's owner tells it."""
    for name, node in world.nodes.items():
        told = node.service.snapshot(world.clock.now_us) if node.service is not None else {"groups": []}
        for entry in told["groups"]:
            if entry["name"] == group and entry["owner"] == name:
                return str(entry["state"])
    return ""


def test_group_of_a_lost_node_is_online_elsewhere_when_its_vm_is_ready_there() -> None:
    world = World(with_checks(small_topology()), seed=11)
    assert world.run_until_converged(20 * SECOND_US) == []
    (box,) = world.instances.running("vm1")
    world.engine.ready_after_us["vm1"] = 6 * SECOND_US
    world.engine.hold(world.topology.rig, box.node)

    world.engine.power_off_node(box.node)
    for _ in range(200):
        world.run(50_000)
        if world.instances.running("vm1"):
            break
    (moved,) = world.instances.running("vm1")
    world.run(4 * SECOND_US)
    while_not_ready = state_of(world, "web1")
    world.run(4 * SECOND_US)

    assert moved.node != box.node
    assert while_not_ready == "Pending"
    assert state_of(world, "web1") == "Online"
    assert world.instances.running("vm1") == [moved]
    assert world.violations == []


def test_vm_that_is_not_ready_on_its_node_is_tried_again_and_then_elsewhere() -> None:
    world = World(with_checks(small_topology(), pending_timeout_us=4 * SECOND_US), seed=12)
    assert world.run_until_converged(20 * SECOND_US) == []
    (box,) = world.instances.running("vm2")
    world.engine.not_ready.add("vm2")

    world.engine.crash_vm(box.id)
    nodes = set()
    for _ in range(60):
        world.run(SECOND_US)
        nodes |= {running.node for running in world.instances.running("vm2")}
    world.engine.not_ready.clear()
    world.run(40 * SECOND_US)

    assert len(nodes) > 1
    assert state_of(world, "web2") == "Online"
    assert world.violations == []


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_random_faults_break_nothing_when_vms_have_checks(first: int) -> None:
    for seed in range(first, first + BLOCK):
        outcome = run_schedule(seed, topology=with_checks(small_topology()))

        plan = "\n".join(str(fault) for fault in outcome.plan)
        tail = "\n".join(str(line) for line in outcome.world.trace[-60:])
        assert not outcome.broken, f"seed {seed}: {outcome.violations or outcome.unconverged}\n{plan}\n{tail}"
