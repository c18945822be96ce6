"""How a rig stands is put together from what each node tells, and nobody's guess is shown as a fact."""

from typing import Any

from harness.document.topology import read_topology
from harness.document.yaml_source import load
from harness.rig.cluster.status import Power, RigStatus, merge

TOPOLOGY = read_topology(load("nodes: 3\ngroups: 1\n", name="rig.yaml"))
ON = {"node1": Power.ON, "node2": Power.ON, "node3": Power.ON}


def session(node: str) -> str:
    return f"{node}@abc/2026-01-01T00:00:00Z"


def snapshot(
    node: str, *, owner: str = "node1", epoch: int = 1, quorum: bool = True, up: str = "123"
) -> dict[str, Any]:
    """What `node` tells; `up` are the numbers of the nodes that it takes to be Up."""
    state = "Online" if owner == node else "Unknown"
    return {
        "node": node,
        "session": session(node),
        "quorum": quorum,
        "nodes": [
            {"name": f"node{number}", "state": "Up" if number in up else "Down", "session": session(f"node{number}")}
            for number in "123"
        ],
        "groups": [
            {
                "name": "web1",
                "owner": owner,
                "owner_session": session(owner),
                "epoch": epoch,
                "state": state,
                "resources": [
                    {"name": "web1-ip", "type": "ip-address", "state": state, "persistent_state": 1},
                    {"name": "web1-vm", "type": "virtual-machine", "state": state, "persistent_state": 1},
                ],
            }
        ],
    }


def standing(*snapshots: dict[str, Any], powers: dict[str, Power] | None = None) -> RigStatus:
    return merge(TOPOLOGY, powers or ON, {entry["node"]: entry for entry in snapshots})


def test_groups_state_is_what_its_owner_tells() -> None:
    seen = standing(snapshot("node2"), snapshot("node1"), snapshot("node3"))

    assert (seen.groups[0].owner, seen.groups[0].state) == ("node1", "Online")
    assert [resource.state for resource in seen.groups[0].resources] == ["Online", "Online"]
    assert seen.missing(TOPOLOGY) == []


def test_group_whose_owner_does_not_answer_is_unknown() -> None:
    seen = standing(snapshot("node2"), snapshot("node3"))

    assert (seen.groups[0].owner, seen.groups[0].state) == ("node1", "Unknown")
    assert "web1 (Unknown)" in seen.missing(TOPOLOGY)


def test_newer_epoch_wins_over_an_owner_that_does_not_know_that_it_lost() -> None:
    seen = standing(snapshot("node1", quorum=False), snapshot("node2", owner="node2", epoch=2))

    assert (seen.groups[0].owner, seen.groups[0].epoch, seen.groups[0].state) == ("node2", 2, "Online")


def test_owner_in_a_new_session_does_not_speak_for_its_earlier_life() -> None:
    reborn = snapshot("node1")
    reborn["session"] = "node1@def/2026-01-02T00:00:00Z"

    assert standing(reborn).groups[0].state == "Unknown"


def test_nodes_are_judged_by_who_has_quorum() -> None:
    seen = standing(snapshot("node1", quorum=False, up="1"), snapshot("node2", up="23"), snapshot("node3", up="23"))

    assert [node.state for node in seen.nodes] == ["Down", "Up", "Up"]
    assert [node.quorum for node in seen.nodes] == [False, True, True]


def test_without_quorum_anywhere_nobody_is_up() -> None:
    seen = standing(snapshot("node1", quorum=False))

    assert [node.state for node in seen.nodes] == ["Unknown"] * 3
    assert [node.quorum for node in seen.nodes] == [False, None, None]


def test_node_that_is_up_in_the_books_and_off_in_the_engine_is_missing() -> None:
    seen = standing(snapshot("node1"), snapshot("node2"), powers={**ON, "node3": Power.HELD_OFF})

    assert seen.missing(TOPOLOGY) == ["node3 (held off)"]


def test_groups_that_do_not_start_by_themselves_are_not_waited_for() -> None:
    text = (
        "groups: [{name: web1, priority: no-auto-start, resources: [{name: web1-ip, type: ip-address}]}]\nnodes: 3\n"
    )
    topology = read_topology(load(text, name="rig.yaml"))
    nobody = {name: snapshot(name, owner="nobody") for name in ON}

    seen = merge(topology, ON, nobody)

    assert seen.groups[0].state == "Unknown"
    assert seen.missing(topology) == []
