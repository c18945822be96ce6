"""What the requests of a simulated administrator can have left, and which nodes a command is asked of."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from chaos.arena.port import Command, Subject
from chaos.arena.simulation.requests import ask_cluster
from harness.cluster_service.core.messages import AnswerCode, RequestAnswered
from harness.errors import ApiUnanswered, RequestRefused
from harness.model.topology import (
    GroupSpec,
    NodeSpec,
    Priority,
    ResourcePolicy,
    ResourceSpec,
    ShutdownAction,
    Topology,
)
from harness.rig.cluster.status import RigStatus
from harness.simulation.kernel.runtime import SimulatedRuntime, VirtualClock
from harness.simulation.world.administrator import Administrator


def resource(name: str, *needs: tuple[str, ...]) -> ResourceSpec:
    kind = "virtual-machine" if name.startswith("vm") else "ip-address"
    return ResourceSpec(name=name, type=kind, depends_on=needs)


class Node:
    """Takes every request, and answers it when it is told to."""

    def __init__(self) -> None:
        self.answer: Callable[[RequestAnswered], None] = lambda _answer: None

    def request(self, _call: str, _arguments: Any, *, answered: Callable[[RequestAnswered], None]) -> bool:
        self.answer = answered
        return True


def left_by(verb: str, asked: str, *specs: ResourceSpec, priority: Priority = Priority.MEDIUM) -> dict[str, set[bool]]:
    """What each VM of a group may be after that request about a resource was done."""
    group = GroupSpec(name="web", resources=specs, priority=priority)
    topology = Topology(rig="r", subnet="", nodes=(NodeSpec(name="node1", address="", voter=True),), groups=(group,))
    node: Any = Node()
    clock = VirtualClock(start_us=5)
    administrator = Administrator(clock, topology=topology, nodes={"node1": node})
    if verb:
        assert administrator.ask("node1", f"resource.{verb}", {"resource": asked})
        clock.run_until(9)
        node.answer(RequestAnswered(id=1, code=AnswerCode.DONE, message="done"))
    return {spec.name: administrator.may_be_wanted(spec.name) for spec in specs if spec.type == "virtual-machine"}


IP, IP2, VM = resource("ip"), resource("ip2"), resource("vm", ("ip",))


@pytest.mark.parametrize(
    ("verb", "asked", "specs", "left"),
    [
        ("offline", "vm", (IP, VM), {"vm": {False}}),
        ("offline", "ip", (IP, VM), {"vm": {False}}),
        ("offline", "ip", (IP, VM, resource("vmb", ("ip",))), {"vm": {False}, "vmb": {False}}),
        ("offline", "ip", (IP, IP2, resource("vm", ("ip", "ip2"))), {"vm": {True, False}}),
        ("offline", "ip", (IP, VM, resource("vmb", ("vm",))), {"vm": {False}, "vmb": {True, False}}),
        ("offline", "vmb", (IP, VM, resource("vmb", ("vm",))), {"vm": {True}, "vmb": {False}}),
        ("fail", "vm", (IP, VM), {"vm": {True}}),
    ],
)
def test_a_wish_takes_along_for_certain_what_directly_needs_it_and_perhaps_what_is_further_off(
    verb: str, asked: str, specs: tuple[ResourceSpec, ...], left: dict[str, set[bool]]
) -> None:
    assert left_by(verb, asked, *specs) == left


def test_what_is_started_when_asked_for_is_wanted_with_what_it_needs_from_then_on() -> None:
    specs = IP, VM, resource("vmb", ("vm",))

    assert left_by("", "", *specs, priority=Priority.NO_AUTO_START) == {"vm": {False}, "vmb": {False}}
    found = left_by("online", "vmb", *specs, priority=Priority.NO_AUTO_START)
    assert found == {"vm": {False, True}, "vmb": {True}}


@pytest.mark.parametrize(("action", "left"), [(ShutdownAction.OFFLINE, {True, False}), (ShutdownAction.FAIL, {True})])
def test_a_stop_by_hand_is_a_wish_unless_it_is_a_failure(action: ShutdownAction, left: set[bool]) -> None:
    vm = replace(resource("vm"), policy=ResourcePolicy(shutdown_action=action))
    topology = Topology(rig="r", subnet="", nodes=(), groups=(GroupSpec(name="web", resources=(vm,)),))
    administrator = Administrator(VirtualClock(), topology=topology, nodes={})

    administrator.by_hand("vm", False)

    assert administrator.may_be_wanted("vm") == left


MOVE = Command(subject=Subject.GROUP, name="web", verb="move", arguments={"target": "node2"})


class Cluster:
    """What each node answers to a request: nothing when it takes none, None when it never answers."""

    def __init__(self, **answers: RequestAnswered | str | None) -> None:
        self.nodes = answers
        self.asked: list[str] = []
        self.administrator = self

    def ask(
        self, node: str, call: str, arguments: Any, *, told: Callable[[RequestAnswered], None], redirections: int
    ) -> bool:
        assert (call, arguments, redirections) == ("group.move", {"group": "web", "target": "node2"}, 0)
        self.asked.append(node)
        answer = self.nodes[node]
        if isinstance(answer, RequestAnswered):
            told(answer)
        return answer != "takes none"


def sent_to(cluster: Any) -> str:
    clock = VirtualClock()
    runtime = SimulatedRuntime(clock, on_error=lambda _task, error: errors.append(error))
    errors: list[Exception] = []
    said: list[str] = []
    nodes: Any = [SimpleNamespace(name=name, quorum=True) for name in cluster.nodes]
    standing = RigStatus(rig="r", subnet="", nodes=nodes, groups=())

    async def ask() -> None:
        said.append(
            await ask_cluster(cluster, MOVE, runtime=runtime, standing=standing, answering=list(cluster.nodes))
        )

    runtime.spawn(ask(), name="ask")
    clock.run_until(60_000_000)
    if errors:
        raise errors[0]
    return said[0]


def answer(code: AnswerCode, **result: Any) -> RequestAnswered:
    return RequestAnswered(id=1, code=code, message=f"it is {code}", result=result)


def test_a_node_that_takes_no_request_is_passed_over() -> None:
    cluster = Cluster(node1="takes none", node2=answer(AnswerCode.DONE))

    assert sent_to(cluster) == "it is done"
    assert cluster.asked == ["node1", "node2"]


def test_the_owner_that_a_node_names_is_asked_next() -> None:
    cluster = Cluster(node1=answer(AnswerCode.NOT_OWNER, owner="node3"), node2=None, node3=answer(AnswerCode.DONE))

    assert sent_to(cluster) == "it is done"
    assert cluster.asked == ["node1", "node3"]


def test_nobody_knows_what_became_of_a_request_that_is_never_answered() -> None:
    cluster = Cluster(node1=None, node2=answer(AnswerCode.DONE))

    with pytest.raises(ApiUnanswered, match="it may or may not be done"):
        sent_to(cluster)
    assert cluster.asked == ["node1"]


def test_a_refusal_is_the_end() -> None:
    with pytest.raises(RequestRefused, match="node1 refused groups/web/move: it is refused"):
        sent_to(Cluster(node1=answer(AnswerCode.REFUSED), node2=answer(AnswerCode.DONE)))
