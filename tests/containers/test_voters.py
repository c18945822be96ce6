"""Voters on a real rig: one without its disk is admitted anew, one whose file does not load as well, and then another
may be lost; two nodes and a witness survive the loss of any one.

The tests of a rig run in the order of this file and build on each other's history.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
from node_faults import VOTER, kill_process

from harness.document.topology import read_topology
from harness.document.yaml_source import load
from harness.model.object_names import node_container
from harness.rig.engine.exec import run_inside
from harness.rig.lifecycle.rig import Rig

pytestmark = [pytest.mark.containers, pytest.mark.timeout(200)]

GROUPS = """\
groups:
  - name: web
    resources:
      - {name: web-ip, type: ip-address}
      - {name: web-vm, type: virtual-machine, depends-on: "[web-ip]"}
"""
LIMIT_S = 40.0
LOOK_INTERVAL_S = 0.2
WIPE = "cd /data && rm -rf appendonlydir && ls -A /data"
TEAR = 'cd /data/appendonlydir && for file in *.incr.aof; do truncate -s -3 "$file"; done'

MakeRig = Callable[[str], Rig]


@pytest.fixture(scope="module")
def three(engine: docker.DockerClient, rig_names: Callable[[], str]) -> Iterator[Rig]:
    yield from _rig(engine, rig_names(), "nodes: 3\n")


@pytest.fixture(scope="module")
def two(engine: docker.DockerClient, rig_names: Callable[[], str]) -> Iterator[Rig]:
    yield from _rig(engine, rig_names(), "nodes: 2\nwitness: true\n")


def _rig(engine: docker.DockerClient, name: str, nodes: str) -> Iterator[Rig]:
    rig = Rig.up(read_topology(load(nodes + GROUPS, name="rig.yaml"), rig=name), say=print, client=engine)
    yield rig
    rig.down(say=print)


def wait(what: str, rig: Rig, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {LIMIT_S:g} s for {what}; {rig.standing()}\n{logs(rig)}"
        time.sleep(LOOK_INTERVAL_S)


def logs(rig: Rig) -> str:
    return "\n".join(f"{node.name}:\n{rig.logs(node.name, lines=25)}" for node in rig.topology.nodes)


def events(rig: Rig, node: str) -> list[dict[str, Any]]:
    """The cluster log of one node."""
    text = bytes(rig.client.api.logs(node_container(rig.name, node))).decode()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def settled(rig: Rig) -> list[str]:
    """Which changes of the set were carried through, as the nodes tell."""
    return [
        entry["message"]
        for node in rig.topology.nodes
        for entry in events(rig, node.name)
        if entry["event"] == "voter-set-settled"
    ]


def all_count(rig: Rig) -> bool:
    voters = rig.standing().voters
    return len(voters) == 3 and all(voter.member and voter.state == "answers" for voter in voters)


def web_runs(rig: Rig) -> bool:
    return any(vm.name == "web-vm" and vm.state == "running" for vm in rig.vms())


def as_voter(rig: Rig, node: str, script: str) -> None:
    """Run a script as the voter's user in a node."""
    done = run_inside(rig.client, node_container(rig.name, node), ["sh", "-c", script], user=str(VOTER), limit_s=20)
    assert done.exit_code == 0, done


def test_a_voter_whose_disk_was_emptied_is_admitted_anew(three: Rig) -> None:
    before = len(settled(three))

    as_voter(three, "node2", WIPE)
    kill_process(three, "node2", VOTER)

    wait("two changes of the set", three, lambda: len(settled(three)) >= before + 2)
    wait("three votes", three, lambda: all_count(three))
    assert any(entry["event"] == "voter-lost" for node in ("node1", "node3") for entry in events(three, node))


def test_a_voter_whose_file_does_not_load_is_admitted_anew_and_the_file_kept(three: Rig) -> None:
    before = len(settled(three))

    kill_process(three, "node3", VOTER)
    wait("three votes", three, lambda: all_count(three))
    as_voter(three, "node3", f"{TEAR}; kill -9 $(pidof redis-server)")

    wait("two changes of the set", three, lambda: len(settled(three)) >= before + 2)
    wait("three votes", three, lambda: all_count(three))
    assert any(entry["event"] == "voter-file-unloadable" for entry in events(three, "node3"))
    as_voter(three, "node3", "ls /data/unloadable/*.aof")


def test_then_another_voter_may_be_lost(three: Rig) -> None:
    three.power_off("node1")

    wait("the VM on the others", three, lambda: web_runs(three))
    survivors = [node for node in three.standing().nodes if node.name != "node1"]
    assert all(node.quorum for node in survivors)
    three.power_on("node1")
    wait("three votes", three, lambda: all_count(three))


def test_two_nodes_live_on_without_their_witness_which_comes_back(two: Rig) -> None:
    two.client.api.kill(node_container(two.name, "witness"))

    wait("the witness missed", two, lambda: any(v.state == "silent" for v in two.standing().voters))
    assert all(node.quorum for node in two.standing().nodes)
    wait("the witness switched on again, by the nodes", two, lambda: all_count(two))


def test_one_node_and_the_witness_live_on_without_the_other_node(two: Rig) -> None:
    owner = next(group.owner for group in two.standing().groups if group.name == "web")
    other = next(node.name for node in two.topology.nodes if node.name != owner)

    two.power_off(owner)

    def moved() -> bool:
        groups = {group.name: (group.owner, group.state) for group in two.standing().groups}
        return groups["web"] == (other, "Online")

    wait("the VM on the other node", two, moved)
    two.power_on(owner)
    wait("three votes", two, lambda: all_count(two))
