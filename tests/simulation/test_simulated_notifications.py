"""What a node asks of the voters, at rest and for each change, as the cluster grows: counted in the seeded world."""

from collections import Counter

import pytest

from harness.cluster_service.core.messages import ChangeRegister, Tick
from harness.cluster_service.placement.failover import LOOK_AGAIN_US
from harness.database.protocol import Beat, Call, Reply
from harness.model.changes import RecordRestart
from harness.model.records import GroupRecord
from harness.model.register_keys import group_key
from harness.model.topology import GroupSpec, NodeSpec, ResourceSpec, Topology
from harness.simulation.twins.voters import SimulatedVoter
from harness.simulation.world.world import World

SECOND = 1_000_000
VOTERS = 3
MAX_ROUNDS = 3
"""An accept that finds that somebody else has prepared since, and then both rounds."""


def cluster(*, nodes: int, groups: int) -> World:
    """A formed cluster of light groups, each of one address."""
    topology = Topology(
        rig="sim",
        subnet="10.87.0.0/24",
        nodes=tuple(
            NodeSpec(name=f"node{i}", address=f"10.87.0.{10 + i}", voter=i <= VOTERS) for i in range(1, nodes + 1)
        ),
        groups=tuple(
            GroupSpec(
                name=f"g{i}",
                resources=(ResourceSpec(name=f"ip{i}", type="ip-address", properties={"address": f"10.1.{i}.1/24"}),),
            )
            for i in range(1, groups + 1)
        ),
    )
    world = World(topology, seed=1)
    assert world.run_until_converged(60 * SECOND) == []
    world.run(groups * LOOK_AGAIN_US + 2 * SECOND)  # copies of the start that concern nobody are read by and by
    return world


class Counted:
    """Counts the voters' calls of one world, by kind."""

    def __init__(self, world: World) -> None:
        self.calls: Counter[str] = Counter()
        for voter in world.voters.values():
            voter.watch(self._saw)

    def _saw(self, voter: SimulatedVoter, call: Call, reply: Reply) -> None:
        del voter, reply
        self.calls[type(call).__name__] += 1

    @property
    def without_beats(self) -> int:
        return sum(self.calls.values()) - self.calls[Beat.__name__]


def test_at_rest_a_node_only_beats_however_many_groups_there_are() -> None:
    world = cluster(nodes=5, groups=20)
    counted = Counted(world)

    world.run(10 * SECOND)

    assert counted.without_beats == 0
    assert counted.calls[Beat.__name__] <= 5 * VOTERS * 22


def change_each_group_once(world: World, *, apart_us: int) -> int:
    """Each group's owner writes something into the group's register; returns how many changes that were."""
    numbers = iter(range(10**6, 10**7))
    owned = [
        (node, record)
        for node in world.nodes.values()
        for record in node.service._managers.failover.groups.values()  # type: ignore[union-attr]
        if record.owner is not None and record.owner.node == node.name
    ]
    for node, record in owned:
        number = next(numbers)
        change = RecordRestart(
            session=record.owner, epoch=record.epoch, resource="ip", failure=str(number), at_us=0, period_us=10**12
        )
        wish = ChangeRegister(id=number, key=group_key(record.spec.name), change=change)
        node.service._managers.database.ask(world.clock.now_us, wish)  # type: ignore[union-attr]
        node._deliver(Tick())
        world.run(apart_us)
    return len(owned)


@pytest.mark.parametrize(("nodes", "groups"), [(3, 15), (6, 30), (9, 60)])
def test_a_change_costs_its_owner_its_rounds_and_every_node_a_look_a_second(nodes: int, groups: int) -> None:
    world = cluster(nodes=nodes, groups=groups)
    counted = Counted(world)
    began_us = world.clock.now_us

    changes = change_each_group_once(world, apart_us=100_000)

    looks = nodes * ((world.clock.now_us - began_us) // LOOK_AGAIN_US + 1)
    assert changes == groups
    assert counted.without_beats <= changes * MAX_ROUNDS * VOTERS + looks * VOTERS


def test_copies_that_concern_nobody_become_true_again_by_and_by() -> None:
    world = cluster(nodes=3, groups=6)
    change_each_group_once(world, apart_us=1_000)

    world.run(8 * LOOK_AGAIN_US)

    told = [
        [node.service._managers.failover.groups[f"g{i}"] for i in range(1, 7)]  # type: ignore[union-attr]
        for node in world.nodes.values()
    ]
    assert told[0] == told[1] == told[2]
    assert all(isinstance(record, GroupRecord) and len(record.restarts) == 1 for record in told[0])


@pytest.mark.parametrize(("nodes", "groups"), [(3, 15), (6, 30), (9, 60)])
def test_survivors_of_a_power_cut_claim_every_group_with_few_calls(nodes: int, groups: int) -> None:
    world = cluster(nodes=nodes, groups=groups)
    victim = f"node{nodes}"
    orphans = sum(world.nodes["node1"].service._managers.failover.owner_node(f"g{i}") == victim for i in range(groups))  # type: ignore[union-attr]
    counted = Counted(world)
    world.engine.hold("sim", victim)
    world.engine.power_off_node(victim)

    world.run(4 * SECOND)

    owners = {world.nodes["node1"].service._managers.failover.owner_node(f"g{i}") for i in range(1, groups + 1)}  # type: ignore[union-attr]
    assert victim not in owners
    assert counted.without_beats <= orphans * 6 * VOTERS + 30 * nodes * VOTERS
