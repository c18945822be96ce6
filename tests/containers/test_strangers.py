"""Strangers on a real engine: whatever their labels and names, no command of Blackstart touches them."""


import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from chaos.cli.main import run_command
from harness.document.topology import default_topology
from harness.errors import UsageError
from harness.model import labels
from harness.rig.images.build import ensure_images, find_project_root
from harness.rig.lifecycle.rig import Rig
from harness.rig.lifecycle.teardown import find_rigs, remove_rig

pytestmark = pytest.mark.containers

IMAGE = "blackstart/guest:latest"


class Strangers:
    """Containers, volumes and networks of a stranger; `close` removes them."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        self.name = f"ownership-{secrets.token_hex(3)}"
        self.boxes: list[Any] = []
        self._rest: list[Any] = []

    def run(self, name: str, found: dict[str, str], *, image: str = IMAGE) -> Any:
        box = self.client.containers.run(
            image, entrypoint=["sleep", "600"], command=[], name=name, labels=found, network_mode="none", detach=True
        )
        self.boxes.append(box)
        return box

    def volume(self, name: str, found: dict[str, str]) -> Any:
        self._rest.append(self.client.volumes.create(name, labels=found))
        return self._rest[-1]

    def network(self, name: str, found: dict[str, str]) -> Any:
        self._rest.append(self.client.networks.create(name, labels=found))
        return self._rest[-1]

    def image_of(self, box: Any) -> str:
        """An image made from a container, with its labels."""
        image = box.commit(repository=f"{self.name}-image", tag="latest")
        self._rest.append(image)
        return str(image.id)

    def all_there(self) -> bool:
        """Raises NotFound for one that is gone."""
        for box in self.boxes:
            box.reload()
        for entry in self._rest:
            entry.reload()
        return all(box.status == "running" for box in self.boxes)

    def close(self) -> None:
        for box in self.boxes:
            with suppress(docker.errors.NotFound):
                box.remove(force=True)
        for entry in reversed(self._rest):
            with suppress(docker.errors.NotFound):
                if hasattr(entry, "tags"):
                    self.client.images.remove(entry.id, force=True)
                else:
                    entry.remove()


@pytest.fixture
def strangers(engine: docker.DockerClient) -> Iterator[Strangers]:
    ensure_images(engine, project_root=find_project_root(), say=print)
    made = Strangers(engine)
    yield made
    made.close()


def test_strangers_outlive_the_removal_of_a_rig(strangers: Strangers, engine: docker.DockerClient) -> None:
    """With the name of the rig in labels and names, without a role, with a wrong one, and with labels of an image."""
    rig = strangers.name
    node = {labels.RIG: rig, labels.ROLE: "node", labels.NODE: "node1"}
    own = strangers.client.containers.create(IMAGE, name=f"{rig}-node1", labels=node)
    committed = strangers.image_of(own)
    strangers.run(f"{rig}-client", {})
    strangers.run(f"{rig}-debug", {}, image=committed)
    strangers.run(f"{rig}-1", {labels.RIG: rig})
    strangers.run(f"{rig}-2", {labels.RIG: rig, labels.ROLE: "spectator"})
    strangers.run(f"{rig}-3", {labels.RIG: "../..", labels.ROLE: "node"})
    strangers.volume(f"{rig}_csv", {})
    strangers.volume(f"{rig}_secrets", {labels.RIG: rig})
    strangers.network(f"{rig}_rig", {labels.RIG: "/", labels.ROLE: "network"})

    assert remove_rig(engine, rig, say=print) == 1
    assert run_command(["down", "--name", rig]) == 0

    assert strangers.all_there()
    assert rig not in find_rigs(engine).names
    assert len([shown for shown in find_rigs(engine).strangers if rig in shown]) == 6


@pytest.mark.parametrize("name", ["{}-node2", "{}-client"])
def test_rig_with_a_name_of_a_stranger_is_refused(
    strangers: Strangers, engine: docker.DockerClient, name: str
) -> None:
    rig = strangers.name
    strangers.run(name.format(rig), {"precious": "yes"})

    with pytest.raises(UsageError, match="its names are taken by container"):
        Rig.up(default_topology(rig=rig, nodes=2), say=print, client=engine)

    assert strangers.all_there()
    assert rig not in find_rigs(engine, with_locks=True).names


def test_run_on_a_rig_refuses_a_stranger_that_has_its_clients_name(
    strangers: Strangers,
    make_rig: Callable[[str], Rig],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It used to be removed with its volumes."""
    rig = make_rig("nodes: 1\ngroups: 1\n")
    strangers.run(f"{rig.name}-client", {"precious": "yes"})
    experiment = tmp_path / "quick.yaml"
    experiment.write_text("title: quick\nrig: {nodes: 1, groups: 1}\nmethod: []\n")
    monkeypatch.chdir(tmp_path)

    assert run_command(["run", "--on-rig", rig.name, str(experiment)]) == 2

    assert strangers.all_there()
    assert "its name is taken" in "".join(capsys.readouterr())
