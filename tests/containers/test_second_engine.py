"""A second engine on this machine: nodes get its socket and not that of the first one. Needs root and dockerd."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from harness.errors import UsageError
from harness.rig import engine_socket
from harness.rig.engine import DEFAULT_SOCKET, connect
from harness.rig.engine_socket import socket_on_engine
from harness.rig.images import ensure_images, find_project_root

pytestmark = [pytest.mark.containers, pytest.mark.long]

START_LIMIT_S = 60.0
RIG = "ownership-second"


@pytest.fixture
def second(
    engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[docker.DockerClient]:
    """The client of an engine with the nodes' image and no network, which DOCKER_HOST names."""
    image = ensure_images(engine, project_root=find_project_root(), say=print).hypervisor
    settings = tmp_path / "daemon.json"
    settings.write_text(json.dumps({"storage-driver": engine.info()["Driver"]}))
    place = tmp_path / "docker.sock"
    command = [
        *("dockerd", "--config-file", str(settings), "--host", f"unix://{place}", "--pidfile", str(tmp_path / "pid")),
        *("--data-root", str(tmp_path / "data"), "--exec-root", str(tmp_path / "exec")),
        *("--bridge", "none", "--iptables=false", "--ip-forward=false"),
    ]
    log = tmp_path / "log"
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True) as daemon:
        try:
            deadline = time.monotonic() + START_LIMIT_S
            while "API listen on" not in log.read_text():
                assert daemon.poll() is None, log.read_text()[-1000:]
                assert time.monotonic() < deadline, log.read_text()[-1000:]
                time.sleep(0.1)
            monkeypatch.setenv("DOCKER_HOST", f"unix://{place}")
            client = connect()
            client.api.load_image(b"".join(engine.api.get_image(image.tag)))
            yield client
            client.close()
        finally:
            daemon.terminate()


def test_nodes_get_the_socket_of_the_engine_in_use(second: docker.DockerClient, tmp_path: Path) -> None:
    socket = socket_on_engine(second, rig=RIG, image="blackstart/hypervisor:latest")

    assert socket.path == str(tmp_path / "docker.sock")
    assert socket.engine_id == second.info()["ID"]
    assert second.api.containers(all=True) == []


def test_usual_socket_of_another_engine_is_refused(
    second: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where both engines have one ID, because it is made of a file of this machine."""
    monkeypatch.setattr(engine_socket, "host_in_use", lambda: "tcp://127.0.0.1:1")

    with pytest.raises(UsageError, match=f"{DEFAULT_SOCKET}: it leads to another engine"):
        socket_on_engine(second, rig=RIG, image="blackstart/hypervisor:latest")

    assert second.api.containers(all=True) == []
