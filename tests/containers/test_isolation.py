"""A hostile VM on a real rig with the default settings: what it tries is refused, and what it eats is limited.

The VMs are made by the cluster, from images that want to be root, a process of the node, or nobody in particular.
The same program with dropped settings shows that every one of its attacks would work where it may. The tests share one
rig, whose node, lease and neighbouring VM must come through all of it.
"""

import io
import json
import secrets
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from conftest import MakeRig

from harness.model import labels
from harness.model.object_names import node_container
from harness.rig.images.build import ensure_images, find_project_root
from harness.rig.lifecycle.rig import Rig, Vm

pytestmark = [pytest.mark.containers, pytest.mark.timeout(240)]

IMAGE_DIRECTORY = Path(__file__).parent / "hostile_image"
USERS = {"nobody": "10000", "root": "0", "service": "900"}
"""As whom each image wants to run: the guest's own user, root, and the cluster service."""
NODE = "node1"
REPORT_LIMIT_S = 60.0
LOOK_INTERVAL_S = 0.1

BY_DEFAULT = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETGID", "SETUID")
ADDED = ("NET_ADMIN", "SYS_ADMIN", "SYS_NICE", "SYS_PTRACE")
"""Capabilities: of those that the engine gives by default, and of those that people add."""


def group(name: str, tag: str, mode: str, *more: str) -> str:
    vm = ", ".join([f"name: {name}-vm, type: virtual-machine, image: {tag}, command: [{mode}]", *more])
    return f"  - name: {name}\n    preferred-owners: [{NODE}]\n    resources:\n      - {{{vm}}}\n"


@pytest.fixture(scope="module")
def tags(engine: docker.DockerClient) -> Iterator[dict[str, str]]:
    """An image for each user, by the user's name."""
    ensure_images(engine, project_root=find_project_root(), say=print)
    made = {name: f"blackstart-test/hostile-{name}:{secrets.token_hex(3)}" for name in USERS}
    for name, tag in made.items():
        for part in engine.api.build(
            fileobj=io.BytesIO(packed(IMAGE_DIRECTORY)),
            custom_context=True,
            tag=tag,
            buildargs={"RUN_AS": USERS[name]},
            rm=True,
            forcerm=True,
            decode=True,
        ):
            assert "error" not in part, part
    yield made
    for tag in made.values():
        engine.images.remove(tag, force=True)


def packed(directory: Path) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(directory.iterdir()):
            if path.is_file():
                tar.add(path, arcname=path.name)
    return archive.getvalue()


@pytest.fixture(scope="module")
def rig(make_rig: MakeRig, tags: dict[str, str]) -> Rig:
    """A neighbour, an attacker from each image, and one that eats from each dish; all on the node with the voter."""
    earnest = 'environment: {HOSTILE_IN_EARNEST: "1", HOSTILE_NEIGHBOUR: "neighbour-vm:10001"}'
    text = "nodes: 1\ngroups:\n" + "".join(
        [
            "  - name: neighbour\n    resources:\n      - {name: neighbour-vm, type: virtual-machine}\n",
            *(group(f"attack-{name}", tag, "attack", earnest) for name, tag in tags.items()),
            group("bomb", tags["nobody"], "fork-bomb"),
            group("eater", tags["nobody"], "eat-memory"),
            group("burner", tags["nobody"], "burn", "processors: 0.2"),
        ]
    )
    return make_rig(text)


def vm(rig: Rig, name: str) -> Vm:
    """The one container of the VM: nothing here may have made a second one necessary."""
    (found,) = [one for one in rig.vms() if one.name == name]
    return found


def report(rig: Rig, container: str) -> dict[str, Any]:
    """The one line that the hostile program prints when it is through."""
    deadline = time.monotonic() + REPORT_LIMIT_S
    while True:
        lines = rig.client.api.logs(container, stderr=False).decode().splitlines()
        if lines:
            return dict(json.loads(lines[0]))
        state = rig.client.api.inspect_container(container)["State"]
        assert state["Running"], (state, rig.client.api.logs(container, stdout=False).decode())
        assert time.monotonic() < deadline, f"waited {REPORT_LIMIT_S:g} s for the report of {container}"
        time.sleep(LOOK_INTERVAL_S)


def run_free(rig: Rig, tag: str, *, user: str, **settings: Any) -> dict[str, Any]:
    """The attacks of the same image in the same node, without the settings of a VM."""
    node = f"container:{node_container(rig.name, NODE)}"
    api = rig.client.api
    host_config = api.create_host_config(pid_mode=node, network_mode=node, **settings)
    host_config["ReadonlyPaths"] = []
    made = api.create_container(
        tag,
        ["attack"],
        user=user,
        environment={"HOSTILE_NEIGHBOUR": "neighbour-vm:10001"},
        labels={labels.RIG: rig.name},
        host_config=host_config,
    )["Id"]
    try:
        api.start(made)
        return report(rig, made)
    finally:
        api.remove_container(made, force=True)


@pytest.mark.parametrize("image", USERS)
def test_every_attack_of_a_vm_is_refused(rig: Rig, image: str) -> None:
    told = report(rig, vm(rig, f"attack-{image}-vm").container)

    assert len(told["attacks"]) >= 45
    assert {name: found for name, found in told["attacks"].items() if found["outcome"] != "refused"} == {}


@pytest.mark.parametrize("image", USERS)
def test_vm_has_a_user_of_its_own_and_nothing_else_whatever_its_image_says(rig: Rig, image: str) -> None:
    name = f"attack-{image}-vm"
    users = {
        resource.name: resource.properties["user"]
        for group in rig.topology.groups
        for resource in group.resources
    }

    about = report(rig, vm(rig, name).container)["about"]

    assert about["Uid"] == about["Gid"] == [users[name]] * 4
    assert int(users[name]) >= 10_000
    assert list(users.values()).count(users[name]) == 1
    assert about["Groups"] in ([], [users[name]])
    assert {about[key][0] for key in ("CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (about["NoNewPrivs"], about["Seccomp"]) == (["1"], ["2"])


def test_every_attack_works_for_somebody_with_fewer_settings(rig: Rig, tags: dict[str, str]) -> None:
    """So that the tests above can fail: once as root with capabilities, once as the user that the image asks for."""
    root = run_free(rig, tags["root"], user="0:0", cap_drop=["ALL"], cap_add=[*BY_DEFAULT, *ADDED])["attacks"]
    service = run_free(rig, tags["service"], user="", cap_drop=["ALL"])["attacks"]

    neither = {
        name: (root[name], service[name])
        for name in root
        if "worked" not in (root[name]["outcome"], service[name]["outcome"])
    }
    assert neither == {}


def test_fork_bomb_stops_at_the_limit_of_its_vm(rig: Rig) -> None:
    told = report(rig, vm(rig, "bomb-vm").container)

    assert told["refused"] == "EAGAIN"
    assert 32 <= told["most"] <= 64


def test_memory_eater_is_ended_at_the_limit_of_its_vm_alone(rig: Rig) -> None:
    told = report(rig, vm(rig, "eater-vm").container)

    assert told["signal"] == 9
    assert 64 <= told["mebibytes"] <= 128 + 64, "its memory and its disk, which it left empty"


def test_vm_that_only_calculates_gets_the_processors_that_it_was_given(rig: Rig) -> None:
    told = report(rig, vm(rig, "burner-vm").container)

    assert 0.1 <= told["processors"] <= 0.25


def test_node_lease_and_neighbour_come_through_it_all(rig: Rig) -> None:
    """The last of the tests: everything above has happened."""
    log = [json.loads(line) for line in rig.client.api.logs(node_container(rig.name, NODE)).splitlines()]
    bad = ("lease-lapsed", "guests-withdrawn", "program-ended", "resource-failed", "poll-failed", "poll-unanswered")

    assert [line for line in log if line["event"] in bad] == []
    assert rig.client.api.inspect_container(node_container(rig.name, NODE))["RestartCount"] == 0
    assert rig.standing().missing(rig.topology) == []
    neighbour = rig.client.api.inspect_container(vm(rig, "neighbour-vm").container)
    assert neighbour["State"]["Running"]
    assert [one.name for one in rig.vms() if one.state != "running"] == []
