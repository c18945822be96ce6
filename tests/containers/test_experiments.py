"""Experiments against a real engine: the mechanics of a crash and of the feeds by hand, then the shipped files from end
to end.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from chaos.arena.docker.availability_client import client_record
from chaos.arena.docker.container_list import differences, list_containers
from chaos.arena.docker.engine_stream import EngineStream
from chaos.arena.docker.in_node import availability, kill_vm
from chaos.arena.docker.log_stream import LogStream
from chaos.experiment.loader import load_experiment
from chaos.history.records import ClientAnswer, EngineEventSeen, StreamGap
from harness.model import labels
from harness.rig.engine.connection import connect
from harness.rig.engine.exec import Finished, run_inside
from harness.rig.images.build import ensure_images, find_project_root
from harness.rig.lifecycle.rig import Rig
from harness.rig.lifecycle.teardown import left_behind, remove_rig

pytestmark = pytest.mark.containers

EXPERIMENTS = Path(__file__).parents[2] / "chaos" / "experiments"
WAIT_LIMIT_S = 15.0
RUN_LIMIT_S = 240.0


def wait_for(what: str, holds: Callable[[], Any], *, limit_s: float = WAIT_LIMIT_S) -> Any:
    deadline = time.monotonic() + limit_s
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {limit_s} s for {what}"
        time.sleep(0.02)


class HandMade:
    """A node and a VM in its namespaces, made by hand: no cluster keeps anything alive here."""

    def __init__(self, client: docker.DockerClient, rig: str) -> None:
        self.client = client
        self.rig = rig
        self.heard: list[EngineEventSeen | StreamGap] = []
        self.stream = EngineStream(client, rig=rig, sink=self.heard.append)
        self.stream.open()
        self.node: Any = client.containers.run(
            "blackstart/hypervisor",
            entrypoint=[
                "python3",
                "-I",
                "-c",
                "import time\nfor n in range(10**6): print(n, flush=True); time.sleep(0.1)",
            ],
            name=f"{rig}-node1",
            labels=self._labels("node"),
            cap_drop=["ALL"],
            cap_add=["KILL"],
            security_opt=["no-new-privileges"],
            detach=True,
        )
        self.vm: Any = client.containers.run(
            "blackstart/guest",
            name=f"{rig}-vm",
            environment={"BLACKSTART_VM": "vm", "BLACKSTART_ADDRESS": "0.0.0.0", "BLACKSTART_NODE": "node1"},
            labels=self._labels("vm", **{labels.RESOURCE: "vm", labels.SESSION: "node1@ab/1"}),
            pid_mode=f"container:{self.node.id}",
            network_mode=f"container:{self.node.id}",
            user="10001",
            cap_drop=["ALL"],
            detach=True,
        )
        wait_for("the VM's start event", lambda: "start" in self.actions(self.vm))

    def _labels(self, role: str, **more: str) -> dict[str, str]:
        return {labels.RIG: self.rig, labels.ROLE: role, labels.NODE: "node1", **more}

    def events(self) -> list[EngineEventSeen]:
        return [record for record in self.heard if isinstance(record, EngineEventSeen)]

    def actions(self, container: Any) -> list[str]:
        return [event.action for event in self.events() if event.container == container.id]

    def crash(self, container: str) -> Finished:
        source = Path(kill_vm.__file__).read_text()
        command = ["python3", "-I", "-c", source, container]
        return run_inside(self.client, f"{self.rig}-node1", command, user="0", limit_s=10)


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    client = connect()
    ensure_images(client, project_root=find_project_root(), say=print)
    yield client
    client.close()


@pytest.fixture
def by_hand(client: docker.DockerClient) -> Iterator[HandMade]:
    rig = f"test-chaos-hand-{os.getpid()}"
    try:
        made = HandMade(client, rig)
        yield made
        made.stream.close()
    finally:
        remove_rig(client, rig, say=print)


def test_a_crash_is_a_death_that_nobody_asked_the_engine_for(by_hand: HandMade) -> None:
    finished = by_hand.crash(by_hand.vm.id)

    assert finished.exit_code == 0, finished
    wait_for("the VM's death", lambda: "die" in by_hand.actions(by_hand.vm))
    assert by_hand.actions(by_hand.vm) == ["create", "start", "die"]
    death = by_hand.events()[-1]
    assert (death.exit_code, death.vm) == (137, "vm")
    assert 0 < death.at_ns - json.loads(finished.stdout)["at_ns"] < 2 * 10**9
    by_hand.node.reload()
    assert by_hand.node.status == "running"


def test_a_kill_through_the_engine_looks_different(by_hand: HandMade) -> None:
    by_hand.vm.kill()

    wait_for("the VM's death", lambda: "die" in by_hand.actions(by_hand.vm))
    assert by_hand.actions(by_hand.vm)[-2:] == ["kill", "die"]


def test_what_does_not_run_in_the_node_is_not_killed(by_hand: HandMade) -> None:
    finished = by_hand.crash("f" * 64)

    assert finished.exit_code == 3
    assert "no process of that container" in finished.stdout


def test_a_broken_event_stream_loses_nothing_and_says_that_it_broke(by_hand: HandMade) -> None:
    by_hand.stream._stream.close()
    by_hand.vm.kill()

    wait_for("the VM's death", lambda: "die" in by_hand.actions(by_hand.vm))
    (gap,) = [record for record in by_hand.heard if isinstance(record, StreamGap)]
    assert gap.complete
    assert by_hand.actions(by_hand.vm) == ["create", "start", "kill", "die"], "each once"


def test_list_and_events_agree_until_an_event_is_missing(by_hand: HandMade, client: docker.DockerClient) -> None:
    listed = list_containers(client, rig=by_hand.rig, at_ns=time.time_ns(), with_start=True)

    assert differences(listed, by_hand.events(), since_ns=0) == []
    without_start = [event for event in by_hand.events() if event.action != "start" or event.vm != "vm"]
    assert "its start was no event" in differences(listed, without_start, since_ns=0)[0]


def test_a_nodes_log_is_followed_across_its_restart_each_line_once(
    by_hand: HandMade, client: docker.DockerClient
) -> None:
    lines: list[str] = []
    log = LogStream(client, f"{by_hand.rig}-node1", sink=lines.append)
    log.open()
    wait_for("some lines", lambda: len(lines) > 5)

    by_hand.node.kill()
    by_hand.node.start()
    log.container_started()

    wait_for("lines of the second life", lambda: lines.count("3") == 2)
    log.close()
    first, second = lines[: lines.index("0", 1)], lines[lines.index("0", 1) :]
    assert first == [str(number) for number in range(len(first))]
    assert second == [str(number) for number in range(len(second))]


def test_the_client_outside_sees_a_vm_go_and_another_boot_come(
    by_hand: HandMade, client: docker.DockerClient
) -> None:
    by_hand.node.reload()
    address = by_hand.node.attrs["NetworkSettings"]["IPAddress"]
    outside = client.containers.run(
        "blackstart/hypervisor",
        entrypoint=["python3", "-I", "-c", Path(availability.__file__).read_text()],
        command=[f"vm=guest://{address}:8080/"],
        name=f"{by_hand.rig}-client",
        labels={labels.RIG: by_hand.rig, labels.ROLE: "client"},
        user="65534:65534",
        detach=True,
    )
    lines: list[str] = []
    log = LogStream(client, outside.name, sink=lines.append)
    log.open()

    def answers() -> list[ClientAnswer]:
        return [record for line in lines if isinstance(record := client_record(line), ClientAnswer)]

    wait_for("the first answer", lambda: any(answer.ok for answer in answers()))
    by_hand.vm.kill()
    wait_for("silence", lambda: not answers()[-1].ok)
    by_hand.vm.start()
    wait_for("an answer again", lambda: answers()[-1].ok)
    log.close()

    good = [answer for answer in answers() if answer.ok]
    assert good[0].boot != good[-1].boot
    assert {answer.node for answer in good} == {"node1"}


def blackstart(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    command = [str(Path(sys.executable).with_name("blackstart")), *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        pytest.fail(f"the run did not end within {RUN_LIMIT_S} s:\n{output}")
    return process.returncode, output


def journal(directory: Path) -> Any:
    return json.loads((directory / "out" / "journal.json").read_text())


@pytest.fixture
def rig_name(client: docker.DockerClient) -> Iterator[str]:
    name = f"test-chaos-{os.getpid()}"
    yield name
    remove_rig(client, name, say=print)


def test_the_power_cut_passes_and_leaves_nothing(tmp_path: Path, client: docker.DockerClient, rig_name: str) -> None:
    file = str(EXPERIMENTS / "node-power-cut.yaml")

    code, output = finish(blackstart("run", "--name", rig_name, file, cwd=tmp_path))

    assert code == 0, output
    assert "verdict: passed (exit code 0)" in output
    told = journal(tmp_path)["blackstart"]
    rulings = {checker["checker"]: checker["ruling"] for checker in told["checkers"]}
    assert rulings.pop("invariants of the simulator") == "not-applicable"
    assert set(rulings.values()) == {"holds"}
    cut = [row for row in told["recovery"] if row["fault"] == "node.power-off"]
    assert cut, output
    assert all(row["from"] != row["to"] for row in cut)
    assert all(row[f"{phase}_s"] for row in cut for phase in ("detected", "claimed", "started", "answering"))
    (crash,) = [row for row in told["recovery"] if row["fault"] == "vm.crash"]
    assert crash["from"] == crash["to"]
    assert left_behind(client, rig_name) == []


@pytest.fixture(scope="module")
def rig(client: docker.DockerClient) -> Iterator[Rig]:
    """A rig that stays: one `up` for all that run on it."""
    name = f"test-chaos-on-{os.getpid()}"
    try:
        topology = load_experiment(EXPERIMENTS / "vm-crash.yaml", rig=name).topology
        yield Rig.up(topology, say=print, client=client)
    finally:
        remove_rig(client, name, say=print)


def test_a_vm_crash_passes_and_the_rig_stays(tmp_path: Path, rig: Rig) -> None:
    file = str(EXPERIMENTS / "vm-crash.yaml")

    code, output = finish(blackstart("run", "--on-rig", rig.name, file, cwd=tmp_path))

    assert code == 0, output
    assert "verdict: passed (exit code 0)" in output
    running = [vm.name for vm in rig.vms() if vm.state == "running"]
    assert sorted(running) == ["data-vm", "shop-vm", "web-vm"]


def test_an_expectation_that_breaks_is_1_with_evidence(tmp_path: Path, rig: Rig) -> None:
    text = (EXPERIMENTS / "vm-crash.yaml").read_text()
    impossible = tmp_path / "impossible.yaml"
    impossible.write_text(text.replace("range: [0, 2]", "range: [0, 0.001]").replace("timeout: 10s", "timeout: 1s"))

    code, output = finish(blackstart("run", "--on-rig", rig.name, str(impossible), cwd=tmp_path))

    assert code == 1, output
    assert "it runs again within two seconds: expected 0 to 0.001" in output
    evidence = {path.name for path in (tmp_path / "out" / "evidence").iterdir()}
    assert {"engine-events.jsonl", "containers.json", f"{rig.name}-node1.log", "web-vm.journal.jsonl"} <= evidence


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)]
)
def test_a_signal_while_the_power_is_off_gives_it_back(tmp_path: Path, rig: Rig, number: int, code: int) -> None:
    text = (EXPERIMENTS / "vm-crash.yaml").read_text()
    cut = tmp_path / "cut.yaml"
    cut.write_text(
        text[: text.index("during:")]
        + "method:\n"
        + "  - {type: action, name: cut, pauses: {after: 60s},\n"
        + "     provider: {type: fault, fault: node.power-off, target: {owner-of: web}}}\n"
    )
    process = blackstart("run", "--on-rig", rig.name, str(cut), cwd=tmp_path)
    try:
        wait_for("the power to be cut", rig.holds, limit_s=60)
        # The hold comes first; the receipt says when the injection is through.
        lines = tmp_path / "out" / "journal.jsonl"
        wait_for("the receipt", lambda: '"confirmed"' in lines.read_text(), limit_s=30)
        process.send_signal(number)
    finally:
        returned, output = finish(process)

    assert returned == code, output
    assert rig.holds() == frozenset()
    assert journal(tmp_path)["blackstart"]["faults"][-1]["moment"] == "healed"
    rig.wait_online(say=print)


def test_a_second_instance_is_caught_whoever_started_it_under_the_clusters_labels(
    tmp_path: Path, rig: Rig, client: docker.DockerClient
) -> None:
    text = (EXPERIMENTS / "vm-crash.yaml").read_text()
    quiet = tmp_path / "quiet.yaml"
    quiet.write_text(
        text[: text.index("during:")]
        + "method:\n  - {type: probe, name: look, pauses: {before: 6s}, provider: {type: cluster, probe: nodes-up}}\n"
    )
    process = blackstart("run", "--on-rig", rig.name, str(quiet), cwd=tmp_path)
    lines = tmp_path / "out" / "journal.jsonl"
    try:
        wait_for("the method", lambda: lines.exists() and '"part": "method"' in lines.read_text(), limit_s=60)
        start_twin(client, rig, "data-vm")
    finally:
        code, output = finish(process)

    assert code == 1, output
    assert "data-vm ran twice" in output


def start_twin(client: docker.DockerClient, rig: Rig, name: str) -> None:
    """A second container of a running VM, on its disk, in another node, under labels as the cluster gives."""
    vm = next(found for found in rig.vms() if found.name == name and found.state == "running")
    other = next(node.name for node in rig.topology.nodes if node.name != vm.node)
    original = client.api.inspect_container(vm.container)
    disk = next(mount["Source"] for mount in original["Mounts"] if mount["Destination"] == "/disk")
    client.containers.run(
        "blackstart/guest",
        environment={"BLACKSTART_VM": name, "BLACKSTART_NODE": other},
        labels={**original["Config"]["Labels"], labels.NODE: other, labels.SESSION: f"{other}@0/0"},
        pid_mode=f"container:{rig.name}-{other}",
        network_mode=f"container:{rig.name}-{other}",
        user=original["Config"]["User"],
        volumes={disk: {"bind": "/disk", "mode": "rw"}},
        cap_drop=["ALL"],
        detach=True,
    )
