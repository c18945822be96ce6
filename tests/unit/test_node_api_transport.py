"""The ways to a node's API: which is taken when, what a dead node costs, and what is said of it."""

import contextlib
import http.client
import http.server
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors
import pytest
import requests

from harness.errors import ApiUnanswered, ApiUnreachable, RequestRefused
from harness.live.node_api_endpoints import API_PORT
from harness.rig.cluster.node_api_client import NodeApiClient, addresses_of
from harness.rig.cluster.node_api_transport import Address, Way, has_address, parse_answer

TOKEN = "secret-token"
NOWHERE = "192.0.2.1"


class Node(http.server.ThreadingHTTPServer):
    """A node's API on a port of this host; keeps the requests that it got."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, str, str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Node

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        self.server.got.append((self.command, self.path, self.headers["Authorization"], body))
        known = self.path.endswith(("snapshot", "move"))
        answer = {"code": "done", "message": "schön"} if known else {"code": "no-such", "message": "no such path"}
        data = json.dumps(answer, ensure_ascii=False).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


class Engine:
    """The engine's commands in containers, carried out on this host; `port` is where the node in it listens."""

    def __init__(self, port: int) -> None:
        self.api = self
        self.port = port
        self.refuses = False
        self.commands: list[list[str]] = []
        self._status = 0

    def exec_create(self, container: str, command: list[str], *, user: str, stdin: bool) -> dict[str, str]:
        assert (container, user, stdin) == ("c1", "900", True)
        if self.refuses:
            response = requests.Response()
            response.status_code = 409
            raise docker.errors.APIError("the container does not run", response)
        self.commands.append(command)
        return {"Id": "e1"}

    def exec_start(self, number: str, *, socket: bool) -> Any:
        assert (number, socket) == ("e1", True)
        ours, theirs = _pair()
        threading.Thread(target=self._run, args=(self.commands[-1], theirs), daemon=True).start()
        return ours

    def exec_inspect(self, number: str) -> dict[str, int]:
        assert number == "e1"
        return {"ExitCode": self._status}

    def _run(self, command: list[str], link: socket.socket) -> None:
        request = b""
        while part := link.recv(65536):
            request += part
        argv = [sys.executable, *(word.replace(str(API_PORT), str(self.port)) for word in command[1:])]
        done = subprocess.run(argv, input=request, capture_output=True, check=False)
        self._status = done.returncode
        link.sendall(struct.pack(">BxxxL", 1, len(done.stdout)) + done.stdout)
        link.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as trial:
        return int(trial.getsockname()[1])


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Takes connections and answers none, as a proxy that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


class Bench:
    """A client, a node, and the notes."""

    def __init__(self) -> None:
        self.node = Node()
        self.engine = Engine(self.node.port)
        self.notes: list[str] = []
        self.client = NodeApiClient(self.engine, rig="test", note=self.notes.append)  # type: ignore[arg-type]
        self.client._token = TOKEN

    def address(self, port: int, *, inner: str = "127.0.0.1", gateway: str = "127.0.0.1") -> Address:
        return Address(
            node="node1",
            host="127.0.0.1",
            port=port,
            container="c1",
            inner=inner,
            inner_port=self.node.port,
            gateway=gateway,
        )


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.client.close()
    bench.node.shutdown()
    bench.node.server_close()


def test_published_port_serves_and_nothing_is_said(bench: Bench) -> None:
    reply = bench.client.get(bench.address(bench.node.port), "snapshot", limit_s=2)

    assert (reply.way, reply.message) == (Way.PUBLISHED, "schön")
    assert (bench.notes, bench.engine.commands) == ([], [])


def test_closed_port_leads_to_the_containers_address(bench: Bench) -> None:
    address = bench.address(closed_port())

    replies = [bench.client.get(address, "snapshot", limit_s=2) for _ in range(3)]

    assert {reply.way for reply in replies} == {Way.ADDRESS}
    assert len(bench.notes) == 1, "said once"
    assert "the API of node1 is reached through the container's address" in bench.notes[0]
    assert f"127.0.0.1:{address.port} takes no connection" in bench.notes[0]


@pytest.mark.parametrize(("inner", "gateway"), [("127.0.0.1", NOWHERE), ("127.0.0.1", ""), ("", "")])
def test_address_that_may_be_a_strangers_is_not_asked(bench: Bench, inner: str, gateway: str) -> None:
    """The rig's token is for the node alone: on another host its address may belong to somebody else."""
    reply = bench.client.get(bench.address(closed_port(), inner=inner, gateway=gateway), "snapshot", limit_s=5)

    assert (reply.way, reply.message) == (Way.COMMAND, "schön")
    assert bench.engine.commands[0][:3] == ["python3", "-I", "-c"]
    assert "through a command in the node" in bench.notes[0]


def test_request_and_answer_are_the_same_on_every_way(bench: Bench) -> None:
    ways = [
        bench.address(bench.node.port),
        bench.address(closed_port()),
        bench.address(closed_port(), gateway=""),
    ]

    replies = [bench.client.post(address, "groups/web/move", {"target": "node2"}, limit_s=5) for address in ways]

    assert [reply.way for reply in replies] == [Way.PUBLISHED, Way.ADDRESS, Way.COMMAND]
    assert [reply.body for reply in replies] == [{"code": "done", "message": "schön"}] * 3
    asked = ("POST", "/v1/groups/web/move", f"Bearer {TOKEN}", '{"target": "node2"}')
    assert bench.node.got == [asked] * 3


def test_token_is_no_word_of_the_command(bench: Bench) -> None:
    """Whoever may list processes reads commands."""
    bench.client.get(bench.address(closed_port(), gateway=""), "snapshot", limit_s=5)

    assert not any(TOKEN in word for command in bench.engine.commands for word in command)


def test_refusal_of_a_node_is_one_on_every_way(bench: Bench) -> None:
    with pytest.raises(RequestRefused, match="no such path"):
        bench.client.get(bench.address(closed_port(), gateway=""), "nonsense", limit_s=5)


def test_silent_port_costs_one_limit_and_is_then_avoided(bench: Bench) -> None:
    with silent_port() as port:
        address = bench.address(port)
        began = time.monotonic()
        with pytest.raises(ApiUnanswered, match=r"gave no answer within 0\.3 s"):
            bench.client.post(address, "groups/web/move", {}, limit_s=0.3)
        took_s = time.monotonic() - began
        reply = bench.client.get(address, "snapshot", limit_s=2)

    assert took_s < 1.0
    assert reply.way is Way.ADDRESS
    assert "the way before it gave no answer" in bench.notes[0]


def test_request_that_may_be_done_is_not_sent_twice(bench: Bench) -> None:
    with silent_port() as port, pytest.raises(ApiUnanswered):
        bench.client.post(bench.address(port), "groups/web/move", {}, limit_s=0.3)

    assert bench.node.got == []


def test_node_that_hangs_costs_its_limit_on_any_way(bench: Bench) -> None:
    with silent_port() as port:
        address = Address(
            node="node1", host="127.0.0.1", port=port, container="c1", inner="127.0.0.1", inner_port=port,
            gateway="127.0.0.1",
        )
        bench.engine.port = port
        for _ in range(4):
            began = time.monotonic()
            with pytest.raises(ApiUnanswered):
                bench.client.post(address, "groups/web/move", {}, limit_s=0.3)
            assert time.monotonic() - began < 1.0

    assert bench.notes == []


def test_node_that_does_not_run_was_certainly_not_asked(bench: Bench) -> None:
    bench.engine.refuses = True
    began = time.monotonic()

    with pytest.raises(ApiUnreachable, match=r"takes no connection; .*refused: 409"):
        bench.client.post(bench.address(closed_port(), gateway=""), "groups/web/move", {}, limit_s=5)

    assert time.monotonic() - began < 1.0


def test_new_life_of_a_node_begins_with_the_published_port(bench: Bench) -> None:
    bench.client.get(bench.address(closed_port()), "snapshot", limit_s=2)

    reply = bench.client.get(bench.address(bench.node.port), "snapshot", limit_s=2)

    assert reply.way is Way.PUBLISHED


def test_only_an_address_of_this_host_can_be_its_gateway() -> None:
    assert has_address("127.0.0.1")
    assert not has_address(NOWHERE)
    assert not has_address("")
    assert not has_address("no address")


@pytest.mark.parametrize("answer", [b"", b"hello", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"])
def test_answer_of_another_form_is_refused(answer: bytes) -> None:
    with pytest.raises((ValueError, OSError, http.client.HTTPException)):
        parse_answer(answer, "GET")


def test_addresses_come_from_the_engines_list() -> None:
    networks = {"r_rig": {"IPAddress": "10.87.0.11", "Gateway": "10.87.0.1"}}
    container = {
        "Id": "c1",
        "Labels": {"io.blackstart.node": "node1"},
        "Ports": [{"IP": "127.0.0.1", "PrivatePort": API_PORT, "PublicPort": 32771, "Type": "tcp"}],
        "NetworkSettings": {"Networks": networks},
    }
    unpublished = {**container, "Id": "c2", "Labels": {"io.blackstart.node": "node2"}, "Ports": []}

    found = addresses_of([container, unpublished])

    assert found["node1"] == Address(
        node="node1", host="127.0.0.1", port=32771, container="c1", inner="10.87.0.11", gateway="10.87.0.1"
    )
    assert found["node2"].port == 0
