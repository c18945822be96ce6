"""The ways to a node's API from this side of a rig: the published port, the container's address, a command in the node.

The engine publishes the port through a proxy of its own, and that proxy can die while the node lives: it holds a
process and a connection of this host for each connection that it passes on. The request and the answer are the same
bytes on every way. The second way is taken only where this host has the network's gateway address itself: elsewhere the
same address may belong to a stranger, and the request carries the rig's token. Which way is tried when is the business
of `node_api_client`.
"""

import http.client
import io
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import docker
import docker.errors

from harness.errors import ApiUnanswered, ApiUnreachable, EngineError, WaitTimeout
from harness.live.node_api_endpoints import API_PORT
from harness.rig.engine.exec import run_inside

__all__ = ["ANSWER_LIMIT_BYTES", "Address", "Way", "exchange_inside", "has_address", "parse_answer"]

ANSWER_LIMIT_BYTES = 16 << 20
"""A snapshot has half a kilobyte for each resource."""
SERVICE_USER = "900"
"""The firewall of a node lets its service connect to the port of the API, and no guest."""
NOT_RUNNING = 409
"""The engine's status for a command in a container that does not run: the command was not started."""
NOT_CONNECTED = 3
RELAY = f"""
import socket, sys
request = sys.stdin.buffer.read()
try:
    link = socket.create_connection(("127.0.0.1", {API_PORT}), timeout=float(sys.argv[1]))
except OSError:
    sys.exit({NOT_CONNECTED})
link.sendall(request)
while part := link.recv(65536):
    sys.stdout.buffer.write(part)
"""
"""Sends its standard input to the node's API and writes the answer: it needs nothing but the standard library."""


class Way(StrEnum):
    """How a node's API is reached."""

    PUBLISHED = "the port that the engine publishes"
    ADDRESS = "the container's address"
    COMMAND = "a command in the node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a node's API is reached from here now.

    `host` and `port` are those that the engine publishes, a port of 0 stands for none. `inner` is the container's
    address, `gateway` that of its network on the engine's host; each is empty where the engine names none.
    """

    node: str
    host: str
    port: int
    container: str = ""
    inner: str = ""
    inner_port: int = API_PORT
    gateway: str = ""


def has_address(address: str) -> bool:
    """Whether this host has that IP address: only an address of its own can be bound."""
    if not address:
        return False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
            trial.bind((address, 0))
    except OSError:
        return False
    return True


def exchange_inside(
    client: docker.DockerClient,
    address: Address,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str],
    body: str | None,
    limit_s: float,
) -> tuple[int, dict[str, Any]]:
    """One request through a command in the node: the status and the JSON object of the answer.

    Raises ApiUnreachable when certainly nothing was sent, ApiUnanswered, both within about `limit_s`.
    """
    where = f"the API of {address.node} through a command in its container"
    command = ["python3", "-I", "-c", RELAY, f"{limit_s:.3f}"]
    request = _request_bytes(method, target, headers, body)
    try:
        finished = run_inside(
            client,
            address.container,
            command,
            user=SERVICE_USER,
            limit_s=limit_s,
            stdin=request,
            shown="python3 (a request to the node API)",
        )
    except (WaitTimeout, EngineError) as error:
        refused = isinstance(error.__cause__, docker.errors.APIError) and error.__cause__.status_code == NOT_RUNNING
        kind = ApiUnreachable if refused else ApiUnanswered
        raise kind(f"{where}: {error}") from error
    if finished.exit_code == NOT_CONNECTED:
        raise ApiUnreachable(f"{where} takes no connection")
    try:
        return parse_answer(finished.stdout.encode(), method)
    except (http.client.HTTPException, ValueError, OSError) as error:
        raise ApiUnanswered(f"{where} answers, but not as a node does: {error or type(error).__name__}") from error


def parse_answer(answer: bytes, method: str) -> tuple[int, dict[str, Any]]:
    """The status and the JSON object of an HTTP answer. Raises ValueError or HTTPException for anything else."""
    response = http.client.HTTPResponse(_Received(answer), method=method)  # type: ignore[arg-type]
    response.begin()
    found = json.loads(response.read(ANSWER_LIMIT_BYTES))
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return response.status, found


def _request_bytes(method: str, target: str, headers: Mapping[str, str], body: str | None) -> bytes:
    content = (body or "").encode()
    all_headers = {"Host": f"127.0.0.1:{API_PORT}", **headers, "Connection": "close"}
    if content:
        all_headers["Content-Length"] = str(len(content))
    head = "".join(f"{name}: {value}\r\n" for name, value in all_headers.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + content


class _Received:
    """A socket as `http.client` reads it: bytes that have come already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        """What was received."""
        del mode
        return io.BytesIO(self._data)
