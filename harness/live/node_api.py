"""The node API: HTTP/1.1 inside the cluster service's process, on its loop, for whoever has the rig's token.

It decides nothing: `node_api_endpoints` says what a request means, the service answers. What it must do is never to be
in the way of the beats: it reads little at a time, gives the loop its turn after each piece, and has a limit on
everything that a stranger could make it keep (connections, bytes, time). Nothing of a body is looked at before the
token was right. Sockets are used bare, because asyncio's streams read up to a quarter of a megabyte ahead.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import h11

from harness.live.node_api_endpoints import (
    API_PORT,
    ApiError,
    Call,
    EndpointAnswer,
    Read,
    Response,
    answer_response,
    find_endpoint,
    parse_arguments,
    read_response,
)

__all__ = ["NOT_AFTER", "ApiService", "Limits", "NodeApi", "open_listener"]

HEADER_LIMIT_BYTES = 8192
TARGET_LIMIT_BYTES = 1024
BODY_LIMIT_BYTES = 65536
READ_BYTES = 4096
LINGER_LIMIT_S = 1.0
LINGER_BYTES = 1 << 20
"""A connection that is closed while its client still sends would lose the answer: so much is thrown away first."""
FAILURES_TOLD_EVERY_S = 10.0
ACCEPT_RETRY_S = 0.1
BACKLOG = 32

NOT_AFTER = "blackstart-not-after"
"""Header: Unix seconds after which a request must not be carried out. A request may lie in a frozen node for long."""

_LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times in seconds. `request_s`: from a request's first byte to its last, and for the answer to be taken.
    `answer_s` is for a defect: the service answers within ten seconds. `connections`: the harness has one, a person
    some more.
    """

    connections: int = 32
    request_s: float = 10.0
    idle_s: float = 15.0
    answer_s: float = 20.0


class ApiService(Protocol):
    """What the API needs of the cluster service."""

    def snapshot(self) -> Mapping[str, Any] | None:
        """What this node believes; None as long as it has not begun."""
        ...

    async def request(self, call: str, arguments: Mapping[str, str | bool]) -> EndpointAnswer:
        """Carry out an administrator's call; answers within ten seconds."""
        ...


Say = Callable[..., None]
"""`say(event, message, **fields)`: a line of the cluster log."""


def open_listener(address: str = "0.0.0.0", port: int = API_PORT) -> socket.socket:
    """A listening socket, for trials and tests: in a node PID 1 opens it, before any guest could. Raises OSError."""
    listener = socket.create_server((address, port), backlog=BACKLOG)
    listener.setblocking(False)
    return listener


class NodeApi:
    """The server. Invariant: at most `limits.connections` connections, of which only those that carry out a request
    whose token was right are safe from being closed for a newer one.
    """

    def __init__(self, *, service: ApiService, token: str, say: Say, limits: Limits = Limits()) -> None:
        """`token` is what clients must know; only its digest is kept."""
        self.service = service
        self.say = say
        self.limits = limits
        self._digest = hashlib.sha256(token.encode()).digest()
        self._connections: dict[_Connection, None] = {}
        self._failed = _FailedAuthentications(say)

    async def serve(self, listener: socket.socket) -> None:
        """Accept for ever. `listener` listens and does not block; it stays open."""
        loop = asyncio.get_running_loop()
        told = ""
        while True:
            try:
                link, peer = await loop.sock_accept(listener)
            except OSError as error:
                # Out of descriptors, or a connection that broke before it was accepted.
                if str(error) != told:
                    told = str(error)
                    self.say("api-accept-failed", f"a connection to the node API could not be accepted: {error}")
                await asyncio.sleep(ACCEPT_RETRY_S)
                continue
            self._admit(link, str(peer[0]))
            await asyncio.sleep(0)  # accepting many must not hold the beats up

    def is_token(self, given: bytes) -> bool:
        """Whether this is the token; takes equally long for each that is not."""
        return hmac.compare_digest(hashlib.sha256(given).digest(), self._digest)

    def authentication_failed(self, peer: str) -> None:
        """Somebody came without the token."""
        self._failed.count(peer)

    def _admit(self, link: socket.socket, peer: str) -> None:
        if len(self._connections) >= self.limits.connections:
            victim = self._least_needed()
            if victim is None:
                link.close()
                return
            del self._connections[victim]
            victim.abandon()
        connection = _Connection(self, link, peer)
        self._connections[connection] = None
        connection.start(lambda: self._connections.pop(connection, None))

    def _least_needed(self) -> "_Connection | None":
        """The oldest that is idle, else the oldest that has not shown the token with its request."""
        for phases in ((_Phase.IDLE,), (_Phase.NEW, _Phase.READING)):
            for connection in self._connections:
                if connection.phase in phases:
                    return connection
        return None


class _Phase(Enum):
    NEW = "nothing has been read"
    IDLE = "between requests"
    READING = "the token has not been seen"
    ANSWERING = "the token was right"


_WAITING = (_Phase.NEW, _Phase.IDLE)


class _Connection:
    """One client: its requests one after the other."""

    def __init__(self, api: NodeApi, link: socket.socket, peer: str) -> None:
        self.phase = _Phase.NEW
        self._api = api
        self._limits = api.limits
        self._link = link
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_LIMIT_BYTES)
        self._task: asyncio.Task[None] | None = None
        self._without_body = False

    def start(self, ended: Callable[[], object]) -> None:
        """Serve as a task; `ended` is called when the connection is closed."""

        def done(_: asyncio.Task[None]) -> None:
            self._link.close()
            ended()

        self._task = self._loop.create_task(self._serve(), name=f"node API for {self._peer}")
        self._task.add_done_callback(done)

    def abandon(self) -> None:
        """Close it for a newer one."""
        if self._task is not None:
            self._task.cancel()

    async def _serve(self) -> None:
        try:
            self._link.setblocking(False)
            with contextlib.suppress(OSError):
                self._link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while await self._one_request():
                self.phase = _Phase.IDLE
                self._http.start_next_cycle()
                await asyncio.sleep(0)  # it may have sent its next ones already
        except (OSError, TimeoutError):
            pass  # the client has gone, or does not take its answer
        except Exception as error:  # noqa: BLE001 - the root of a connection's task: a defect, told, of this one only
            self._api.say("api-defect", f"a request to the node API failed by a defect: {error!r}", peer=self._peer)
            message = "the node failed by a defect of its own; the cluster log says more"
            with contextlib.suppress(OSError, TimeoutError, h11.LocalProtocolError):
                await self._send_error(ApiError(500, "defect", message))

    async def _one_request(self) -> bool:
        """Whether another one may follow."""
        try:
            async with asyncio.timeout(self._limits.idle_s) as limit:
                event = await self._next_event(lambda: limit.reschedule(self._loop.time() + self._limits.request_s))
                if not isinstance(event, h11.Request):
                    return False  # the client has closed the connection
                self._without_body = event.method == b"HEAD"
                request = _Head(event, self._link.getsockname()[0])
                self._check(request)
                self.phase = _Phase.ANSWERING
                body = await self._read_body()
        except TimeoutError:
            if self.phase in _WAITING:
                return False
            message = f"the request was not complete after {self._limits.request_s:g} s"
            return await self._send_error(ApiError(408, "too-slow", message))
        except h11.RemoteProtocolError as error:
            return await self._send_error(ApiError(error.error_status_hint, "malformed", f"no valid HTTP: {error}"))
        except ApiError as error:
            return await self._send_error(error)
        try:
            response = await self._carry_out(request, body)
        except ApiError as error:
            response = _error_response(error)
        await self._send(response)
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _next_event(self, on_first_byte: Callable[[], None] | None = None) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            data = await self._loop.sock_recv(self._link, READ_BYTES)
            self._http.receive_data(data)
            if on_first_byte is not None and data and self.phase in _WAITING:
                self.phase = _Phase.READING
                on_first_byte()
            await asyncio.sleep(0)  # a client that always has more to say must not hold the beats up

    def _check(self, request: "_Head") -> None:
        """What is asked before anything of the body is looked at. Raises ApiError."""
        request.check_size()
        request.check_host()
        if not self._api.is_token(request.token()):
            self._api.authentication_failed(self._peer)
            raise ApiError(
                401,
                "unauthorized",
                "the rig's token is expected: the header `Authorization: Bearer TOKEN`",
                headers={"WWW-Authenticate": "Bearer"},
            )
        request.check_framing()
        request.find_endpoint()

    async def _read_body(self) -> bytes:
        if self._http.they_are_waiting_for_100_continue:
            await self._loop.sock_sendall(
                self._link, self._http.send(h11.InformationalResponse(status_code=100, headers=[]))
            )
        body = b""
        while not isinstance(event := await self._next_event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise ConnectionResetError("the client went away in the middle of a request")
            body += bytes(event.data)
        return body

    async def _carry_out(self, request: "_Head", body: bytes) -> Response:
        endpoint = request.endpoint
        snapshot = self._api.service.snapshot()
        if snapshot is None:
            raise ApiError(503, "starting", "the cluster service of this node has not begun yet", headers=_RETRY)
        if isinstance(endpoint, Read):
            return read_response(endpoint, snapshot)
        arguments = parse_arguments(endpoint, request.header("content-type"), body)
        request.check_not_after()
        try:
            async with asyncio.timeout(self._limits.answer_s):
                return answer_response(await self._api.service.request(endpoint.call, arguments))
        except TimeoutError as error:
            message = f"no answer within {self._limits.answer_s:g} s: it may or may not be done"
            raise ApiError(504, "unknown", message) from error

    async def _send_error(self, error: ApiError) -> bool:
        """Answer a request whose end was not read, if an answer is still possible; the connection then ends."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return False
        await self._send(_error_response(error), close=True)
        await self._linger()
        return False

    async def _send(self, response: Response, *, close: bool = False) -> None:
        data = json.dumps(response.body, separators=(",", ":")).encode() + b"\n"
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "Cache-Control": "no-store",
            **response.headers,
            **({"Connection": "close"} if close else {}),
        }
        head = self._http.send(h11.Response(status_code=response.status, headers=list(headers.items())))
        body = b"" if self._without_body else self._http.send(h11.Data(data=data))
        end = self._http.send(h11.EndOfMessage())
        async with asyncio.timeout(self._limits.request_s):
            await self._loop.sock_sendall(self._link, head + body + end)

    async def _linger(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            self._link.shutdown(socket.SHUT_WR)
            left = LINGER_BYTES
            async with asyncio.timeout(LINGER_LIMIT_S):
                while left > 0 and (data := await self._loop.sock_recv(self._link, READ_BYTES)):
                    left -= len(data)
                    await asyncio.sleep(0)


_RETRY = {"Retry-After": "1"}


class _Head:
    """The request line and the headers of one request."""

    def __init__(self, event: h11.Request, own_address: str) -> None:
        self.method = event.method.decode("ascii")
        self.target = event.target.decode("ascii")
        self.endpoint: Read | Call = Read(part="snapshot")
        self._headers = list(event.headers)
        self._own_address = own_address

    def header(self, name: str) -> str:
        """The header's value; empty when it is not there, or more than once."""
        values = self._values(name)
        return values[0].decode("latin-1") if len(values) == 1 else ""

    def token(self) -> bytes:
        """What the client shows; empty when it shows nothing that could be a token."""
        values = self._values("authorization")
        scheme, _, token = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        return token.strip() if scheme.lower() == b"bearer" else b""

    def check_size(self) -> None:
        """h11 counts only what is incomplete: a last piece may make it more."""
        size = sum(len(name) + len(value) + 4 for name, value in self._headers)
        if size > HEADER_LIMIT_BYTES:
            raise ApiError(431, "too-large", f"the headers have {size} bytes, at most {HEADER_LIMIT_BYTES} are read")
        if len(self.target) > TARGET_LIMIT_BYTES:
            raise ApiError(
                414, "too-large", f"the path has {len(self.target)} bytes, at most {TARGET_LIMIT_BYTES} are read"
            )

    def check_host(self) -> None:
        """A page in somebody's browser may have made its own name mean 127.0.0.1: names are not accepted, but ours."""
        host = self.header("host").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in _LOCAL_NAMES and name != self._own_address:
            message = "the Host header names neither 127.0.0.1, localhost nor this node's address"
            raise ApiError(403, "wrong-host", message)

    def check_framing(self) -> None:
        """The length must be told, once and in one way."""
        lengths, encodings = self._values("content-length"), self._values("transfer-encoding")
        if encodings and lengths:
            raise ApiError(400, "malformed", "Content-Length and Transfer-Encoding exclude each other")
        if encodings:
            raise ApiError(411, "length-required", "a body needs a Content-Length; chunks are not taken")
        length = int(lengths[0]) if lengths else 0
        if length > BODY_LIMIT_BYTES:
            raise ApiError(413, "too-large", f"the body has {length} bytes, at most {BODY_LIMIT_BYTES} are read")
        if length and self.method == "GET":
            raise ApiError(400, "malformed", "GET takes no body")

    def find_endpoint(self) -> None:
        """Sets `endpoint`."""
        self.endpoint = find_endpoint(self.method, self.target)

    def check_not_after(self) -> None:
        """Refuse what has lain too long."""
        if not self._values(NOT_AFTER):
            return
        try:
            late_s = time.time() - float(self.header(NOT_AFTER))
        except ValueError as error:
            raise ApiError(400, "malformed", "Blackstart-Not-After is no number of Unix seconds") from error
        if not late_s <= 0:
            raise ApiError(408, "expired", f"the request came {late_s:.1f} s after its time: nothing was done")

    def _values(self, name: str) -> list[bytes]:
        wanted = name.encode()
        return [value for found, value in self._headers if found == wanted]


class _FailedAuthentications:
    """Tells the first at once, and how many followed once in FAILURES_TOLD_EVERY_S: a log must not be filled by who has
    no token.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._untold = 0
        self._last_peer = ""
        self._window: asyncio.TimerHandle | None = None

    def count(self, peer: str) -> None:
        self._untold += 1
        self._last_peer = peer
        if self._window is None:
            self._tell()

    def _tell(self) -> None:
        self._window = None
        if not self._untold:
            return
        message = f"{self._untold} requests to the node API without the rig's token, the last from {self._last_peer}"
        self._say("api-authentication-failed", message, count=self._untold, peer=self._last_peer)
        self._untold = 0
        self._window = asyncio.get_running_loop().call_later(FAILURES_TOLD_EVERY_S, self._tell)


def _error_response(error: ApiError) -> Response:
    return Response(status=error.status, body={"code": error.code, "message": error.message}, headers=error.headers)
