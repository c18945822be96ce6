"""The faults on VMs, on a node's programs and on voters, and what is shipped of them, on real rigs.

The shipped experiments share one rig, in the order of this file, and each must pass. A small rig of one node shows what
no experiment asks.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from node_faults import signal_program

from chaos.arena.docker.process_effects import look_inside
from chaos.arena.process_effects import NodeProgram, ProgramSignal
from chaos.experiment.loader import load_experiment
from harness.document.topology import read_topology
from harness.document.yaml_source import load
from harness.model.object_names import node_container
from harness.rig.lifecycle.rig import Rig
from harness.rig.lifecycle.teardown import left_behind

pytestmark = [pytest.mark.containers, pytest.mark.timeout(200)]

EXPERIMENTS = Path(__file__).parents[2] / "chaos" / "experiments"
SHARING = (
    "vm-hang",
    "vm-stopped-by-hand",
    "service-kill",
    "service-hang",
    "resource-host-hang",
    "vmms-kill",
    "voter-loss",
    "voter-wipe",
    "node-drained-for-maintenance",
)
RUN_LIMIT_S = 150.0
LOG_LIMIT_S = 30.0
LOOK_INTERVAL_S = 0.1

SMALL = """\
nodes: 1
settings: {voter-disk: 16MiB}
groups:
  - name: web
    resources:
      - {name: web-ip, type: ip-address}
      - {name: web-vm, type: virtual-machine, depends-on: "[web-ip]", deadlock-timeout: 1s}
"""


def run(file: Path, *options: str, cwd: Path) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("blackstart")), "run", *options, str(file)]
    finished = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RUN_LIMIT_S, check=False
    )
    return finished.returncode, finished.stdout


@pytest.fixture(scope="module")
def rig(engine: docker.DockerClient, rig_names: Callable[[], str]) -> Rig:
    topology = load_experiment(EXPERIMENTS / f"{SHARING[0]}.yaml", rig=rig_names()).topology
    return Rig.up(topology, say=print, client=engine)


@pytest.mark.parametrize("name", SHARING)
def test_shipped_experiment_passes(tmp_path: Path, rig: Rig, name: str) -> None:
    code, output = run(EXPERIMENTS / f"{name}.yaml", "--on-rig", rig.name, cwd=tmp_path)

    assert code == 0, output
    told = json.loads((tmp_path / "out" / "journal.json").read_text())["blackstart"]
    healed = {fault["number"] for fault in told["faults"] if fault["moment"] == "healed"}
    assert healed == {fault["number"] for fault in told["faults"]}
    rig.wait_online(say=print)


def test_shipped_experiment_with_a_full_disk_passes_and_leaves_nothing(
    tmp_path: Path, engine: docker.DockerClient, rig_names: Callable[[], str]
) -> None:
    name = rig_names()

    code, output = run(EXPERIMENTS / "voter-disk-full.yaml", "--name", name, cwd=tmp_path)

    assert code == 0, output
    assert left_behind(engine, name) == []


@pytest.fixture(scope="module")
def small_rig(engine: docker.DockerClient, rig_names: Callable[[], str]) -> Iterator[Rig]:
    name = rig_names()
    rig = Rig.up(read_topology(load(SMALL, name="rig.yaml"), rig=name), say=print, client=engine)
    yield rig
    rig.down(say=print)


def test_voters_disk_of_a_size_of_its_own_survives_a_power_cut(small_rig: Rig) -> None:
    rig = small_rig
    before = look_inside(rig.client, rig.name, "node1").disk

    rig.power_off("node1", hold=True)
    rig.power_on("node1")
    rig.wait_online(say=print)

    after = look_inside(rig.client, rig.name, "node1").disk
    assert before is not None
    assert after is not None
    assert (after.limited, after.size) == (True, 16 << 20)
    assert after.oldest_ns == before.oldest_ns


def test_entry_point_that_does_not_return_costs_the_resource_host_its_life_and_no_vm_its_own(
    small_rig: Rig,
) -> None:
    """VMMS answers nothing until it is noticed, so opening the VM anew does not return for that long."""
    rig = small_rig
    rig.wait_online(say=print)
    began_ns = time.time_ns()
    (before,) = [vm for vm in rig.vms() if vm.state == "running"]
    started = rig.client.api.inspect_container(before.container)["State"]["StartedAt"]

    signal_program(rig, "node1", NodeProgram.VMMS, ProgramSignal.STOP)
    signal_program(rig, "node1", NodeProgram.RESOURCE_HOST, ProgramSignal.KILL)

    deadlock = wait_line(rig, since_ns=began_ns, event="entry-point-deadlocked")
    assert deadlock["id"] == 1230
    ended = wait_line(rig, since_ns=int(deadlock["time"] * 1e9), event="program-ended", program="resource-host")
    assert "status 1" in ended["message"]
    hung = wait_line(rig, since_ns=began_ns, event="program-hung", program="vmms")
    assert hung["fields"]["silent_s"] >= 5
    rig.wait_online(say=print)
    (after,) = [vm for vm in rig.vms() if vm.state == "running"]
    assert after.container == before.container
    assert rig.client.api.inspect_container(after.container)["State"]["StartedAt"] == started


def wait_line(rig: Rig, *, since_ns: int, event: str, program: str | None = None) -> dict[str, Any]:
    """The first such line of the node's log."""
    deadline = time.monotonic() + LOG_LIMIT_S
    while True:
        text = rig.client.api.logs(node_container(rig.name, "node1"), since=since_ns // 10**9)
        for raw in bytes(text).decode(errors="replace").splitlines():
            line: dict[str, Any] = json.loads(raw)
            named = program is None or line["fields"].get("program") == program
            if line["event"] == event and named and line["time"] >= since_ns / 1e9:
                return line
        assert time.monotonic() < deadline, f"waited {LOG_LIMIT_S:g} s for {event}: {rig.logs('node1', lines=40)}"
        time.sleep(LOOK_INTERVAL_S)
