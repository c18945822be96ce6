"""The node API as this side of a rig reaches it: the port that the engine publishes, the token from the secrets volume.

The port is another one after each start of a node, so it is asked for anew each time, and never remembered. The token
is remembered as long as it is accepted. Calls block; each has a limit. Safe for several threads.
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import docker
import requests
from requests.adapters import HTTPAdapter

from harness.errors import ApiUnanswered, ApiUnreachable, HarnessError, RequestRefused
from harness.live.node_api_endpoints import API_PORT, API_VERSION
from harness.model import labels
from harness.rig.container_file import read_file
from harness.rig.engine import engine_call
from harness.rig.secret_files import DIRECTORY, TOKEN_FILE

__all__ = ["Address", "NodeApiClient", "Reply", "addresses_of"]

ANSWER_LIMIT_BYTES = 16 << 20
"""A snapshot has half a kilobyte for each resource."""
TOKEN_LIMIT_BYTES = 65536
CONNECT_LIMIT_S = 2.0
CONNECTIONS_KEPT = 16
_PART_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a node's API is reached from here now."""

    node: str
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a node answered: the status and the JSON object."""

    node: str
    status: int
    body: Mapping[str, Any]

    @property
    def code(self) -> str:
        """The stable word of an answer to a request or of an error; empty for a look."""
        return str(self.body.get("code", ""))

    @property
    def message(self) -> str:
        """The sentence for a person."""
        return str(self.body.get("message", f"HTTP status {self.status}"))


def addresses_of(containers: Iterable[Mapping[str, Any]]) -> dict[str, Address]:
    """From the engine's list of containers: the nodes whose API is published now, by name."""
    found = {}
    for container in containers:
        node = container["Labels"].get(labels.NODE, "")
        for port in container.get("Ports") or ():
            if port.get("PrivatePort") == API_PORT and port.get("PublicPort"):
                found[node] = Address(node=node, host=str(port["IP"]), port=int(port["PublicPort"]))
    return found


class NodeApiClient:
    """The APIs of one rig's nodes."""

    def __init__(self, client: docker.DockerClient, *, rig: str) -> None:
        """Nothing is asked yet."""
        self._client = client
        self._rig = rig
        self._token = ""
        self._kept = _session()

    def close(self) -> None:
        """Ends the connections."""
        self._kept.close()

    def get(self, address: Address, path: str, *, limit_s: float) -> Reply:
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

    def post(self, address: Address, path: str, body: Mapping[str, str | bool], *, limit_s: float) -> Reply:
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
    ) -> Reply:
        """A rig that was made anew under the same name has another token: it is read again, once."""
        for _ in range(2):
            self._token = token = self._token or self._read_token()
            reply = self._exchange(session, method, address, path, body, limit_s, token)
            if reply.status != 401:
                return reply
            self._token = ""
        raise HarnessError(f"{address.node} does not accept the token of rig {self._rig}: {reply.message}")

    def _exchange(
        self,
        session: requests.Session,
        method: str,
        address: Address,
        path: str,
        body: Mapping[str, str | bool] | None,
        limit_s: float,
        token: str,
    ) -> Reply:
        headers = {"Authorization": f"Bearer {token}", "Blackstart-Not-After": f"{time.time() + limit_s:.3f}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        where = f"the API of {address.node} at {address.host}:{address.port}"
        try:
            with session.request(
                method,
                f"http://{address.host}:{address.port}/v{API_VERSION}/{path}",
                headers=headers,
                data=None if body is None else json.dumps(body),
                timeout=(min(CONNECT_LIMIT_S, limit_s), limit_s),
                allow_redirects=False,
                stream=True,
            ) as response:
                return Reply(node=address.node, status=response.status_code, body=_object(response, limit_s))
        except requests.ConnectTimeout as error:
            raise ApiUnreachable(f"{where} takes no connection") from error
        except requests.Timeout as error:
            raise ApiUnanswered(f"{where} gave no answer within {limit_s:g} s") from error
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
