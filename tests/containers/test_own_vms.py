"""A VM of a person's own on a real rig: PostgreSQL from Debian's packages, its data on a volume of the VM.

The shipped experiment cuts the power of its node while a client outside writes rows. The tests share one rig and run in
the order of this file.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from conftest import MakeRig

from chaos.cli.main import run_command
from chaos.experiment.loader import load_experiment
from harness.errors import UsageError
from harness.model import labels
from harness.model.object_names import network_name, node_container
from harness.model.topology import Topology
from harness.rig.engine.exec import run_inside
from harness.rig.images.build import ensure_example, ensure_images, find_project_root
from harness.rig.lifecycle.rig import Rig, Vm

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

EXPERIMENT = Path(__file__).parents[2] / "chaos" / "experiments" / "database-failover.yaml"
IMAGE = "blackstart/example-database"
ROWS_BEFORE = 20
LIMIT_S = 40.0
LOOK_INTERVAL_S = 0.1
ROW_LIMIT_S = 10
"""A row takes two seconds at the most."""


@pytest.fixture(scope="module")
def rig(engine: docker.DockerClient, rig_names: Callable[[], str]) -> Rig:
    """The experiment's rig, made before it runs."""
    ensure_images(engine, project_root=find_project_root(), say=print)
    ensure_example(engine, "database", project_root=find_project_root(), say=print)
    topology: Topology = load_experiment(EXPERIMENT, rig=rig_names()).topology
    return Rig.up(topology, say=print, client=engine)


class Writer:
    """A client on the rig's network that writes rows from now on."""

    def __init__(self, rig: Rig) -> None:
        self._container: Any = rig.client.containers.run(
            IMAGE,
            entrypoint=["/usr/local/bin/write-rows"],
            command=[rig.topology.groups[0].resource("db-vm").properties["address"]],
            network=network_name(rig.name),
            user="65534:65534",
            cap_drop=["ALL"],
            labels={labels.RIG: rig.name, labels.ROLE: str(labels.Role.CLIENT)},
            detach=True,
        )

    def rows(self, outcome: str) -> list[int]:
        """Those that were `acknowledged`, or whose fate is `unknown`."""
        told = (line.split() for line in self._container.logs(stderr=False).decode().splitlines())
        return [int(line[1]) for line in told if len(line) == 2 and line[0] == outcome]

    def wait_acknowledged(self, count: int) -> None:
        deadline = time.monotonic() + LIMIT_S
        while len(self.rows("acknowledged")) < count:
            assert time.monotonic() < deadline, f"waited {LIMIT_S:g} s for {count} rows; {self._container.logs()!r}"
            time.sleep(LOOK_INTERVAL_S)

    def stop(self) -> None:
        """After the row under way: one whose fate nobody told would count as never written."""
        self._container.stop(timeout=ROW_LIMIT_S)
        assert self._container.wait(timeout=LIMIT_S)["StatusCode"] == 0, "it was killed with a row under way"

    def remove(self) -> None:
        self._container.remove(force=True)


@pytest.fixture
def writer(rig: Rig) -> Iterator[Writer]:
    writer = Writer(rig)
    yield writer
    writer.remove()


def database(rig: Rig) -> Vm:
    (vm,) = [vm for vm in rig.vms() if vm.name == "db-vm" and vm.state == "running"]
    return vm


def rows(rig: Rig) -> set[int]:
    """What the database holds."""
    user = rig.topology.groups[0].resource("db-vm").properties["user"]
    command = ["psql", "-X", "-At", "-c", "select number from rows"]
    finished = run_inside(rig.client, database(rig).container, command, user=user, limit_s=LIMIT_S)
    assert finished.exit_code == 0, finished
    return {int(line) for line in finished.stdout.split()}


def log(rig: Rig, event: str) -> list[dict[str, Any]]:
    """The lines of that event, of all nodes."""
    found = []
    for node in rig.topology.nodes:
        text = rig.client.api.logs(node_container(rig.name, node.name)).decode()
        found += [line for line in map(json.loads, text.splitlines()) if line["event"] == event]
    return found


@pytest.mark.long
def test_database_is_online_when_it_is_ready_and_runs_as_nobody_in_particular(rig: Rig) -> None:
    vm = database(rig)
    inspected = rig.client.api.inspect_container(vm.container)

    assert [line["message"].split(" is ready ")[0] for line in log(rig, "vm-ready")] == ["db-vm"]
    assert inspected["Config"]["User"] == "10001:10001"
    assert inspected["HostConfig"]["CapDrop"] == ["ALL"]
    assert {mount["Destination"] for mount in inspected["Mounts"]} == {"/disk", "/data"}


@pytest.mark.long
def test_every_acknowledged_row_survives_the_power_cut_of_the_shipped_experiment(
    rig: Rig, writer: Writer, tmp_path: Path
) -> None:
    before = database(rig)
    writer.wait_acknowledged(ROWS_BEFORE)

    code = run_command(["run", str(EXPERIMENT), "--on-rig", rig.name, "--out", str(tmp_path)])

    there = len(writer.rows("acknowledged"))
    writer.wait_acknowledged(there + ROWS_BEFORE)
    writer.stop()
    acknowledged, unknown, held = set(writer.rows("acknowledged")), set(writer.rows("unknown")), rows(rig)
    document = json.loads((tmp_path / "journal.json").read_text())
    verdicts = {verdict["checker"]: verdict for verdict in document["blackstart"]["checkers"]}
    assert code == 0
    assert database(rig).node != before.node
    assert unknown, "the cut was not felt: nothing is proved"
    assert acknowledged <= held, f"lost: {sorted(acknowledged - held)}"
    assert held <= acknowledged | unknown, f"never written: {sorted(held - acknowledged - unknown)}"
    print(f"{len(acknowledged)} rows acknowledged, {len(unknown)} unknown, {len(held)} there")
    told = verdicts["at-most-one-instance, guests' journals"]
    assert told["ruling"] == "not-applicable", told
    assert "no journal is kept by db-vm" in str(told)


@pytest.mark.long
def test_database_that_was_killed_recovers_in_place_with_its_rows(rig: Rig) -> None:
    before = database(rig)
    held = rows(rig)
    run = rig.client.api.inspect_container(before.container)["State"]["StartedAt"]

    rig.client.api.kill(before.container)

    deadline = time.monotonic() + LIMIT_S
    while rig.client.api.inspect_container(before.container)["State"]["StartedAt"] == run or rig.standing().missing(
        rig.topology
    ):
        assert time.monotonic() < deadline, f"waited {LIMIT_S:g} s; {rig.logs(before.node)}"
        time.sleep(LOOK_INTERVAL_S)
    assert database(rig).node == before.node
    assert held <= rows(rig)


def test_vm_whose_image_is_not_there_is_refused_before_anything_starts(
    make_rig: MakeRig, engine: docker.DockerClient
) -> None:
    text = (
        "nodes: 1\ngroups:\n  - name: own\n    resources:\n"
        "      - {name: own-vm, type: virtual-machine, image: no-such/image:1, processors: 64}\n"
    )
    with pytest.raises(UsageError) as refused:
        make_rig(text)

    image, processors = str(refused.value).splitlines()
    assert image.startswith("the engine does not have the image no-such/image:1 of own-vm: `docker pull no-such/")
    assert processors.startswith("own-vm is given 64 processors, and the engine's host has ")
    assert not [one for one in engine.containers.list(all=True) if "own-vm" in str(one.labels)]
