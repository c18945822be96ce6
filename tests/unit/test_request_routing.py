"""A person's request from outside: who is asked, whom next, and what is said when it cannot be done."""

from collections.abc import Mapping
from typing import Any

import pytest

from harness.errors import ApiUnanswered, ApiUnreachable, HarnessError, RequestRefused
from harness.rig.cluster.node_api_client import Address, ApiReply, addresses_of
from harness.rig.cluster.request_routing import FOLLOW_LIMIT, Question, send_request, who_to_ask
from harness.rig.cluster.status import GroupStatus, NodeStatus, Power, ResourceStatus, RigStatus

MOVE = Question(path="groups/web/move", arguments={"target": "node2"})
NODES = ("node1", "node2", "node3")


class FakeNodes:
    """Nodes that answer with a code each, or raise; keeps who was asked."""

    def __init__(self, **answers: str | Exception) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def post(self, address: Address, path: str, body: Mapping[str, Any], *, limit_s: float) -> ApiReply:
        assert (path, body) == ("groups/web/move", {"target": "node2"})
        assert limit_s > 0
        self.asked.append(address.node)
        answer = self.answers[address.node]
        if isinstance(answer, Exception):
            raise answer
        code, _, owner = answer.partition(" ")
        return ApiReply(node=address.node, status=200, body={"code": code, "message": f"told {code}", "owner": owner})


def send(nodes: FakeNodes, *order: str, **absent: str) -> ApiReply:
    addresses = {name: Address(node=name, host="127.0.0.1", port=1) for name in NODES}
    return send_request(nodes, MOVE, addresses=addresses, order=order, absent=absent)


def test_first_node_that_does_it_is_the_answer() -> None:
    nodes = FakeNodes(node1="done", node2="done")

    assert send(nodes, "node1", "node2").node == "node1"
    assert nodes.asked == ["node1"]


def test_owner_that_a_node_names_is_asked_next() -> None:
    nodes = FakeNodes(node1="not-owner node3", node2="done", node3="done")

    assert send(nodes, *NODES).node == "node3"
    assert nodes.asked == ["node1", "node3"]


def test_owners_that_send_one_round_in_circles_are_followed_so_often_and_no_further() -> None:
    nodes = FakeNodes(node1="not-owner node2", node2="not-owner node1", node3="not-owner node1")

    with pytest.raises(RequestRefused, match="no node could carry out groups/web/move"):
        send(nodes, *NODES)

    assert len(nodes.asked) == len(NODES) + FOLLOW_LIMIT


@pytest.mark.parametrize("first", ["no-quorum", "starting", ApiUnreachable("takes no connection")])
def test_node_that_certainly_did_nothing_gives_way_to_the_next(first: str | Exception) -> None:
    nodes = FakeNodes(node1=first, node2="done")

    assert send(nodes, "node1", "node2").node == "node2"


@pytest.mark.parametrize("code", ["refused", "no-such", "malformed", "expired"])
def test_refusal_is_final_and_says_who_refused_what_and_why(code: str) -> None:
    nodes = FakeNodes(node1=code, node2="done")

    with pytest.raises(RequestRefused, match=f"node1 refused groups/web/move: told {code}") as refusal:
        send(nodes, "node1", "node2")

    assert refusal.value.code == code
    assert nodes.asked == ["node1"]


@pytest.mark.parametrize("answer", ["unknown", ApiUnanswered("gave no answer")])
def test_what_may_be_done_already_is_asked_of_nobody_else(answer: str | Exception) -> None:
    nodes = FakeNodes(node1=answer, node2="done")

    with pytest.raises(ApiUnanswered, match="may or may not be done"):
        send(nodes, "node1", "node2")

    assert nodes.asked == ["node1"]


def test_when_nobody_answers_each_node_is_told_with_its_reason() -> None:
    with pytest.raises(HarnessError, match=r"node1: is held off; node2: gave no answer within 2 s"):
        send(FakeNodes(), node1="is held off", node2="gave no answer within 2 s")


def test_minority_alone_refuses_and_everybody_who_was_tried_is_named() -> None:
    with pytest.raises(RequestRefused, match=r"node3: is off; node1: told no-quorum"):
        send(FakeNodes(node1="no-quorum"), "node1", node3="is off")


def standing(*quorums: bool | None) -> RigStatus:
    resource = ResourceStatus(name="web-vm", type="virtual-machine", state="Online", persistent_state=1)
    return RigStatus(
        rig="mine",
        subnet="10.87.0.0/24",
        nodes=tuple(
            NodeStatus(
                name=name, address="", voter=True, power=Power.ON, state="Up", session="", quorum=quorum
            )
            for name, quorum in zip(NODES, quorums, strict=True)
        ),
        groups=(GroupStatus(name="web", owner="node3", epoch=1, state="Online", resources=(resource,)),),
    )


def test_owner_is_asked_first_and_a_node_without_quorum_last() -> None:
    seen = standing(False, True, True)

    assert who_to_ask(seen, "groups/web/move", NODES) == ["node3", "node2", "node1"]
    assert who_to_ask(seen, "resources/web-vm/fail", NODES) == ["node3", "node2", "node1"]
    assert who_to_ask(seen, "nodes/node1/pause", NODES) == ["node2", "node3", "node1"]
    assert who_to_ask(seen, "groups/web/move", ["node1", "node2"]) == ["node2", "node1"]


def test_addresses_are_those_that_the_engine_publishes_now() -> None:
    published = {"IP": "127.0.0.1", "PrivatePort": 7637, "PublicPort": 32771, "Type": "tcp"}
    containers = [
        {"Labels": {"io.blackstart.node": "node1"}, "Ports": [published]},
        {"Labels": {"io.blackstart.node": "node2"}, "Ports": [{"PrivatePort": 7637, "Type": "tcp"}]},
        {"Labels": {"io.blackstart.node": "node3"}, "Ports": []},
    ]

    assert addresses_of(containers) == {"node1": Address(node="node1", host="127.0.0.1", port=32771)}
