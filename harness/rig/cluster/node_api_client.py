"""The node API as this side of a rig reaches it: the port that the engine publishes, the token from the secrets volume.

The port is another one after each start of a node, so it is asked for anew each time, and never remembered. The token
is remembered as long as it is accepted. Calls block; each has a limit. Safe for several threads.

| the way | then, within the same limit |
|---|---|
| takes no connection | the next way (`node_api_ways`): certainly nothing was done |
| takes one and gives no answer | that is the answer; the next call to this life of the node begins with the next way |
| answers | the later calls begin with it; a note says so once when it is not the published port |
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import docker
import requests
from requests.adapters import HTTPAdapter

from harness.errors import ApiUnanswered, ApiUnreachable, HarnessError, RequestRefused, WaitTimeout
from harness.live.node_api_endpoints import API_PORT, API_VERSION
from harness.model import labels
from harness.rig.cluster.node_api_transport import ANSWER_LIMIT_BYTES, Address, Way, exchange_inside, has_address
from harness.rig.cluster.secret_files import DIRECTORY, TOKEN_FILE
from harness.rig.engine.archive_file import read_file
from harness.rig.engine.connection import engine_call

__all__ = ["Address", "ApiReply", "NodeApiClient", "addresses_of"]

TOKEN_LIMIT_BYTES = 65536
CONNECT_LIMIT_S = 2.0
BRIDGE_CONNECT_LIMIT_S = 0.5
"""To a container's address, over a bridge of this host: nobody is there when it takes longer, and it costs a look."""
CONNECTIONS_KEPT = 16
_PART_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiReply:
    """What a node answered: the status and the JSON object, and the way on which it did."""

    node: str
    status: int
    body: Mapping[str, Any]
    way: Way = Way.PUBLISHED

    @property
    def code(self) -> str:
        """The stable word of an answer to a request or of an error; empty for a look."""
        return str(self.body.get("code", ""))

    @property
    def message(self) -> str:
        """The sentence for a person."""
        return str(self.body.get("message", f"HTTP status {self.status}"))


def addresses_of(containers: Iterable[Mapping[str, Any]]) -> dict[str, Address]:
    """From the engine's list of containers: the nodes whose API can be reached on some way now, by name."""
    found = {}
    for container in containers:
        node = container["Labels"].get(labels.NODE, "")
        published = [port for port in container.get("Ports") or () if port.get("PrivatePort") == API_PORT]
        host, number = next(((str(p["IP"]), int(p["PublicPort"])) for p in published if p.get("PublicPort")), ("", 0))
        networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
        network: Mapping[str, Any] = next((net for net in networks.values() if net.get("IPAddress")), {})
        if number or container.get("Id"):
            found[node] = Address(
                node=node,
                host=host,
                port=number,
                container=str(container.get("Id", "")),
                inner=str(network.get("IPAddress", "")),
                gateway=str(network.get("Gateway") or ""),
            )
    return found


class NodeApiClient:
    """The APIs of one rig's nodes."""

    def __init__(self, client: docker.DockerClient, *, rig: str, note: Callable[[str], None] | None = None) -> None:
        """Nothing is asked yet. `note` gets a sentence, once a node, when another way than the published port serves;
        it is called on the thread of the call.
        """
        self.note = note
        self._client = client
        self._rig = rig
        self._token = ""
        self._kept = _session()
        self._first: dict[tuple[str, int], Way] = {}
        self._noted: set[tuple[str, Way]] = set()

    def close(self) -> None:
        """Ends the connections."""
        self._kept.close()

    def get(self, address: Address, path: str, *, limit_s: float) -> ApiReply:
        """Look at `path`, such as `snapshot`. Raises ApiUnanswered, RequestRefused for a name that the node does not
        know, EngineError when the token cannot be read.
        """
        try:
            reply = self._authorized(self._kept, "GET", address, path, None, limit_s)
        except ApiUnanswered:
            # A connection that was kept may be of the node's last life. To look twice is harmless.
            with _session() as session:
                reply = self._authorized(session, "GET", address, path, None, limit_s)
        if reply.status != 200:
            raise RequestRefused(reply.message, code=reply.code)
        return reply

    def post(self, address: Address, path: str, body: Mapping[str, str | bool], *, limit_s: float) -> ApiReply:
        """Ask for something, once; whatever is answered is returned. Not carried out after `limit_s`, however late the
        node gets to it. Raises ApiUnreachable, ApiUnanswered, EngineError.
        """
        with _session() as session:
            return self._authorized(session, "POST", address, path, body, limit_s)

    def _authorized(
        self,
        session: requests.Session,
        method: str,
        address: Address,
        path: str,
        body: Mapping[str, str | bool] | None,
        limit_s: float,
    ) -> ApiReply:
        """A rig that was made anew under the same name has another token: it is read again, once."""
        for _ in range(2):
            self._token = token = self._token or self._read_token()
            reply = self._on_some_way(session, method, address, path, body, limit_s, token)
            if reply.status != 401:
                return reply
            self._token = ""
        raise HarnessError(f"{address.node} does not accept the token of rig {self._rig}: {reply.message}")

    def _on_some_way(
        self,
        session: requests.Session,
        method: str,
        address: Address,
        path: str,
        body: Mapping[str, str | bool] | None,
        limit_s: float,
        token: str,
    ) -> ApiReply:
        """On the first way that takes a connection, all ways together within `limit_s`."""
        end_s, life = time.monotonic() + limit_s, (address.node, address.port)
        headers = {"Authorization": f"Bearer {token}", "Blackstart-Not-After": f"{time.time() + limit_s:.3f}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        ways, closed = self._ways(address), list[str]()
        for way in ways:
            left_s = end_s - time.monotonic()
            if closed and left_s <= 0:
                break
            request = _Request(method=method, path=path, headers=headers, body=body, limit_s=left_s)
            try:
                reply = self._exchange(session, way, address, request)
            except ApiUnreachable as error:
                closed.append(str(error))
                continue
            except ApiUnanswered as error:
                # A connection that was kept and broke off says nothing of the way: it may be of the node's last life.
                if session is not self._kept or isinstance(error.__cause__, (requests.Timeout, WaitTimeout)):
                    others = [other for other in ways if other is not Way.PUBLISHED]
                    self._first[life] = others[0] if way is Way.PUBLISHED and others else Way.PUBLISHED
                raise
            self._tell(address.node, way, closed)
            if way is not Way.COMMAND:
                # A command starts an interpreter in the node: it stays the last way where another may serve again.
                self._first[life] = way
            return reply
        raise ApiUnreachable("; ".join(closed) or f"the API of {address.node} is reached on no way from here")

    def _ways(self, address: Address) -> list[Way]:
        """Those that exist for this node, the one that should be tried first at the front."""
        exist = {
            Way.PUBLISHED: bool(address.port),
            Way.ADDRESS: bool(address.inner) and has_address(address.gateway),
            Way.COMMAND: bool(address.container),
        }
        first = self._first.get((address.node, address.port), Way.PUBLISHED)
        return sorted((way for way in exist if exist[way]), key=lambda way: way is not first)

    def _tell(self, node: str, way: Way, closed: list[str]) -> None:
        if way is Way.PUBLISHED or (node, way) in self._noted or self.note is None:
            return
        self._noted.add((node, way))
        why = "; ".join(closed) or "the way before it gave no answer"
        self.note(f"the API of {node} is reached through {way}: {why}")

    def _exchange(self, session: requests.Session, way: Way, address: Address, request: "_Request") -> ApiReply:
        if way is Way.COMMAND:
            status, found = exchange_inside(
                self._client,
                address,
                request.method,
                f"/v{API_VERSION}/{request.path}",
                headers=request.headers,
                body=request.content,
                limit_s=request.limit_s,
            )
            return ApiReply(node=address.node, status=status, body=found, way=way)
        published, limit_s = way is Way.PUBLISHED, request.limit_s
        host, port = (address.host, address.port) if published else (address.inner, address.inner_port)
        connect_s = CONNECT_LIMIT_S if published else BRIDGE_CONNECT_LIMIT_S
        where = f"the API of {address.node} at {host}:{port}"
        try:
            with session.request(
                request.method,
                f"http://{host}:{port}/v{API_VERSION}/{request.path}",
                headers=request.headers,
                data=request.content,
                timeout=(min(connect_s, limit_s), limit_s),
                allow_redirects=False,
                stream=True,
            ) as response:
                return ApiReply(
                    node=address.node, status=response.status_code, body=_object(response, limit_s), way=way
                )
        except requests.ConnectTimeout as error:
            raise ApiUnreachable(f"{where} takes no connection") from error
        except requests.Timeout as error:
            raise ApiUnanswered(f"{where} gave no answer within {limit_s:.3g} s") from error
        except requests.ConnectionError as error:
            kind = ApiUnreachable if _refused(error) else ApiUnanswered
            raise kind(f"{where} {'takes no connection' if kind is ApiUnreachable else 'broke off'}") from error
        except (requests.RequestException, ValueError, OSError) as error:
            raise ApiUnanswered(f"{where} answers, but not as a node does: {error}") from error

    def _read_token(self) -> str:
        filters = {"label": [f"{labels.RIG}={self._rig}", f"{labels.ROLE}={labels.Role.NODE}"]}
        with engine_call(f"list the nodes of rig {self._rig}"):
            nodes = [str(found["Id"]) for found in self._client.api.containers(all=True, filters=filters)]
        path = f"{DIRECTORY}/{TOKEN_FILE}"
        return read_file(self._client, nodes, path, limit_bytes=TOKEN_LIMIT_BYTES).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One request, the same on every way. `limit_s` is left of the caller's limit."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, str | bool] | None
    limit_s: float

    @property
    def content(self) -> str | None:
        """The body as it is sent."""
        return None if self.body is None else json.dumps(self.body)


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # neither proxies nor a .netrc may come between
    session.mount("http://", HTTPAdapter(pool_connections=CONNECTIONS_KEPT, pool_maxsize=CONNECTIONS_KEPT))
    return session


def _object(response: requests.Response, limit_s: float) -> dict[str, Any]:
    """The answer's JSON object. Raises ValueError for anything else, TimeoutError when it only trickles."""
    end = time.monotonic() + limit_s
    data = b""
    for part in response.iter_content(_PART_BYTES):
        data += part
        if len(data) > ANSWER_LIMIT_BYTES:
            raise ValueError(f"more than {ANSWER_LIMIT_BYTES} bytes")
        if time.monotonic() > end:
            raise TimeoutError(f"not complete within {limit_s:g} s")
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _refused(error: BaseException) -> bool:
    """Whether there was no connection at all; requests and urllib3 wrap the reason."""
    reason: BaseException | None = error
    while reason is not None:
        if isinstance(reason, ConnectionRefusedError):
            return True
        reason = reason.__context__
    return False
