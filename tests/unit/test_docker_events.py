"""The engine's event stream, against a stand-in for the engine that remembers its last events as the real one does."""

import asyncio
import contextlib
import json
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import EngineUnanswered
from harness.live import docker_events
from harness.live.docker_events import EventStream
from harness.ports import EngineEvent, EventGap

LIMIT_S = 5.0
MEMORY = 256
LABELS = {"io.blackstart.rig": "r"}
OTHERS = {"io.blackstart.rig": "another"}


class Engine:
    """Answers /events and /_ping on a Unix socket. `stalled`: connections are taken, nothing is said."""

    def __init__(self) -> None:
        self.memory: list[Any] = []
        self.streams: list[tuple[asyncio.StreamWriter, Any]] = []
        self.connections = 0
        self.stalled = False
        self._writers: list[asyncio.StreamWriter] = []
        self._serial = 0

    def happen(self, action: str, labels: dict[str, str] = LABELS, *, told: bool = True, **further: str) -> None:
        """An event; `told` is False for one that is lost on the way to those who listen."""
        self._serial += 1
        actor = {"ID": "c" * 64, "Attributes": {**labels, **further}}
        event = {"Type": "container", "Action": action, "Actor": actor, "timeNano": time.time_ns() + self._serial}
        self.memory = [*self.memory, event][-MEMORY:]
        for writer, filters in self.streams:
            if told and wanted(event, filters):
                send(writer, event)

    def drop_streams(self) -> None:
        for writer, _ in self.streams:
            writer.close()
        self.streams = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        if self.stalled:
            return
        path, _, query_text = request.split(" ")[1].partition("?")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if path == "/_ping":
            return
        query = dict(urllib.parse.parse_qsl(query_text))
        filters = json.loads(query.get("filters", "{}"))
        seconds, nanoseconds = query["since"].split(".")
        since_ns = int(seconds) * 10**9 + int(nanoseconds)
        for event in self.memory:
            if event["timeNano"] >= since_ns and wanted(event, filters):
                send(writer, event)
        if "until" in query:
            writer.write(b"0\r\n\r\n")
            return
        self.connections += 1
        self.streams.append((writer, filters))

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


def wanted(event: Any, filters: Any) -> bool:
    attributes = event["Actor"]["Attributes"]
    return all(
        f"{name}={value}" in [f"{n}={v}" for n, v in attributes.items()]
        for name, _, value in (label.partition("=") for label in filters.get("label", []))
    )


def send(writer: asyncio.StreamWriter, event: Any) -> None:
    """One event in two chunks, because nothing promises that it is one."""
    text = json.dumps(event).encode() + b"\n"
    for part in (text[:20], text[20:]):
        writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")


@contextlib.asynccontextmanager
async def engine_at(path: Path) -> AsyncIterator[Engine]:
    engine = Engine()
    server = await asyncio.start_unix_server(engine.serve, str(path))
    try:
        yield engine
    finally:
        engine.close()
        server.close()


@contextlib.asynccontextmanager
async def stream_of(path: Path) -> AsyncIterator[EventStream]:
    stream = EventStream(str(path), labels=LABELS)
    try:
        yield stream
    finally:
        await stream.aclose()


async def actions(stream: EventStream, count: int) -> list[str]:
    found = [await anext(stream) for _ in range(count)]
    return ["gap" if isinstance(entry, EventGap) else entry.action for entry in found]


def run(scenario: Awaitable[Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(LIMIT_S):
            try:
                return await scenario
            finally:
                await asyncio.sleep(0.01)

    return asyncio.run(limited())


def test_event_tells_who_what_and_how_it_ended(tmp_path: Path) -> None:
    async def scenario() -> EngineEvent | EventGap:
        async with engine_at(tmp_path / "e") as engine, stream_of(tmp_path / "e") as stream:
            engine.happen("die", exitCode="137")
            return await anext(stream)

    event = run(scenario())

    assert isinstance(event, EngineEvent)
    assert (event.action, event.exit_code, event.signal, event.container) == ("die", 137, None, "c" * 64)
    assert LABELS.items() <= event.labels.items()


def test_what_happened_before_the_first_look_but_after_the_making_is_not_lost(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        async with engine_at(tmp_path / "e") as engine:
            engine.happen("create")
            await asyncio.sleep(0.001)
            async with stream_of(tmp_path / "e") as stream:
                engine.happen("start")
                engine.happen("start", OTHERS)
                engine.happen("die")
                return await actions(stream, 2)

    assert run(scenario()) == ["start", "die"]


def test_broken_connection_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        async with engine_at(tmp_path / "e") as engine, stream_of(tmp_path / "e") as stream:
            engine.happen("start")
            seen = await actions(stream, 1)
            engine.drop_streams()
            engine.happen("kill", signal="15")
            engine.happen("die")
            seen += await actions(stream, 2)
            engine.happen("stop")
            return seen + await actions(stream, 1)

    assert run(scenario()) == ["start", "kill", "die", "stop"]


def test_gap_is_told_when_the_engine_has_forgotten_what_was_in_between(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        async with engine_at(tmp_path / "e") as engine, stream_of(tmp_path / "e") as stream:
            engine.happen("start")
            seen = await actions(stream, 1)
            engine.drop_streams()
            engine.happen("die")
            for _ in range(MEMORY):
                engine.happen("top", OTHERS)
            engine.happen("start")
            return seen + await actions(stream, 2)

    assert run(scenario()) == ["start", "gap", "start"]


def test_gap_is_told_after_a_restart_of_the_engine(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        async with engine_at(tmp_path / "e") as engine, stream_of(tmp_path / "e") as stream:
            engine.happen("start")
            seen = await actions(stream, 1)
            engine.memory = []
            engine.drop_streams()
            return seen + await actions(stream, 1)

    assert run(scenario()) == ["start", "gap"]


def test_silent_engine_that_was_stalled_is_asked_for_what_was_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_events, "SILENCE_S", 0.05)
    monkeypatch.setattr(docker_events, "PING_LIMIT_S", 0.05)

    async def scenario() -> list[str]:
        async with engine_at(tmp_path / "e") as engine, stream_of(tmp_path / "e") as stream:
            engine.happen("start")
            seen = await actions(stream, 1)
            reading = asyncio.ensure_future(actions(stream, 1))
            engine.stalled = True
            await asyncio.sleep(0.2)
            engine.happen("die", told=False)
            engine.stalled = False
            return seen + await reading

    assert run(scenario()) == ["start", "die"]


def test_silent_engine_that_answers_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_events, "SILENCE_S", 0.02)

    async def scenario() -> int:
        async with engine_at(tmp_path / "e") as engine, stream_of(tmp_path / "e") as stream:
            reading = asyncio.ensure_future(actions(stream, 1))
            await asyncio.sleep(0.2)
            engine.happen("start")
            assert await reading == ["start"]
            return engine.connections

    assert run(scenario()) == 1


def test_first_connection_may_fail(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stream_of(tmp_path / "nobody") as stream:
            await anext(stream)

    with pytest.raises(EngineUnanswered, match="nobody"):
        run(scenario())
