"""A cluster that is too large for everybody to watch everything, in the seeded world."""

import dataclasses

import pytest
from test_requests import ask, vm_node

from harness.cluster_service.core.messages import AnswerCode, RequestAnswered
from harness.cluster_service.membership.sharding import WATCHERS_PER_SHARD
from harness.model.records import ClusterRecord, GroupRecord
from harness.model.topology import SECOND_US, GroupSpec, NodeSpec, ResourceSpec, Settings, Topology
from harness.simulation.world.world import World

NODES = 12
GROUPS = 36


def topology(*, preferred: tuple[str, ...] = (), nodes: int = NODES) -> Topology:
    """The last group prefers the nodes that are named, if any are."""

    def vm(number: int) -> ResourceSpec:
        properties = {"image": "blackstart/guest", "address": f"10.88.0.{number}", "user": str(10_000 + number)}
        return ResourceSpec(name=f"vm{number}", type="virtual-machine", properties=properties)

    return Topology(
        rig="sim",
        subnet="10.87.0.0/24",
        nodes=tuple(NodeSpec(name=f"node{i}", address=f"10.87.0.{10 + i}", voter=i <= 5) for i in range(1, nodes + 1)),
        groups=tuple(
            GroupSpec(
                name=f"web{i}",
                resources=(vm(i),),
                failover_threshold=100,
                preferred_owners=preferred if i == GROUPS else (),
            )
            for i in range(1, GROUPS + 1)
        ),
    )


def settled(world: World, limit_us: int = 40 * SECOND_US) -> None:
    assert world.run_until_converged(limit_us) == []
    assert world.violations == []


def formed(**preferred: tuple[str, ...]) -> World:
    world = World(topology(**preferred), seed=5)
    settled(world)
    return world


def test_the_nodes_of_a_large_cluster_join_one_right_after_the_other() -> None:
    """They all write one register at the same time, and each of them takes some ten milliseconds for it."""
    world = World(topology(nodes=64), seed=1)

    world.run(3 * SECOND_US // 2)

    record = world.chosen.newest("cluster")
    assert isinstance(record, ClusterRecord)
    assert len(record.up_nodes()) == 64
    assert world.violations == []


def known(world: World, node: str) -> dict[str, GroupRecord]:
    service = world.nodes[node].service
    assert service is not None
    return service._managers.failover.groups


def owner(world: World, group: str) -> str:
    record = world.chosen.newest(f"group/{group}")
    assert isinstance(record, GroupRecord)
    assert record.owner is not None
    return record.owner.node


def watchers(world: World, group: str) -> list[str]:
    """Asked of node1, as everybody would answer."""
    service = world.nodes["node1"].service
    assert service is not None
    record = world.chosen.newest(f"group/{group}")
    assert isinstance(record, GroupRecord)
    return service._managers.failover._watch.candidates(record.spec, tuple(world.nodes))


def stranger(world: World, group: str) -> str:
    """A node that neither watches the group nor owns it, and has no vote."""
    return next(
        name for name in reversed(world.nodes) if name not in watchers(world, group) and name != owner(world, group)
    )


def test_each_group_is_known_to_its_watchers_only_and_lies_on_one_of_them() -> None:
    world = formed()

    for number in range(1, GROUPS + 1):
        name = f"web{number}"
        assert sorted(node for node in world.nodes if name in known(world, node)) == sorted(watchers(world, name))
        assert len(watchers(world, name)) == WATCHERS_PER_SHARD
        assert vm_node(world, f"vm{number}") in watchers(world, name)


def test_what_a_lost_node_has_owned_runs_again_where_it_is_watched() -> None:
    world = formed()
    lost = owner(world, "web1")
    groups = [f"web{number}" for number in range(1, GROUPS + 1) if owner(world, f"web{number}") == lost]

    world.engine.hold("sim", lost)
    world.engine.power_off_node(lost)
    world.run(8 * SECOND_US)

    assert groups
    for name in groups:
        assert owner(world, name) in watchers(world, name)
        assert vm_node(world, name.replace("web", "vm")) == owner(world, name)


def test_when_all_watchers_of_a_group_are_lost_at_once_others_take_over() -> None:
    world = formed()
    group = next(
        f"web{number}"
        for number in range(1, GROUPS + 1)
        if sum(name in world.voters for name in watchers(world, f"web{number}")) <= 2
    )
    lost = watchers(world, group)
    for name in lost:
        world.engine.hold("sim", name)
        world.engine.power_off_node(name)

    world.run(12 * SECOND_US)

    assert vm_node(world, group.replace("web", "vm")) not in (None, *lost)
    assert world.violations == []


def test_an_owner_whose_service_died_still_knows_what_it_owns_wherever_that_was_moved_to() -> None:
    world = formed()
    target = stranger(world, "web7")
    moved = ask(world, owner(world, "web7"), "group.move", group="web7", target=target)
    world.run(3 * SECOND_US)
    assert (moved.code, vm_node(world, "vm7")) == (AnswerCode.DONE, target)

    world.nodes[target].kill_process("service")
    world.run(3 * SECOND_US)
    world.engine.crash_vm(world.engine.vm("vm7").id)
    world.run(3 * SECOND_US)

    assert vm_node(world, "vm7") == target
    assert owner(world, "web7") == target
    settled(world)


def test_a_group_that_was_moved_to_a_stranger_is_taken_over_by_who_watches_it() -> None:
    world = formed()
    target = stranger(world, "web7")
    ask(world, owner(world, "web7"), "group.move", group="web7", target=target)
    world.run(3 * SECOND_US)
    world.engine.hold("sim", target)
    world.engine.power_off_node(target)

    world.run(8 * SECOND_US)

    assert vm_node(world, "vm7") in watchers(world, "web7")


def test_any_node_answers_for_groups_that_it_does_not_watch() -> None:
    world = formed()
    here, asked = owner(world, "web7"), stranger(world, "web7")
    other = next(name for name in world.nodes if name not in (*watchers(world, "web7"), here, asked))

    by_group = ask(world, asked, "group.offline", group="web7")
    ask(world, other, "group.offline", group="web7")
    by_resource = ask(world, asked, "resource.fail", resource="vm7")
    unknown: list[RequestAnswered] = []
    for call, argument in (("group.offline", "group"), ("resource.fail", "resource")):
        world.nodes[asked].request(call, {argument: "none"}, answered=unknown.append)
    world.run(2 * SECOND_US)
    move = ask(world, here, "group.move", group="web7", target=asked)
    world.run(3 * SECOND_US)
    again = ask(world, other, "group.offline", group="web7")

    assert [(answer.code, answer.result.get("owner")) for answer in (by_group, by_resource)] == [
        (AnswerCode.NOT_OWNER, here)
    ] * 2
    assert [answer.code for answer in unknown] == [AnswerCode.NO_SUCH] * 2
    assert (move.code, again.code, again.result.get("owner")) == (AnswerCode.DONE, AnswerCode.NOT_OWNER, asked)


def test_a_drained_node_keeps_nothing() -> None:
    world = formed()
    target = stranger(world, "web7")
    ask(world, owner(world, "web7"), "group.move", group="web7", target=target)
    world.run(3 * SECOND_US)

    ask(world, "node1", "node.pause", node=target, drain=True)
    world.run(12 * SECOND_US)

    cluster = world.chosen.newest("cluster")
    assert cluster.node(target).drain.value == "Completed"  # type: ignore[union-attr]
    assert target not in {owner(world, f"web{number}") for number in range(1, GROUPS + 1)}
    assert world.violations == []


def test_a_group_that_prefers_nodes_is_placed_among_all_of_them() -> None:
    world = formed(preferred=("node12", "node3"))
    first = owner(world, f"web{GROUPS}")
    world.engine.hold("sim", "node12")
    world.engine.power_off_node("node12")

    world.run(8 * SECOND_US)

    assert (first, owner(world, f"web{GROUPS}")) == ("node12", "node3")
    assert all(f"web{GROUPS}" in known(world, node) for node in world.nodes if node != "node12")


def test_members_that_never_come_are_not_waited_for_for_ever() -> None:
    missing = watchers(formed(), "web4")
    assert sum(name in ("node1", "node2", "node3", "node4", "node5") for name in missing) <= 2
    world = World(topology(), seed=5)
    world.run(360_000)
    for name in missing:
        world.engine.hold("sim", name)
        world.engine.power_off_node(name)

    world.run(140 * SECOND_US)

    cluster = world.chosen.newest("cluster")
    assert {cluster.node(name).state.value for name in missing} == {"Never"}  # type: ignore[union-attr]
    assert all(vm_node(world, f"vm{number}") for number in range(1, GROUPS + 1))


def test_spare_members_do_not_keep_others_from_watching_once_the_cluster_is_formed() -> None:
    """Also not after every service has begun anew, and waits for nobody."""
    world = World(topology(), seed=5)
    world.run(360_000)
    for name in ("node8", "node9", "node10", "node11"):
        world.engine.hold("sim", name)
        world.engine.power_off_node(name)
    world.run(140 * SECOND_US)
    for node in world.nodes.values():
        if node.service is not None:
            node.kill_process("service")
    world.run(6 * SECOND_US)
    lost = [name for name in world.nodes if name not in world.voters and world.nodes[name].service is not None]

    for name in lost:
        world.engine.hold("sim", name)
        world.engine.power_off_node(name)
    world.run(10 * SECOND_US)

    assert all(owner(world, f"web{number}") not in lost for number in range(1, GROUPS + 1))
    assert all(vm_node(world, f"vm{number}") for number in range(1, GROUPS + 1))


@pytest.mark.parametrize("seed", range(6))
def test_a_group_finds_its_only_possible_owner_although_that_one_does_not_watch_its_circle(seed: int) -> None:
    whole = topology()
    restricted = [
        dataclasses.replace(group, possible_owners=(f"node{6 + number % 7}",))
        for number, group in enumerate(whole.groups)
    ]
    world = World(dataclasses.replace(whole, groups=tuple(restricted)), seed=seed)

    world.run(20 * SECOND_US)

    assert [vm_node(world, group.resources[0].name) for group in restricted] == [
        group.possible_owners[0] for group in restricted
    ]


def test_what_is_asked_of_a_resource_at_its_owner_is_done_at_once() -> None:
    world = formed()
    began_us = world.clock.now_us

    answer = ask(world, owner(world, "web7"), "resource.offline", resource="vm7")

    assert (answer.code, world.clock.now_us - began_us < SECOND_US // 2) == (AnswerCode.DONE, True)


def test_what_was_read_once_and_is_not_watched_is_never_taken_for_an_orphan() -> None:
    world = formed()
    reader = "node12"
    world.nodes[reader].kill_process("service")
    world.run(6 * SECOND_US)
    lost = next(name for name in world.nodes if name not in world.voters and name != reader)
    world.engine.hold("sim", lost)
    world.engine.power_off_node(lost)

    world.run(20 * SECOND_US)

    service = world.nodes[reader].service
    assert service is not None
    failover = service._managers.failover
    old = [name for name, record in failover.groups.items() if record.owner and record.owner.node == lost]
    assert len(failover.groups) == GROUPS
    assert any(not failover.keeps(name) for name in old)
    assert failover._orphans_weighed == 0


@pytest.mark.parametrize("nodes", [5])
def test_small_rigs_may_divide_the_watch_too(nodes: int) -> None:
    whole = topology()
    small = dataclasses.replace(whole, nodes=whole.nodes[:nodes], settings=Settings(everyone_watches_up_to=1))
    world = World(small, seed=5)

    settled(world)

    assert all(len(known(world, name)) < GROUPS for name in world.nodes)
