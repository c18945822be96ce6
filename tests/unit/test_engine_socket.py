"""Nodes get the socket of the engine in use, proven by the engine's ID, or nothing is made at all."""

import asyncio
from typing import Any

import docker.errors
import pytest
import requests

from harness.document.topology import default_topology
from harness.errors import EngineError, HarnessError, UsageError
from harness.live.node_environment import read_environment
from harness.live.vmms import prove_engine
from harness.model import labels
from harness.rig.engine import connection, engine_socket
from harness.rig.engine.engine_socket import socket_on_engine
from harness.rig.lifecycle.compose_file import render

HERE, OTHER = "AAAA:HERE", "BBBB:OTHER"
DEFAULT = "/var/run/docker.sock"
OWN = "/tmp/second/docker.sock"


class Engine:
    """An engine whose VM has sockets, each of which leads to the engine of some ID."""

    def __init__(self, sockets: dict[str, str], *, identity: str = HERE, options: tuple[str, ...] = ()) -> None:
        self.api = self
        self.sockets = sockets
        self.identity = identity
        self.options = list(options)
        self.tried: list[str] = []
        self.containers: dict[str, dict[str, Any]] = {}
        self._asked = ""

    def info(self) -> dict[str, Any]:
        return {"ID": self.identity, "SecurityOptions": self.options}

    def create_host_config(self, *, mounts: list[dict[str, Any]], **_: object) -> dict[str, Any]:
        return mounts[0]

    def create_container(self, image: str, *, name: str, host_config: dict[str, Any], **named: Any) -> dict[str, str]:
        assert image == "image"
        self.tried.append(host_config["Source"])
        if host_config["Source"] not in self.sockets:
            raise docker.errors.APIError("invalid mount config: bind source path does not exist")
        self._asked = self.sockets[host_config["Source"]]
        self.containers["trial"] = {"name": name, "labels": named["labels"]}
        return {"Id": "trial"}

    def start(self, container: str) -> None:
        assert container in self.containers

    def wait(self, container: str, *, timeout: float) -> dict[str, int]:
        assert container in self.containers
        assert timeout > 0
        return {"StatusCode": 0 if self._asked else 1}

    def logs(self, container: str) -> bytes:
        assert container in self.containers
        return f"{container if self._asked == self.identity else self._asked}\n".encode()

    def inspect_container(self, container: str) -> dict[str, Any]:
        for identifier, found in self.containers.items():
            if container in (identifier, found["name"]):
                return {"Id": identifier, "Name": f"/{found['name']}", "Config": {"Labels": found["labels"]}}
        answer = requests.Response()
        answer.status_code = 404
        raise docker.errors.NotFound("no such container", response=answer)

    def remove_container(self, container: str, **_: object) -> None:
        del self.containers[container]

    def ask(self) -> engine_socket.EngineSocket:
        return socket_on_engine(self, rig="test", image="image")  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def nothing_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_socket, "_proven", {})


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """DOCKER_HOST names the socket of another engine than the usual one."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{OWN}")


@pytest.mark.parametrize("host", [f"unix://{DEFAULT}", f"unix:///var/run/../run/{DEFAULT.rpartition('/')[2]}"])
def test_usual_socket_needs_no_trial(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    usual = Engine({})

    socket = usual.ask()

    assert (socket.path, socket.engine_id) == (DEFAULT, HERE)
    assert usual.tried == []


@pytest.mark.usefixtures("elsewhere")
class TestAnotherEngine:
    def test_socket_of_the_engine_in_use_is_mounted(self) -> None:
        """It used to be the usual one, which leads to another engine."""
        second = Engine({OWN: HERE, DEFAULT: OTHER})

        assert second.ask().path == OWN
        assert second.containers == {}

    def test_engine_in_a_virtual_machine_has_the_usual_socket_there(self) -> None:
        inside = Engine({DEFAULT: HERE})

        assert inside.ask().path == DEFAULT
        assert inside.tried == [OWN, DEFAULT]

    def test_socket_of_a_rootless_engine_is_its_users(self) -> None:
        rootless = Engine({}, options=("name=seccomp", "name=rootless"))

        assert rootless.ask().path == OWN
        assert rootless.tried == []

    def test_what_was_proven_is_not_tried_again(self) -> None:
        second = Engine({OWN: HERE})
        second.ask()
        second.ask()

        assert second.tried == [OWN]

    @pytest.mark.parametrize(
        ("sockets", "reason"),
        [
            ({}, "bind source path does not exist"),
            ({OWN: OTHER}, "it leads to another engine"),
            ({OWN: ""}, "no engine answers there"),
        ],
    )
    def test_socket_that_is_not_known_is_refused(self, sockets: dict[str, str], reason: str) -> None:
        second = Engine({DEFAULT: OTHER, **sockets})

        with pytest.raises(UsageError, match=reason) as refused:
            second.ask()

        assert "Try Blackstart on that VM" in str(refused.value)
        assert second.containers == {}

    def test_equal_ids_of_two_engines_prove_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two engines of one host may share the file from which the ID is made."""
        second = Engine({OWN: HERE})
        monkeypatch.setattr(second, "logs", lambda _: f"{HERE}\n".encode())

        with pytest.raises(UsageError, match="it leads to another engine"):
            second.ask()


def test_trial_of_an_engine_by_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2375")

    assert Engine({DEFAULT: HERE}).ask().path == DEFAULT
    with pytest.raises(UsageError, match="tcp://10"):
        Engine({DEFAULT: OTHER}, identity="CCCC").ask()


def test_nodes_are_given_the_id_of_the_engine() -> None:
    topology = default_topology(rig="test")

    assert f"BLACKSTART_ENGINE_ID: {HERE}" in render(topology, engine_id=HERE)
    assert "BLACKSTART_ENGINE_ID" not in render(topology)


def test_process_that_is_bound_to_an_engine_uses_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reaper is one: it removes by name."""

    class Client(Engine):
        def ping(self) -> None:
            """Answers."""

        def close(self) -> None:
            """Ends."""

    monkeypatch.setattr(connection, "_try_socket", lambda *_: None)
    monkeypatch.setattr(connection, "guard_paths", lambda *_: None)
    monkeypatch.setattr(connection.docker, "from_env", lambda **_: Client({}))
    monkeypatch.setenv(connection.ENGINE_ID_VARIABLE, OTHER)

    with pytest.raises(HarnessError, match="bound to the engine BBBB"):
        connection.connect()

    monkeypatch.setenv(connection.ENGINE_ID_VARIABLE, HERE)
    connection.connect()


class TestNode:
    """VMMS at its start."""

    @staticmethod
    def prove(answers: list[str | EngineError], wanted: str) -> list[str]:
        events: list[str] = []

        async def identity() -> str:
            answer = answers.pop(0)
            if isinstance(answer, EngineError):
                raise answer
            return answer

        async def sleep(_: int) -> None:
            """At once."""

        def log(event: str, *_: object, **__: object) -> None:
            events.append(event)

        try:
            asyncio.run(prove_engine(identity, wanted=wanted, log=log, sleep=sleep))
        except UsageError:
            events.append("refused")
        return events

    def test_works_with_the_engine_of_its_rig(self) -> None:
        assert self.prove([HERE], HERE) == []

    def test_refuses_another_engine(self) -> None:
        assert self.prove([OTHER], HERE) == ["wrong-engine", "refused"]

    def test_waits_for_an_engine_that_does_not_answer(self) -> None:
        """Unknown is not another one."""
        assert self.prove([EngineError("stalled"), HERE], HERE) == ["engine-unanswered"]

    def test_asks_nothing_when_no_id_is_known(self) -> None:
        assert self.prove([], "") == []

    @pytest.mark.parametrize("name", ["BLACKSTART_RIG", "BLACKSTART_NODE"])
    def test_names_of_its_environment_have_their_form(self, name: str) -> None:
        environment = {"BLACKSTART_RIG": "rig", "BLACKSTART_NODE": "node1", name: "rig,../x"}

        with pytest.raises(UsageError, match=name):
            read_environment(environment)


def test_trial_belongs_to_the_rig(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that whatever removes the rig removes it, if this process dies meanwhile."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{OWN}")
    second = Engine({OWN: HERE})
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(second, "start", lambda container: seen.append(second.containers[container]))

    second.ask()

    assert seen == [{"name": "test_socket_trial", "labels": {labels.RIG: "test", labels.ROLE: "client"}}]
