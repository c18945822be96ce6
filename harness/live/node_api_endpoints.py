"""The endpoints of the node API: which there are, what each takes, and what its answer looks like. Pure, no sockets.

A request becomes a `Read` of what the node knows, or a `Call` of the cluster service; anything else an `ApiError` that
says what is wrong and what is expected. The table is in docs/node-api.md.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import harness

__all__ = [
    "API_PORT",
    "API_VERSION",
    "ApiError",
    "Call",
    "Endpoint",
    "EndpointAnswer",
    "Read",
    "Response",
    "answer_response",
    "find_endpoint",
    "parse_arguments",
    "read_response",
]

API_PORT = 7637
"""In the node's container; the engine publishes it on 127.0.0.1, on another port at each start."""
API_VERSION = 1
PREFIX = f"v{API_VERSION}"

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")

_STATUS_OF_CODE = {
    "done": 200,
    "no-such": 404,
    "refused": 409,
    "not-owner": 421,
    "no-quorum": 503,
    "unknown": 504,
}


class EndpointAnswer(Protocol):
    """What the cluster service answers to a call: a code, a sentence, and plain JSON values."""

    @property
    def code(self) -> str: ...

    @property
    def message(self) -> str: ...

    @property
    def result(self) -> Mapping[str, Any]: ...


class ApiError(Exception):
    """A request that gets no further: its status, a stable code for programs, a sentence for people."""

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A status and plain JSON values."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A look at what this node knows: one part of its snapshot, and in it one `name`, or all when that is empty."""

    part: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of the cluster service. `subject` is the argument that the path gives; `accepts` are those of the body,
    each with the values that it may have: a tuple of words, `bool`, or `str` for a name.
    """

    call: str
    subject: Mapping[str, str] = field(default_factory=dict)
    accepts: Mapping[str, type | tuple[str, ...]] = field(default_factory=dict)


Endpoint = Read | Call

_VERBS: dict[tuple[str, str], Call] = {
    ("groups", "online"): Call(call="group.online"),
    ("groups", "offline"): Call(call="group.offline"),
    ("groups", "move"): Call(call="group.move", accepts={"target": str}),
    ("resources", "online"): Call(call="resource.online"),
    ("resources", "offline"): Call(call="resource.offline"),
    ("resources", "fail"): Call(call="resource.fail"),
    ("nodes", "pause"): Call(call="node.pause", accepts={"drain": bool}),
    ("nodes", "resume"): Call(call="node.resume", accepts={"failback": ("none", "immediate", "policy")}),
}
_SUBJECTS = {"groups": "group", "resources": "resource", "nodes": "node"}


def find_endpoint(method: str, target: str) -> Endpoint:
    """The endpoint of a request line. Raises ApiError 400, 404, or 405 with the methods that the path has."""
    if not target.startswith("/"):
        raise ApiError(400, "malformed", f"the target is not a path; a path such as /{PREFIX}/snapshot is expected")
    if "?" in target or "#" in target:
        raise ApiError(400, "malformed", "no path takes a query; arguments go into the body as JSON")
    allowed, endpoint = _endpoint_of(target)
    if method != allowed:
        raise ApiError(
            405, "wrong-method", f"{target} takes {allowed}, not {method}", headers={"Allow": allowed}
        )
    return endpoint


def _endpoint_of(target: str) -> tuple[str, Endpoint]:
    """The method and the endpoint of a path."""
    match target.split("/")[1:]:
        case [version, "snapshot" | "version" as part] if version == PREFIX:
            return "GET", Read(part=part)
        case [version, "quorum"] if version == PREFIX:
            return "GET", Call(call="quorum.show")
        case [version, "groups" | "nodes" as part] if version == PREFIX:
            return "GET", Read(part=part)
        case [version, "groups" | "resources" | "nodes" as part, name] if version == PREFIX and _NAME.fullmatch(name):
            return "GET", Read(part=part, name=name)
        case [version, part, name, verb] if version == PREFIX and (part, verb) in _VERBS and _NAME.fullmatch(name):
            known = _VERBS[part, verb]
            subject = {_SUBJECTS[part]: name}
            return "POST", Call(call=known.call, subject=subject, accepts=known.accepts)
    raise ApiError(404, "no-such-path", f"there is no such path; docs/node-api.md lists those below /{PREFIX}/")


def parse_arguments(call: Call, content_type: str, body: bytes) -> dict[str, str | bool]:
    """The arguments of a call, from path and body. Raises ApiError 400 or 415."""
    return {**_arguments_of_body(call, content_type, body), **call.subject}


def _arguments_of_body(call: Call, content_type: str, body: bytes) -> dict[str, str | bool]:
    if not body:
        return {}
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "not-json", "a body is JSON, with the header `Content-Type: application/json`")
    try:
        document = json.loads(body, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "malformed", f"the body is not JSON: {error or type(error).__name__}") from error
    if not isinstance(document, dict):
        raise ApiError(400, "malformed", f"the body is no JSON object; expected is {_form(call)}")
    for key, value in document.items():
        if key not in call.accepts:
            raise ApiError(400, "malformed", f"{call.call} takes no {key!r}; expected is {_form(call)}")
        if not _fits(value, call.accepts[key]):
            raise ApiError(400, "malformed", f"{key} has a value that it cannot have; expected is {_form(call)}")
    return document


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is given twice")
    return made


def _fits(value: Any, wanted: type | tuple[str, ...]) -> bool:
    if isinstance(wanted, tuple):
        return isinstance(value, str) and value in wanted
    if wanted is str:
        return isinstance(value, str) and _NAME.fullmatch(value) is not None
    return isinstance(value, wanted)


def _form(call: Call) -> str:
    """What a body may be, for messages."""
    if not call.accepts:
        return "no body, or {}"
    words = {bool: "true|false", str: "NAME"}
    values = (
        f'"{key}": {"|".join(wanted) if isinstance(wanted, tuple) else words[wanted]}'
        for key, wanted in call.accepts.items()
    )
    return f"{{{', '.join(values)}}}"


def read_response(read: Read, snapshot: Mapping[str, Any]) -> Response:
    """One part of a node's snapshot. Raises ApiError 404 for a name that the node does not know."""
    match read.part:
        case "snapshot":
            return Response(status=200, body=snapshot)
        case "version":
            about = {key: snapshot[key] for key in ("rig", "node", "session")}
            return Response(status=200, body={"api": API_VERSION, "blackstart": harness.__version__, **about})
        case "resources":
            found = [
                {**resource, "group": group["name"], "owner": group["owner"]}
                for group in snapshot["groups"]
                for resource in group["resources"]
            ]
        case _:
            found = list(snapshot[read.part])
    if not read.name:
        return Response(status=200, body={read.part: found})
    for entry in found:
        if entry["name"] == read.name:
            return Response(status=200, body=entry)
    kind = _SUBJECTS[read.part]
    elsewhere = "" if snapshot.get("watches_all", True) else "; it watches a part of the groups only: ask another node"
    raise ApiError(404, "no-such", f"{snapshot['node']} knows no {kind} {read.name!r}{elsewhere}")


def answer_response(answer: EndpointAnswer) -> Response:
    """What the service answered, as it goes out. An answer whose code has no status is a defect: 500."""
    status = _STATUS_OF_CODE.get(str(answer.code), 500)
    body: dict[str, Any] = {"code": str(answer.code), "message": answer.message}
    if "owner" in answer.result:
        body["owner"] = answer.result["owner"]
    if status == 200:
        body["result"] = dict(answer.result)
    return Response(status=status, body=body)
