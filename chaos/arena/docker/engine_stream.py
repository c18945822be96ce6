"""The engine's event stream as records: connected again when it breaks, and honest about what may be lost.

A reader of its own, not the nodes': a checker that hears the world through the ears of the system under test is deaf to
that system's mistakes. The engine keeps its last 256 events of all kinds. After a break everything since the last event
is asked for again, unfiltered: if the answer begins with that very event and is shorter than the engine's memory,
nothing was lost. Runs in a thread and hands records to a sink.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import docker
import docker.errors
import requests
import urllib3.exceptions

from chaos.arena.reader_thread import ReaderThread
from chaos.history.records import ContainerRole, EngineEventSeen, StreamGap
from harness.model import labels

__all__ = ["EngineStream", "engine_event", "role_of"]

ENGINE_MEMORY = 256
"""How many events dockerd keeps (its `eventsLimit`)."""
RETRY_INTERVAL_S = 0.2

Sink = Callable[[EngineEventSeen | StreamGap], None]

BROKEN = (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)
"""What a stream of the engine raises when it breaks: the client wraps some of it, and not all."""


def role_of(found: Mapping[str, str]) -> ContainerRole:
    """The role that labels give a container."""
    role = found.get(labels.ROLE, "")
    return (
        ContainerRole(role)
        if role in (ContainerRole.NODE, ContainerRole.VM, ContainerRole.CLIENT)
        else ContainerRole.OTHER
    )


def engine_event(raw: Mapping[str, Any]) -> EngineEventSeen:
    """One event of the engine's stream as a record."""
    attributes: Mapping[str, str] = raw.get("Actor", {}).get("Attributes") or {}
    role = role_of(attributes)
    return EngineEventSeen(
        at_ns=int(raw["timeNano"]),
        action=str(raw["Action"]),
        container=str(raw["Actor"]["ID"]),
        role=role,
        node=attributes.get(labels.NODE, ""),
        vm=attributes.get(labels.RESOURCE, "") if role is ContainerRole.VM else "",
        group=attributes.get(labels.GROUP, ""),
        session=attributes.get(labels.SESSION, ""),
        exit_code=_number(attributes.get("exitCode")),
        signal=_number(attributes.get("signal")),
    )


class EngineStream:
    """The events of one rig's containers.

    Invariant: each event reaches the sink once, in the engine's order; a break is told before what follows it.
    """

    def __init__(self, client: docker.DockerClient, *, rig: str, sink: Sink) -> None:
        """`sink` is called on the stream's own thread."""
        self._client = client
        self._rig = rig
        self._sink = sink
        self._since_ns = time.time_ns()
        self._last: tuple[int, str, str] | None = None
        self._seen: set[tuple[int, str, str]] = set()
        self._closed = threading.Event()
        self._stream: Any = None
        self._thread = ReaderThread(self._run, name=f"events of {rig}")

    def open(self) -> None:
        """Connect and begin to read. Raises DockerException when the engine does not answer now."""
        self._stream = self._connect()
        self._thread.begin()

    def close(self) -> None:
        """Stop reading. Waits a little for the thread: what it has read is in the sink then."""
        self._closed.set()
        _close(self._stream)
        self._thread.end()

    def _connect(self) -> Any:
        # The engine answers before it subscribes; asking for what was since an earlier moment closes that gap.
        filters = {"type": "container", "label": f"{labels.RIG}={self._rig}"}
        return self._client.api.events(since=_stamp(self._since_ns), filters=filters, decode=True)

    def _run(self) -> None:
        while not self._closed.is_set():
            reason = "the engine closed the stream"
            try:
                for raw in self._stream:
                    self._take(raw)
            except BROKEN as error:
                reason = str(error) or type(error).__name__
            if not self._closed.is_set():
                self._reconnect(reason)

    def _reconnect(self, reason: str) -> None:
        broke_ns = time.time_ns()
        while not self._closed.wait(RETRY_INTERVAL_S):
            try:
                missed = self._replay()
                self._stream = self._connect()
            except BROKEN as error:
                reason = str(error) or type(error).__name__
                continue
            complete = missed is not None
            self._sink(StreamGap(at_ns=time.time_ns(), since_ns=broke_ns, complete=complete, reason=reason))
            for raw in missed or []:
                self._take(raw)
            return

    def _replay(self) -> list[Any] | None:
        """Our events since the last one that was read; None when the engine has forgotten some of them."""
        found = list(self._client.api.events(since=_stamp(self._since_ns), until=_stamp(time.time_ns()), decode=True))
        keys = {_key(raw) for raw in found if raw.get("Type") == "container"}
        forgotten = len(found) >= ENGINE_MEMORY or (self._last is not None and self._last not in keys)
        mine = [raw for raw in found if (raw.get("Actor", {}).get("Attributes") or {}).get(labels.RIG) == self._rig]
        return None if forgotten else [raw for raw in mine if raw.get("Type") == "container"]

    def _take(self, raw: Any) -> None:
        key = _key(raw)
        if key in self._seen:
            return
        self._seen.add(key)
        self._last = key
        self._since_ns = max(self._since_ns, key[0])
        if not key[2].startswith(("exec_", "top", "archive-path")):
            self._sink(engine_event(raw))


def _key(raw: Any) -> tuple[int, str, str]:
    return int(raw["timeNano"]), str(raw["Actor"]["ID"]), str(raw["Action"])


def _stamp(at_ns: int) -> Any:
    """The engine reads fractions to the nanosecond; a float has not enough digits for them."""
    return f"{at_ns // 10**9}.{at_ns % 10**9:09d}"


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.lstrip("-").isdigit() else None


def _close(stream: Any) -> None:
    if stream is not None:
        try:
            stream.close()
        except BROKEN:
            return  # it is closed already, which is what was wanted
