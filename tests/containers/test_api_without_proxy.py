"""A node's API when the engine's proxy of its port is dead: the node is reached, and the change of way is told."""

import os
import signal
from pathlib import Path

import pytest
from conftest import MakeRig

from harness.model.object_names import node_container
from harness.rig.cluster.node_api_transport import Way
from harness.rig.lifecycle.rig import Rig

pytestmark = [pytest.mark.containers, pytest.mark.timeout(200)]


def proxy_of(rig: Rig, node: str) -> int:
    """The process of the engine's proxy for that node's port: it is named by the node's address and port."""
    address = next(known.address for known in rig.topology.nodes if known.name == node)
    ports = rig.client.api.port(node_container(rig.name, node), 7637)
    host_port = str(ports[0]["HostPort"])
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            words = _words(entry)
            if words and words[0].endswith("docker-proxy") and address in words and host_port in words:
                return int(entry.name)
    pytest.skip("the engine has no proxy process that this user can see")


def _words(entry: Path) -> list[str]:
    try:
        return (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def test_node_is_reached_without_the_engines_proxy(make_rig: MakeRig) -> None:
    rig = make_rig("nodes: 3\ngroups: 1\n")
    notes: list[str] = []
    rig.note_to(notes.append)
    before = rig.standing()

    os.kill(proxy_of(rig, "node1"), signal.SIGKILL)
    after = rig.standing()
    reply = rig.request("nodes/node1/pause", {})

    assert [node.state for node in after.nodes] == [node.state for node in before.nodes]
    assert reply.code == "done"
    assert len(notes) == 1
    assert f"the API of node1 is reached through {Way.ADDRESS}" in notes[0]
