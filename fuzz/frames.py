"""The surfaces of bytes: requests to the node API, and frames between the processes of a node.

Both run in memory or over the loopback, without an engine, and with the real readers.
"""

import asyncio
import json
import random
import struct
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from fuzz.finding import Finding
from fuzz.mutation import mutated_bytes, mutated_values
from harness.live.framed_socket import FramedConnection
from harness.live.node_api import Limits, NodeApi, open_listener
from harness.wire import FrameDecoder, FrameError, encode_frame

__all__ = ["ApiSurface", "FrameSurface"]

TOKEN = "correct-horse-battery-staple"
ANSWER_LIMIT_S = 60.0
"""For the answer to a request that was sent to its end. Nothing of it waits for a time, but the host may be loaded."""

_HEAD = f"Host: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
_SNAPSHOT: Mapping[str, Any] = {
    "rig": "mine",
    "node": "node1",
    "session": "node1@abc/1",
    "quorum": True,
    "nodes": [{"name": "node1", "state": "Up"}],
    "groups": [{"name": "web", "owner": "node1", "resources": [{"name": "web-vm", "state": "Online"}]}],
}


def _post(path: str, body: str, headers: str = "") -> bytes:
    head = f"{_HEAD}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}"
    return f"POST {path} HTTP/1.1\r\n{head}\r\n{body}".encode()


_REQUESTS = (
    *(f"GET /v1/{path} HTTP/1.1\r\n{_HEAD}\r\n".encode() for path in ("snapshot", "version", "quorum", "nodes/node1")),
    f"HEAD /v1/groups/web HTTP/1.1\r\n{_HEAD}\r\n".encode(),
    _post("/v1/groups/web/online", ""),
    _post("/v1/groups/web/move", '{"target": "node2"}'),
    _post("/v1/nodes/node1/pause", '{"drain": true}', "Blackstart-Not-After: 1e99\r\n"),
    _post("/v1/nodes/node1/resume", '{"failback": "immediate"}', "Expect: 100-continue\r\n"),
    f"GET /v1/nodes HTTP/1.1\r\n{_HEAD}\r\nGET /v1/groups HTTP/1.1\r\n{_HEAD}Connection: close\r\n\r\n".encode(),
    f"POST /v1/groups/web/move HTTP/1.1\r\n{_HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n".encode(),
)


_BODIES = (
    '{"target": "node2", "drain": true}',
    '{"failback": "immediate"}',
    '{"id": 1, "call": "snapshot", "arguments": {"a": [1, 2.5, null]}}',
    '{"a": ' + "[" * 20_000,
    '{"a": ' * 20_000,
    '{"a": ' + "9" * 5000 + "}",
)
"""Objects, and what only looks like one: the latter are edited as text."""


class _Service:
    def snapshot(self) -> Mapping[str, Any]:
        return _SNAPSHOT

    async def request(self, call: str, arguments: Mapping[str, str | bool]) -> Any:
        return SimpleNamespace(code="done", message=call, result=dict(arguments))


class ApiSurface:
    """The node API on a loopback socket: every request gets an answer of HTTP, or the end of its connection."""

    name = "node API"

    def draw(self, rng: random.Random) -> bytes:
        """A mutated request; every second one has a mutated body behind a head that is right."""
        if rng.random() < 0.5:
            body = mutated_values(rng, rng.choice(_BODIES), _BODIES).encode("utf-8", "surrogatepass")
            return _post("/v1/groups/web/move", "x" * len(body)).partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body
        return mutated_bytes(rng, rng.choice(_REQUESTS), _REQUESTS)

    def judge(self, document: bytes) -> Finding | None:
        """Send it, end the sending side, and read to the end."""
        return asyncio.run(_answered(document))


async def _answered(document: bytes) -> Finding | None:
    said: list[str] = []
    api = NodeApi(
        service=_Service(),
        token=TOKEN,
        say=lambda event, message, **_: said.append(f"{event}: {message}"),
        limits=Limits(request_s=5.0, idle_s=5.0),
    )
    with open_listener("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(api.serve(listener))
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                data = await _exchange(listener.getsockname(), document)
        except TimeoutError:
            return Finding(kind="no answer to a request", text=repr(said))
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
    defects = [line for line in said if line.startswith("api-defect")]
    if defects:
        return Finding(kind="defect of the node API", text="\n".join(defects))
    if data and not data.startswith(b"HTTP/1.1 "):
        return Finding(kind="answer that is no HTTP", text=repr(data[:500]))
    return Finding(kind="answer 500", text=repr(data[:500])) if data.startswith(b"HTTP/1.1 500") else None


async def _exchange(address: tuple[str, int], document: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(document)
        if writer.can_write_eof():
            writer.write_eof()
        return await reader.read()
    except (ConnectionError, BrokenPipeError):
        return b""  # the server refuses a request before its end, and may close before all of it was sent
    finally:
        writer.transport.abort()


class _Wire:
    """The writer of a connection that only reads."""

    def __init__(self) -> None:
        self.transport = SimpleNamespace(get_write_buffer_size=lambda: 0, abort=lambda: None)

    def close(self) -> None:
        """Nothing to close."""


class FrameSurface:
    """Frames: messages that are objects, or the end of the connection."""

    name = "frames"

    _MESSAGES: tuple[dict[str, Any], ...] = (
        {"id": 1, "call": "snapshot", "arguments": {}},
        {"kind": "beat", "sequence": 12, "session": "node1@abc/1"},
        {"a": [1, 2.5, None, True, "text"], "b": {"c": {}}},
    )

    def draw(self, rng: random.Random) -> bytes:
        """Mutated frames; every second document has a right length before a mutated body."""
        frames = [encode_frame(message) for message in self._MESSAGES]
        if rng.random() < 0.3:
            body = mutated_values(rng, rng.choice(_BODIES), _BODIES).encode("utf-8", "surrogatepass")
            return struct.pack(">I", len(body)) + body
        if rng.random() < 0.5:
            body = mutated_bytes(rng, rng.choice(frames)[4:], frames)
            return struct.pack(">I", len(body)) + body
        return mutated_bytes(rng, b"".join(rng.sample(frames, rng.randint(1, 3))), frames)

    def judge(self, document: bytes) -> Finding | None:
        """Feed it in small pieces, whole, and through a connection. The messages before a frame that is none may be
        lost with it, in larger pieces more of them; no other message may differ.
        """
        most = _decoded(document, max(1, len(document) // 7))
        for other in (_decoded(document, len(document) or 1), asyncio.run(_received(document))):
            common = min(len(most), len(other))
            if most[:common] != other[:common]:
                return Finding(kind="frames depend on how they are cut", text=f"{most} {other}"[:2000])
        return None


def _decoded(document: bytes, size: int) -> list[str]:
    """As JSON: two decoded NaN are not equal."""
    decoder = FrameDecoder()
    messages: list[str] = []
    for begin in range(0, len(document), size):
        try:
            messages += [json.dumps(message) for message in decoder.feed(document[begin : begin + size])]
        except FrameError:
            break
    return messages


async def _received(document: bytes) -> list[str]:
    reader = asyncio.StreamReader()
    reader.feed_data(document)
    reader.feed_eof()
    connection = FramedConnection(reader, _Wire())  # type: ignore[arg-type]
    return [json.dumps(message) async for message in connection]
