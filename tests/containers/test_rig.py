"""A rig on a real engine: made, found again, powered off and on, and taken away whole."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from conftest import topology

from chaos.cli.main import run_command
from chaos.compatibility.fault_support import fault_abilities
from harness.document.topology import default_topology
from harness.errors import NotOnline, UsageError
from harness.model import labels
from harness.model.object_names import node_container
from harness.rig.cluster.status import Power
from harness.rig.engine.exec import run_inside
from harness.rig.lifecycle.doctor import Health, examine
from harness.rig.lifecycle.rig import Rig
from harness.rig.lifecycle.teardown import left_behind, remove_rig

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

DOCUMENT = "nodes: 3\ngroups: 2\nsettings: {beat: 200ms, lease: 1s, grace: 500ms}\n"
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def rig(make_rig: Callable[[str], Rig]) -> Iterator[Rig]:
    made = make_rig(DOCUMENT)
    yield made
    made.down(say=print)


def objects(client: docker.DockerClient, name: str) -> list[str]:
    return left_behind(client, name)


def pause_a_vm(rig: Rig) -> str:
    """Freezes a running VM, which on control groups v1 alone keeps its node from dying; answers the node."""
    vm = next(vm for vm in rig.vms() if vm.state == "running")
    rig.client.api.pause(vm.container)
    return vm.node


def test_rig_is_online_when_up_returns(rig: Rig) -> None:
    standing = rig.standing()

    assert [(node.power, node.state, node.quorum) for node in standing.nodes] == [(Power.ON, "Up", True)] * 3
    assert [group.state for group in standing.groups] == ["Online"] * 2
    assert sorted(vm.name for vm in rig.vms() if vm.state == "running") == ["web1-vm", "web2-vm"]


def test_rig_is_found_by_its_labels_alone(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    with contextlib.closing(Rig.find(rig.name)) as found:
        assert found.topology == rig.topology
    assert run_command(["group", "list", "--name", rig.name, "--json"]) == 0
    assert [group["state"] for group in json.loads(capfd.readouterr().out)] == ["Online"] * 2
    assert run_command(["status", "--name", rig.name]) == 0
    assert "web2-vm Online" in capfd.readouterr().out


def test_up_again_is_harmless_and_a_different_rig_is_refused(rig: Rig) -> None:
    before = sorted(objects(rig.client, rig.name))

    Rig.up(rig.topology, say=print, client=rig.client)

    assert sorted(objects(rig.client, rig.name)) == before
    with pytest.raises(UsageError, match="stands already and is not the same"):
        Rig.up(default_topology(rig=rig.name, nodes=5), say=print, client=rig.client)


def test_secrets_are_files_for_one_user_each_and_nowhere_else(rig: Rig) -> None:
    node = node_container(rig.name, "node1")

    listed = run_inside(rig.client, node, ["stat", "-c", "%n %u %a", "/run/secrets/voter-password",
                                           "/run/secrets/voter-node1.acl"], user="0", limit_s=10)
    password = run_inside(rig.client, node, ["cat", "/run/secrets/voter-password"], user="900", limit_s=10).stdout
    guest = run_inside(rig.client, node, ["cat", "/run/secrets/voter-password"], user="10001", limit_s=10)

    assert listed.stdout.splitlines() == ["/run/secrets/voter-password 900 400", "/run/secrets/voter-node1.acl 901 400"]
    assert len(password) >= 43
    assert guest.exit_code != 0
    assert password not in json.dumps(rig.client.api.inspect_container(node))


def test_powered_off_node_is_off_with_its_vms_and_held_until_it_is_powered_on(rig: Rig) -> None:
    node = pause_a_vm(rig)

    rig.power_off(node)

    assert rig.powers()[node] is Power.HELD_OFF
    alive = [vm for vm in rig.vms() if vm.state in ("running", "paused")]
    assert node not in {vm.node for vm in alive}
    assert rig.holds() == {node}

    rig.power_on(node)

    assert rig.holds() == frozenset()
    rig.wait_online(limit_s=LIMIT_S, say=print)


def test_groups_of_a_powered_off_node_come_back_on_the_survivors(rig: Rig) -> None:
    owner = rig.standing().groups[0].owner

    rig.power_off(owner)

    deadline = time.monotonic() + LIMIT_S
    while (group := rig.standing().groups[0]).owner == owner or group.state != "Online":
        assert time.monotonic() < deadline, f"waited {LIMIT_S} s for web1 on another node than {owner}, saw {group}"
        time.sleep(0.2)
    rig.power_on(owner)
    rig.wait_online(limit_s=LIMIT_S, say=print)


def test_two_rigs_stand_side_by_side(rig: Rig, make_rig: Callable[[str], Rig]) -> None:
    other = make_rig("nodes: 1\ngroups: 1\n")

    assert other.topology.subnet != rig.topology.subnet
    assert other.standing().groups[0].state == "Online"

    other.down(say=print)

    assert objects(rig.client, other.name) == []
    assert rig.standing().missing(rig.topology) == []


def test_down_removes_everything_of_the_rig_and_nothing_else(
    engine: docker.DockerClient, make_rig: Callable[[str], Rig]
) -> None:
    rig = make_rig("nodes: 1\ngroups: 1\n")
    pause_a_vm(rig)
    engine.volumes.create(f"{rig.name}_hold_node1", labels={labels.RIG: rig.name, labels.ROLE: "hold"})
    bystander = engine.containers.create("blackstart/guest", labels={labels.RIG: f"{rig.name}-other"})
    said: list[str] = []
    try:
        rig.down(say=said.append)

        assert objects(engine, rig.name) == []
        assert objects(engine, f"{rig.name}-other") == [f"container {bystander.name}"]
        assert len(said) == 1
        assert said[0].startswith(f"removed rig {rig.name}: ")
        assert remove_rig(engine, rig.name, say=said.append) == 0
    finally:
        bystander.remove(force=True)


def test_half_made_rig_is_refused_and_can_be_removed(
    engine: docker.DockerClient, rig_names: Callable[[], str]
) -> None:
    name = rig_names()
    engine.volumes.create(f"{name}_secrets", labels={labels.RIG: name, labels.ROLE: "volume"})

    with pytest.raises(UsageError, match=f"blackstart down --name {name}"):
        Rig.find(name, client=engine)

    assert remove_rig(engine, name, say=print) == 1


def test_a_vm_that_is_never_ready_is_named_with_its_state(
    engine: docker.DockerClient, rig_names: Callable[[], str]
) -> None:
    text = (
        "nodes: 1\ngroups:\n  - name: web\n    resources:\n      - {name: web-ip, type: ip-address}\n"
        "      - {name: web-vm, type: virtual-machine, depends-on: '[web-ip]', readiness: {tcp: 9999}}\n"
    )

    with pytest.raises(NotOnline, match="last saw: web-vm is OnlinePending") as raised:
        Rig.up(topology(text, name=rig_names()), say=print, client=engine, limit_s=8.0)

    assert "Check the image, the command and the readiness" in str(raised.value)
    assert "blackstart down" not in str(raised.value)


def test_doctor_finds_this_vm_fit_and_leaves_nothing(engine: docker.DockerClient) -> None:
    report = examine()

    assert report.health is not Health.FAIL, report
    assert all(fault.available for fault in fault_abilities(report.checks))
    assert objects(engine, "doctor") == []
