"""Administrators' requests in the seeded world: what is asked, what is answered, and what becomes of it."""


from harness.cluster_service.core.messages import AnswerCode, RequestAnswered
from harness.model.topology import Topology
from harness.simulation.faults.schedule import small_topology
from harness.simulation.world.world import World

SECOND = 1_000_000


def formed(seed: int = 1, topology: Topology | None = None) -> World:
    world = World(topology or small_topology(), seed=seed)
    assert world.run_until_converged(20 * SECOND) == []
    return world


def owner_of(world: World, group: str) -> str:
    for node in world.nodes.values():
        if node.service is None:
            continue
        for told in node.service.snapshot(world.clock.now_us)["groups"]:
            if told["name"] == group and told["owner"] is not None:
                return str(told["owner"])
    raise AssertionError(f"nobody knows the owner of {group}")


def group_on(world: World, node: str, group: str) -> dict[str, object]:
    service = world.nodes[node].service
    assert service is not None
    return next(told for told in service.snapshot(world.clock.now_us)["groups"] if told["name"] == group)


def vm_node(world: World, vm: str) -> str | None:
    running = world.instances.running(vm)
    return running[0].node if running else None


def ask(world: World, asked: str, call: str, /, limit: int = 12 * SECOND, **arguments: str | bool) -> RequestAnswered:
    answers: list[RequestAnswered] = []
    world.administrator.ask(asked, call, arguments, told=answers.append, redirections=0)
    end = world.clock.now_us + limit
    while not answers and world.clock.now_us < end and not world.violations:
        world.run(10_000)
    assert len(answers) == 1, f"{call} was not answered within {limit / SECOND:g} s"
    return answers[0]


def test_a_group_goes_offline_and_online_as_a_whole() -> None:
    world = formed()
    owner = owner_of(world, "web1")

    off = ask(world, owner, "group.offline", group="web1")
    world.run(2 * SECOND)
    stopped = vm_node(world, "vm1")
    on = ask(world, owner, "group.online", group="web1")
    world.run(2 * SECOND)

    assert (off.code, stopped) == (AnswerCode.DONE, None)
    assert (on.code, vm_node(world, "vm1")) == (AnswerCode.DONE, owner)


def test_another_node_names_the_owner() -> None:
    world = formed()
    owner = owner_of(world, "web1")
    other = next(name for name in world.nodes if name != owner)

    answer = ask(world, other, "resource.offline", resource="vm1")

    assert answer.code is AnswerCode.NOT_OWNER
    assert answer.result == {"owner": owner}
    assert vm_node(world, "vm1") == owner


def test_a_move_ends_the_vm_before_the_target_starts_it() -> None:
    world = formed()
    owner = owner_of(world, "web1")
    target = next(name for name in world.nodes if name != owner)

    answer = ask(world, owner, "group.move", group="web1", target=target)
    world.run(4 * SECOND)

    assert answer.code is AnswerCode.DONE
    assert vm_node(world, "vm1") == target
    assert world.violations == []


def test_a_paused_node_keeps_what_runs_and_takes_nothing() -> None:
    world = formed()
    owner = owner_of(world, "web1")
    others = [name for name in world.nodes if name != owner]

    paused = ask(world, others[0], "node.pause", node=owner)
    world.run(2 * SECOND)
    kept = vm_node(world, "vm1")
    refused = ask(world, owner_of(world, "web2"), "group.move", group="web2", target=owner)

    assert (paused.code, kept) == (AnswerCode.DONE, owner)
    if owner_of(world, "web2") != owner:
        assert refused.code is AnswerCode.REFUSED
        assert "Paused" in refused.message


def test_a_vm_that_fails_on_a_paused_node_goes_to_another() -> None:
    world = formed()
    owner = owner_of(world, "web1")
    ask(world, owner, "node.pause", node=owner)
    world.run(SECOND)

    world.engine.crash_vm(world.instances.running("vm1")[0].id)
    world.run(5 * SECOND)

    assert vm_node(world, "vm1") not in (None, owner)


def node_told(world: World, asked: str, node: str) -> dict[str, object]:
    service = world.nodes[asked].service
    assert service is not None
    return next(told for told in service.snapshot(world.clock.now_us)["nodes"] if told["name"] == node)


def test_a_drained_node_is_empty_and_gets_its_groups_back_at_once_when_resumed_so() -> None:
    world = formed()
    owner = owner_of(world, "web1")
    before = {group.name: owner_of(world, group.name) for group in world.topology.groups}
    other = next(name for name in world.nodes if name != owner)

    ask(world, other, "node.pause", node=owner, drain=True)
    world.run(8 * SECOND)
    drained = {group.name: owner_of(world, group.name) for group in world.topology.groups}
    drain = node_told(world, other, owner)["drain"]
    ask(world, other, "node.resume", node=owner, failback="immediate")
    world.run(8 * SECOND)
    after = {group.name: owner_of(world, group.name) for group in world.topology.groups}

    assert owner not in drained.values()
    assert drain == "Completed"
    assert after == before
    assert world.unconverged() == []
