"""Greedy VMs on a rig with the default settings: one fills its disk, one its log, one the connection table, and
some write journals that no reader would like. The voter, the node's lease and a neighbour come through all of it.

Processes and memory have tests of their own, in test_isolation.py.
"""

import io
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from conftest import MakeRig
from test_isolation import packed

from chaos.arena.docker.artifacts import read_journals
from chaos.history.records import GuestJournal
from harness.live.docker_engine import LOG_OPTIONS
from harness.model import labels
from harness.model.disk import DISK_BYTES, disk_volume
from harness.model.object_names import keeper_container, node_container
from harness.rig.engine.exec import run_inside
from harness.rig.images.build import ensure_images, find_project_root
from harness.rig.lifecycle.rig import Rig, Vm

pytestmark = [pytest.mark.containers, pytest.mark.timeout(240)]

IMAGE_DIRECTORY = Path(__file__).parent / "greedy_image"
NODE = "node1"
MODES = ("fill", "log", "flows", "reach", "journal-fifo", "journal-sparse", "journal-deep")
JOURNALS = [f"{mode}-vm" for mode in MODES if mode.startswith("journal")]
LIMIT_S = 60.0
LOOK_INTERVAL_S = 0.1
MIB = 1 << 20
MAX_TRACKED = 2000
"""The limits let 500 flows and 550 connections through; the rig itself has some dozens."""


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient) -> Iterator[str]:
    ensure_images(engine, project_root=find_project_root(), say=print)
    tag = f"blackstart-test/greedy:{secrets.token_hex(3)}"
    for part in engine.api.build(
        fileobj=io.BytesIO(packed(IMAGE_DIRECTORY)), custom_context=True, tag=tag, rm=True, decode=True
    ):
        assert "error" not in part, part
    yield tag
    engine.images.remove(tag, force=True)


@pytest.fixture(scope="module")
def rig(make_rig: MakeRig, image: str) -> Rig:
    """A neighbour that is the guest's own program, and a VM for each mode, all on the node with the voter."""
    vms = [
        f'  - name: {mode}\n    resources:\n      - {{name: {mode}-vm, type: virtual-machine, image: "{image}", '
        f"command: [{mode}]}}\n"
        for mode in MODES
    ]
    neighbour = (
        "  - name: neighbour\n    resources:\n      - {name: neighbour-ip, type: ip-address}\n"
        '      - {name: neighbour-vm, type: virtual-machine, depends-on: "[neighbour-ip]"}\n'
    )
    return make_rig("nodes: 1\ngroups:\n" + neighbour + "".join(vms))


def vm(rig: Rig, name: str) -> Vm:
    (found,) = [one for one in rig.vms() if one.name == name]
    return found


def report(rig: Rig, mode: str) -> dict[str, Any]:
    """The line that the VM prints when it has taken all that it gets."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        container = vm(rig, f"{mode}-vm").container
        lines = rig.client.api.logs(container, stderr=False).decode().splitlines()
        if lines:
            return dict(json.loads(lines[0]))
        said = rig.client.api.logs(container, stdout=False).decode()
        assert time.monotonic() < deadline, f"waited {LIMIT_S:g} s for the report of {mode}-vm: {said}"
        time.sleep(LOOK_INTERVAL_S)


def journals(rig: Rig, *vms: str) -> dict[str, GuestJournal]:
    found = read_journals(rig.client, nodes=[node_container(rig.name, NODE)], vms=vms, at_ns=1)
    return {journal.vm: journal for journal in found}


def wait_neighbour_writes(rig: Rig) -> None:
    """The neighbour's journal has more lines than now."""
    before = journals(rig, "neighbour-vm")["neighbour-vm"]
    deadline = time.monotonic() + LIMIT_S
    while (now := journals(rig, "neighbour-vm")["neighbour-vm"]).lines <= before.lines:
        assert time.monotonic() < deadline, now
        time.sleep(LOOK_INTERVAL_S)


def test_full_disk_of_a_vm_is_its_own(rig: Rig) -> None:
    told = report(rig, "fill")

    assert sum(told["disk"]) == DISK_BYTES / MIB
    assert told["temporary"] == 16
    assert told["files"] <= DISK_BYTES / 4096
    assert told["elsewhere"] == []
    wait_neighbour_writes(rig)


def test_log_of_a_vm_has_a_limit(rig: Rig) -> None:
    container = vm(rig, "log-vm").container

    deadline = time.monotonic() + LIMIT_S
    while len(written := rig.client.api.logs(container)) < 200_000:
        assert time.monotonic() < deadline, len(written)
        time.sleep(LOOK_INTERVAL_S)

    config = rig.client.api.inspect_container(container)["HostConfig"]["LogConfig"]
    assert config == {"Type": "json-file", "Config": LOG_OPTIONS}
    assert len(written) <= 2 * MIB
    wait_neighbour_writes(rig)


def test_flows_of_a_vm_are_bounded(rig: Rig) -> None:
    told = report(rig, "flows")

    assert told["sent"] < 1000
    command = ["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]
    tracked = run_inside(rig.client, node_container(rig.name, NODE), command, user="0", limit_s=LIMIT_S).stdout
    assert int(tracked) < MAX_TRACKED


def test_vm_stays_in_the_rigs_network(rig: Rig) -> None:
    assert report(rig, "reach") == {"reached": [], "peer": True}


def test_hostile_journals_hide_no_other(rig: Rig) -> None:
    for mode in MODES:
        if mode.startswith("journal"):
            report(rig, mode)
    began = time.monotonic()

    found = journals(rig, *JOURNALS, "neighbour-vm")

    assert time.monotonic() - began < 10
    assert "a FIFO" in found["journal-fifo-vm"].error
    assert "314572800 bytes" in found["journal-sparse-vm"].error
    assert found["journal-deep-vm"].unreadable_lines == 3
    assert [run.boot for run in found["journal-deep-vm"].runs] == []
    assert found["neighbour-vm"].lines
    assert not found["neighbour-vm"].error


def test_disks_outlast_the_power_of_every_node(rig: Rig) -> None:
    """The keeper mounts them while the node is off."""
    before = journals(rig, "neighbour-vm")["neighbour-vm"].runs[0].boot

    rig.power_off(NODE)
    rig.power_on(NODE)
    rig.wait_online(say=print)

    wait_neighbour_writes(rig)
    assert journals(rig, "neighbour-vm")["neighbour-vm"].runs[0].boot == before
    volume = rig.client.api.inspect_volume(disk_volume(rig.name, "neighbour-vm", "disk"))
    assert f"size={DISK_BYTES}" in volume["Options"]["o"]
    assert rig.client.api.inspect_container(keeper_container(rig.name))["State"]["Running"]


def test_voter_and_lease_come_through_it_all(rig: Rig) -> None:
    """The last of the tests: everything above has happened."""
    log = [json.loads(line) for line in rig.client.api.logs(node_container(rig.name, NODE)).splitlines()]
    bad = ("voter-disk-full", "voter-down", "lease-lapsed", "guests-withdrawn", "poll-failed", "poll-unanswered")

    assert [line for line in log if line["event"] in bad] == []
    assert rig.client.api.inspect_container(node_container(rig.name, NODE))["RestartCount"] == 0
    assert rig.standing().missing(rig.topology) == []
    assert {one.state for one in rig.vms() if one.name in (*JOURNALS, "fill-vm")} == {"running"}
    limits = rig.client.api.inspect_container(node_container(rig.name, NODE))["HostConfig"]
    assert limits["Memory"] == 1 << 30
    assert limits["PidsLimit"] == 1024
    assert labels.RIG in rig.client.api.inspect_container(keeper_container(rig.name))["Config"]["Labels"]
