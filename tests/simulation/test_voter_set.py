"""The set of voters in the seeded world: lost disks, nodes that stay away, a witness, voters that lie."""

import pytest

from harness.model.topology import Fencing
from harness.simulation.faults.schedule import run_schedule, small_topology
from harness.simulation.world.fault_kinds import SETS
from harness.simulation.world.world import World

SECOND = 1_000_000
READMISSION_US = 8 * SECOND
"""Noticed within a beat, removed, looked at again within a second, added: two seconds or so; a busy wait more."""


def formed(*, nodes: int = 3, witness: bool = False, seed: int = 3, fencing: Fencing = Fencing.POWER) -> World:
    world = World(small_topology(nodes=nodes, witness=witness, fencing=fencing), seed=seed)
    assert world.run_until_converged(15 * SECOND) == []
    return world


def members(world: World) -> dict[str, str]:
    """The settled set, as every node that is a member has it. Asserts that they agree and that none is pending."""
    sets = [
        node.service._managers.membership.cluster  # type: ignore[union-attr]
        for name, node in world.nodes.items()
        if world.engine.node(name).running
    ]
    assert all(record is not None and record.pending_set is None for record in sets)
    told = {tuple(sorted(record.voter_set.members.items())) for record in sets}  # type: ignore[union-attr]
    assert len(told) == 1
    return dict(told.pop())


def cut_power(world: World, node: str) -> None:
    world.engine.hold(world.topology.rig, node)
    world.engine.power_off_node(node)


def give_power(world: World, node: str) -> None:
    world.engine.release(world.topology.rig, node)
    world.engine.start_node(node)


@pytest.mark.parametrize("voter", ["node1", "node2", "node3"])
def test_an_empty_voter_votes_again_under_a_new_incarnation(voter: str) -> None:
    world = formed()
    before = members(world)

    world.wipe_voter(voter)
    world.run(READMISSION_US)

    after = members(world)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {voter}
    assert world.unconverged() == []


def test_every_voter_may_lose_its_disk_one_after_the_other() -> None:
    world = formed()
    before = members(world)

    for voter in before:
        world.wipe_voter(voter)
        world.run(READMISSION_US)

    assert not set(before.values()) & set(members(world).values())
    assert world.violations == []
    assert world.unconverged() == []


def test_once_readmitted_a_voter_counts_so_that_another_can_be_lost() -> None:
    world = formed()
    world.wipe_voter("node2")
    world.run(READMISSION_US)

    cut_power(world, "node3")
    world.run(12 * SECOND)

    assert all(world.instances.running(f"vm{i}") for i in range(1, 5))
    assert world.violations == []


def test_two_voters_without_their_disks_stop_the_cluster_and_form_nothing() -> None:
    world = formed()

    world.wipe_voter("node1")
    world.wipe_voter("node2")
    world.run(20 * SECOND)

    assert all(not node.service.snapshot(world.clock.now_us)["quorum"] for node in world.nodes.values() if node.service)
    assert not any(world.instances.running(f"vm{i}") for i in range(1, 5))
    assert world.voters["node1"].acceptor.incarnation == ""
    assert world.violations == []


def test_a_voter_that_has_lost_writes_is_found_out_and_readmitted() -> None:
    world = formed()
    before = members(world)
    acceptor = world.voters["node2"].acceptor
    acceptor.revision -= 5

    world.run(READMISSION_US)

    assert any(line.event == "voter-lost" and "lost writes" in str(line) for line in world.trace)
    assert members(world)["node2"] != before["node2"]


def test_votes_of_nodes_that_stay_away_are_taken_out_so_that_losses_one_after_another_are_survived() -> None:
    world = formed(nodes=5)

    for node in ("node5", "node4", "node3"):
        cut_power(world, node)
        world.run(20 * SECOND)

    assert sorted(members(world)) == ["node1", "node2", "node3"]
    assert all(world.instances.running(f"vm{i}") for i in range(1, 5))
    for node in ("node3", "node4", "node5"):
        give_power(world, node)
    world.run(25 * SECOND)
    assert len(members(world)) == 5
    assert world.unconverged() == []


def test_the_vote_of_a_node_that_is_back_soon_is_not_touched() -> None:
    world = formed(nodes=5)
    before = members(world)

    cut_power(world, "node5")
    world.run(8 * SECOND)
    give_power(world, "node5")
    world.run(15 * SECOND)

    assert members(world) == before


def test_of_three_voters_an_absent_one_keeps_its_vote_and_so_saves_the_majority_when_it_is_back() -> None:
    world = formed()
    cut_power(world, "node3")
    world.run(25 * SECOND)
    cut_power(world, "node2")

    give_power(world, "node3")
    world.run(25 * SECOND)

    assert all(world.instances.running(f"vm{i}") for i in range(1, 5))
    assert world.violations == []


@pytest.mark.parametrize("victim", ["node1", "node2", "witness"])
def test_two_nodes_and_a_witness_survive_any_one_loss(victim: str) -> None:
    world = formed(nodes=2, witness=True)

    if victim == "witness":
        world.kill_witness(60 * SECOND)
    else:
        cut_power(world, victim)
    world.run(15 * SECOND)

    assert all(world.instances.running(f"vm{i}") for i in range(1, 5))
    assert world.violations == []


def test_a_hung_voter_is_told_and_stops_nobody() -> None:
    world = formed()
    began_us = world.clock.now_us

    world.nodes["node2"].hang_process("voter", 20 * SECOND)
    world.run(10 * SECOND)

    seen = world.nodes["node1"].service.snapshot(world.clock.now_us)  # type: ignore[union-attr]
    told = {voter["name"]: voter["state"] for voter in seen["voters"]}
    assert told == {"node1": "answers", "node2": "silent", "node3": "answers"}
    assert not [line for line in world.trace if line.at_us > began_us and line.event == "vm-ended"]


def test_whoever_began_a_change_of_the_set_may_die_and_another_carries_it_through() -> None:
    world = formed()
    world.wipe_voter("node3")
    for _ in range(400):
        world.run(5_000)
        if any(line.event == "voter-removed" for line in world.trace):
            break
    driver = next(line.node for line in world.trace if line.event == "voter-removed")

    world.nodes[driver].hang_process("service", 30 * SECOND)
    world.run(45 * SECOND)

    assert len(members(world)) == 3
    assert world.violations == []


@pytest.mark.parametrize(
    ("nodes", "witness", "seeds"), [(3, False, 40), (5, False, 15), (2, True, 40), (4, True, 15)]
)
def test_changes_of_the_set_at_bad_moments_hurt_nobody(nodes: int, witness: bool, seeds: int) -> None:
    changed = 0
    for seed in range(seeds):
        outcome = run_schedule(seed, topology=small_topology(nodes=nodes, witness=witness), among=tuple(sorted(SETS)))
        changed += max(outcome.world.chosen.sets) - 1

        assert not outcome.broken, f"seed {seed}: {outcome.violations or outcome.unconverged}"

    assert changed > seeds // 3
