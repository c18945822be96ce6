"""The engine's event stream, connected anew when it breaks, and honest about what may be lost.

On asyncio, without the SDK, whose reader has no limit and would need a thread of its own. The engine keeps its last
256 events of all kinds: after a break everything since the last event is asked for again, and if the engine still
remembers that event then nothing was lost; else the reader gets an `EventGap` and must list. It never ends by itself;
only the first connection may fail.
"""

import asyncio
import contextlib
import json
import time
import urllib.parse
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from harness.errors import EngineUnanswered
from harness.ports import EngineEvent, EventGap

__all__ = ["EventStream", "engine_event"]

SILENCE_S = 2.0
"""After so long without an event the engine is asked whether it lives."""
PING_LIMIT_S = 1.0
CONNECT_LIMIT_S = 5.0
RECONNECT_FIRST_S = 0.05
MAX_RECONNECT_PAUSE_S = 1.0
OVERLAP_NS = 1_000_000_000
"""Events are not stamped in the order in which they are published, so a little more is asked for again, and what was
seen is dropped.
"""
KEPT_KEYS = 2048
"""Keys of events seen, far more than fit into the overlap."""
CHUNK_LIMIT_BYTES = 1 << 20

_BROKEN = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)
_Key = tuple[int, str, str]


class EventStream:
    """Events from the moment at which it is made, each once, in the engine's order, and `EventGap` where some may be
    missing.
    """

    def __init__(self, socket: str, *, labels: Mapping[str, str]) -> None:
        """`socket` is the path of the engine's; events of containers that carry all `labels` are read. Connects when
        it is first iterated.
        """
        self._socket = socket
        self._filters = {"type": ["container"], "label": [f"{name}={value}" for name, value in labels.items()]}
        self._since_ns = time.time_ns()
        self._last: _Key | None = None
        self._seen: set[_Key] = set()
        self._order: deque[_Key] = deque()
        self._events = self._follow()

    def __aiter__(self) -> AsyncIterator[EngineEvent | EventGap]:
        return self

    async def __anext__(self) -> EngineEvent | EventGap:
        """Raises EngineUnanswered when the first connection fails."""
        return await anext(self._events)

    async def aclose(self) -> None:
        """Disconnect."""
        await self._events.aclose()

    async def _follow(self) -> AsyncGenerator[EngineEvent | EventGap, None]:
        try:
            stream = await self._connect()
        except _BROKEN as error:
            raise EngineUnanswered(f"event stream at {self._socket}: {error or type(error).__name__}") from error
        try:
            while True:
                try:
                    events = [engine_event(raw) for raw in await self._next(stream) if self._is_new(raw)]
                except _BROKEN:
                    stream.close()
                    stream, complete = await self._connect_again()
                    if not complete:
                        yield EventGap()
                    continue
                for event in events:
                    yield event
        finally:
            stream.close()

    async def _next(self, stream: "_Answer") -> list[Any]:
        """What comes next. A silent engine that has not answered, and does again, may have lost this connection: then
        ConnectionError.
        """
        reading = asyncio.ensure_future(stream.read())
        stalled = False
        try:
            while True:
                await asyncio.wait({reading}, timeout=SILENCE_S)
                if reading.done():
                    return reading.result()
                pinging = asyncio.ensure_future(self._ping())
                await asyncio.wait({reading, pinging}, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    pinging.cancel()
                    return reading.result()
                if pinging.result() and stalled:
                    raise ConnectionError("the engine answers again after a stall")
                stalled = not pinging.result()
        finally:
            reading.cancel()

    def _is_new(self, raw: Any) -> bool:
        key = _key(raw)
        if key in self._seen:
            return False
        self._last = key
        self._since_ns = max(self._since_ns, key[0])
        self._seen.add(key)
        self._order.append(key)
        if len(self._order) > KEPT_KEYS:
            self._seen.discard(self._order.popleft())
        return True

    # Connections.

    async def _connect(self) -> "_Answer":
        since_ns = self._since_ns if self._last is None else self._since_ns - OVERLAP_NS
        query = {"filters": json.dumps(self._filters), "since": _stamp(since_ns)}
        # No version in the path: what is read of an event is the same in all, and a new engine refuses an old one.
        return await _Answer.open(self._socket, f"/events?{urllib.parse.urlencode(query)}")

    async def _connect_again(self) -> tuple["_Answer", bool]:
        """A new connection, and whether nothing was lost; tries without end."""
        pause_s = RECONNECT_FIRST_S
        while True:
            stream: _Answer | None = None
            try:
                stream = await self._connect()
                # In this order: what the engine still remembers now it remembered when it began to answer.
                return stream, await self._remembered()
            except BaseException as error:
                if stream is not None:
                    stream.close()
                if not isinstance(error, _BROKEN):
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_RECONNECT_PAUSE_S)

    async def _remembered(self) -> bool:
        """Whether the engine still knows the last event that was read: without one nobody can tell whether it was
        restarted.
        """
        if self._last is None:
            return False
        query = {"since": _stamp(self._since_ns - OVERLAP_NS), "until": _stamp(time.time_ns())}
        async with asyncio.timeout(CONNECT_LIMIT_S):
            replay = await _Answer.open(self._socket, f"/events?{urllib.parse.urlencode(query)}")
            try:
                with contextlib.suppress(EOFError):
                    while not any(_key(raw) == self._last for raw in await replay.read()):
                        pass
                    return True
                return False
            finally:
                replay.close()

    async def _ping(self) -> bool:
        try:
            async with asyncio.timeout(PING_LIMIT_S):
                answer = await _Answer.open(self._socket, "/_ping")
        except _BROKEN:
            return False
        answer.close()
        return True


class _Answer:
    """The engine's answer to one GET: JSON objects, one a line, in chunks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""

    @classmethod
    async def open(cls, socket: str, path: str) -> "_Answer":
        """Ask for `path`; the answer's head has come. Raises what `_BROKEN` names."""
        async with asyncio.timeout(CONNECT_LIMIT_S):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: engine\r\n\r\n".encode())
                await writer.drain()
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                status = head.split("\r\n", 1)[0]
                if status.split(" ")[1:2] != ["200"]:
                    raise ConnectionError(f"GET {path}: the engine answered {status}")
            except BaseException:
                writer.close()
                raise
        return cls(reader, writer)

    async def read(self) -> list[Any]:
        """At least one object. Raises EOFError at the end of the answer."""
        found: list[Any] = []
        while not found:
            size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if size > CHUNK_LIMIT_BYTES:
                raise ValueError(f"the engine announced a chunk of {size} bytes")
            chunk = await self._reader.readexactly(size + 2)
            if size == 0:
                raise EOFError("the engine ended the stream")
            *lines, self._rest = (self._rest + chunk[:-2]).split(b"\n")
            if len(self._rest) > CHUNK_LIMIT_BYTES:
                raise ValueError("the engine sent an event without an end")
            found = [json.loads(line) for line in lines if line.strip()]
        return found

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


def engine_event(raw: Mapping[str, Any]) -> EngineEvent:
    """One event of the engine's stream as a record. Raises ValueError for something else."""
    try:
        attributes: Mapping[str, str] = raw["Actor"].get("Attributes") or {}
        return EngineEvent(
            at_ns=int(raw["timeNano"]),
            container=str(raw["Actor"]["ID"]),
            # "exec_create: COMMAND" and its like are of no use with their command.
            action=str(raw["Action"]).split(":", 1)[0],
            exit_code=_number(attributes.get("exitCode")),
            signal=_number(attributes.get("signal")),
            labels=dict(attributes),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an event: {raw!r}") from error


def _key(raw: Any) -> _Key:
    try:
        return int(raw["timeNano"]), str(raw["Actor"]["ID"]), str(raw["Action"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an event: {raw!r}") from error


def _stamp(at_ns: int) -> str:
    """The engine reads fractions to the nanosecond; a float has not enough digits for them."""
    return f"{at_ns // 10**9}.{at_ns % 10**9:09d}"


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.lstrip("-").isdigit() else None
