"""SIGKILL of a run at any moment leaves no fault and no object: its reaper heals and removes, and `repair` does it at
once.

Each run is a process of its own (`killed_run.py`). A few moments are tried with every change, the wide matrix is long.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import docker
import pytest

from chaos.repair.rig_repair import RigRepair
from harness.document.topology import read_topology
from harness.document.yaml_source import load
from harness.model import labels
from harness.rig.lifecycle.rig import Rig
from harness.rig.lifecycle.rig_lock import look_at_lock
from harness.rig.lifecycle.teardown import left_behind

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

KILLED_RUN = Path(__file__).with_name("killed_run.py")
LIMIT_S = 90.0
"""From a kill to the end of its reaper: a lease of three seconds, a cure of ten at most, a removal of three."""
LOOK_INTERVAL_S = 0.05

DOCUMENT = """
title: A run that is killed
rig:
  nodes: 3
  settings: {engine-proxy: true, voter-disk: 16MiB}
  groups:
    - {name: web, resources: [{name: web-vm, type: virtual-machine}]}
    - {name: data, resources: [{name: data-vm, type: virtual-machine}]}
method:
"""
STEP = """
  - type: action
    name: inject
    provider: {type: fault, FAULT}
    pauses: {after: 300s}
"""
FAULTS = {
    "vm hung by its engine": "fault: vm.hang, target: web-vm",
    "vm hung by a signal": "fault: vm.hang, target: web-vm, how: sigstop",
    "vm stopped": "fault: vm.stop, target: web-vm",
    "node without power": "fault: node.power-off, target: node2",
    "node hung": "fault: node.hang, target: node2",
    "node isolated": "fault: node.isolate, target: node2",
    "engine stalled": "fault: engine.stall, target: node2",
    "service hung": "fault: service.hang, target: node2",
    "resource host hung": "fault: rhs.hang, target: node2",
    "vmms hung": "fault: vmms.hang, target: node2",
    "voter hung": "fault: voter.hang, target: node2",
    "voter's disk full": "fault: voter.disk-full, target: node2",
}
"""Every fault that has a cure."""
MOMENTS = ("intended", "injected", "confirmed")


class KilledRun:
    """A run that is to be killed. `journal` are its lines so far."""

    def __init__(self, directory: Path, document: str, *where: str) -> None:
        directory.mkdir()
        file = directory / "experiment.yaml"
        file.write_text(document)
        self._out = directory / "out"
        command = [sys.executable, str(KILLED_RUN), str(file), str(self._out), *where]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def wait_fault(self, moment: str) -> None:
        """Returns when the journal has a fault of that moment."""
        self.wait(lambda record: record.get("record") == "FaultRecord" and record.get("moment") == moment, moment)

    def wait(self, accept: Callable[[dict[str, Any]], bool], what: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not any(accept(record) for record in self._journal()):
            assert time.monotonic() < deadline, f"no {what} within {LIMIT_S} s: {self._said()}"
            assert self._process.poll() is None, f"the run ended before {what}: {self._said()}"
            time.sleep(LOOK_INTERVAL_S)

    def kill(self) -> None:
        """SIGKILL, and nothing of the run's process is left."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def _journal(self) -> Sequence[dict[str, Any]]:
        for path in self._out.rglob("journal.jsonl"):
            records = []
            for line in path.read_text().split("\n")[:-1]:
                records.append(json.loads(line))
            return records
        return []

    def _said(self) -> str:
        self.kill()
        return repr(self._process.returncode)


@pytest.fixture(scope="module")
def rig(engine: docker.DockerClient, rig_names: Callable[[], str]) -> Rig:
    """A rig that stands, for faults of every kind."""
    source = load(DOCUMENT + STEP.replace("FAULT", FAULTS["node hung"]), name="rig.yaml")
    return Rig.up(read_topology(source, path=("rig",), rig=rig_names()), say=print, client=engine)


def wait_reaper_ended(engine: docker.DockerClient, name: str) -> None:
    """Returns when the rig has no lock any more: the reaper removes it last."""
    deadline = time.monotonic() + LIMIT_S
    while (lock := look_at_lock(engine, name)) is not None:
        if time.monotonic() > deadline:
            raise AssertionError(f"the reaper goes on: {engine.api.logs(lock['Id']).decode()}")
        time.sleep(LOOK_INTERVAL_S)


def assert_no_fault(rig: Rig) -> None:
    """By traces that any fault leaves, by hold marks, and by everything that is wanted being Online again."""
    found, unreachable = RigRepair(rig.name, say=print).find_traces()
    assert ([str(fault) for fault in found], unreachable, rig.holds()) == ([], [], frozenset())
    rig.wait_online(say=print)
    running = {vm.name for vm in rig.vms() if vm.state == "running"}
    assert running == {"web-vm", "data-vm"}


def assert_nothing_left(engine: docker.DockerClient, name: str) -> None:
    assert left_behind(engine, name) == []
    assert engine.api.containers(all=True, filters={"label": f"{labels.RIG}={name}"}) == []


def kill_during(rig: Rig, directory: Path, fault: str, moment: str) -> None:
    run = KilledRun(directory, DOCUMENT + STEP.replace("FAULT", FAULTS[fault]), "--on-rig", rig.name)
    run.wait_fault(moment)
    run.kill()
    wait_reaper_ended(rig.client, rig.name)
    assert_no_fault(rig)


@pytest.mark.parametrize(("fault", "moment"), [("node isolated", "confirmed"), ("voter's disk full", "injected")])
def test_reaper_heals_the_fault_of_a_killed_run(tmp_path: Path, rig: Rig, fault: str, moment: str) -> None:
    kill_during(rig, tmp_path / "run", fault, moment)


@pytest.mark.long
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_reaper_heals_every_fault_at_every_moment(tmp_path: Path, rig: Rig, fault: str, moment: str) -> None:
    kill_during(rig, tmp_path / "run", fault, moment)


@pytest.mark.long
@pytest.mark.parametrize("after_s", [0.6, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0])
def test_reaper_removes_the_rig_of_a_killed_run(
    tmp_path: Path, engine: docker.DockerClient, rig_names: Callable[[], str], after_s: float
) -> None:
    """The times are not awaited events on purpose: any moment of the bring-up may be the last."""
    name = rig_names()
    run = KilledRun(tmp_path / "run", DOCUMENT + STEP.replace("FAULT", FAULTS["node hung"]), name)
    time.sleep(after_s)

    run.kill()

    wait_reaper_ended(engine, name)
    assert_nothing_left(engine, name)


def test_rig_of_a_run_killed_with_a_fault_is_removed(
    tmp_path: Path, engine: docker.DockerClient, rig_names: Callable[[], str]
) -> None:
    name = rig_names()
    run = KilledRun(tmp_path / "run", DOCUMENT + STEP.replace("FAULT", FAULTS["node hung"]), name)
    run.wait_fault("confirmed")
    second = blackstart("run", "--out", str(tmp_path / "second"), "--name", name, str(tmp_path / "run/experiment.yaml"))

    run.kill()

    wait_reaper_ended(engine, name)
    assert_nothing_left(engine, name)
    assert second.returncode == 2
    assert "still injected: node.hang on node2" in second.stdout
    assert "killed_run.py" in second.stdout


def test_repair_heals_at_once_and_twice_is_harmless(tmp_path: Path, rig: Rig) -> None:
    run = KilledRun(
        tmp_path / "run", DOCUMENT + STEP.replace("FAULT", FAULTS["voter hung"]), "--on-rig", rig.name
    )
    run.wait_fault("confirmed")
    living = blackstart("repair", "--name", rig.name)
    run.kill()

    first = blackstart("repair", "--name", rig.name)
    second = blackstart("repair", "--name", rig.name)

    assert living.returncode == 2
    assert "is in use by `killed_run.py" in living.stderr
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "healed: voter.hang on node2" in first.stderr
    assert "nothing to repair" in second.stderr
    assert_no_fault(rig)


def test_repair_finds_a_fault_that_no_ledger_has(rig: Rig) -> None:
    """The reaper was removed by hand, or an older version made the fault."""
    rig.client.api.pause(f"{rig.name}-node3-engine")

    repaired = blackstart("repair", "--name", rig.name)

    assert repaired.returncode == 0, repaired.stderr
    assert "it shows the traces of engine.stall on node3" in repaired.stderr
    assert_no_fault(rig)


def test_up_is_refused_while_another_process_makes_the_rig(rig: Rig) -> None:
    """The rig is locked by a process that lives: this one."""
    from harness.rig.lifecycle.rig_lock import Holder, claim_rig, release_rig

    lock = claim_rig(rig.client, rig.name, holder=Holder.here("a test"), image="blackstart/hypervisor:latest")
    try:
        refused = blackstart("up", "--name", rig.name)
    finally:
        release_rig(rig.client, rig.name, lock)

    assert refused.returncode == 2
    assert f"in use by `a test` (process {os.getpid()}" in refused.stderr


def blackstart(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from chaos.cli.main import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
