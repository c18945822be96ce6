"""The engine's adapter against an engine that says nothing: what is given up, what is never sent, and what that is
called.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from harness.errors import EngineError, EngineUnanswered
from harness.live import docker_engine
from harness.live.docker_engine import THREADS, DockerEngine, parse_time_ns
from harness.live.runtime import boot_time_us

LIMIT_S = 10.0
CONTAINER = "c" * 64


class SilentEngine:
    """Takes requests and answers none; keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.requests.append(request.split("\r\n", 1)[0])

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()


@contextlib.asynccontextmanager
async def silent_engine(path: Path) -> AsyncIterator[SilentEngine]:
    engine = SilentEngine()
    server = await asyncio.start_unix_server(engine.serve, str(path))
    try:
        yield engine
    finally:
        engine.hang_up()
        server.close()
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def adapter_of(path: Path) -> Any:
    adapter = DockerEngine(socket=str(path))
    try:
        yield adapter
    finally:
        adapter.close()


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_engine, "CALL_LIMIT_S", 0.3)


def run(scenario: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(LIMIT_S):
            return await scenario

    return asyncio.run(limited())


def test_call_that_is_not_answered_in_time_may_still_happen(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with silent_engine(tmp_path / "e"):
            with adapter_of(tmp_path / "e") as adapter:
                await adapter.start(CONTAINER)

    with pytest.raises(EngineUnanswered, match="start cccccccccccc: no answer after"):
        run(scenario())


def test_connection_that_breaks_before_the_answer_is_no_refusal(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        async with silent_engine(tmp_path / "e") as engine:
            with adapter_of(tmp_path / "e") as adapter:
                call = asyncio.ensure_future(adapter.start(CONTAINER))
                while not engine.requests:
                    await asyncio.sleep(0.005)
                engine.hang_up()
                with pytest.raises(EngineUnanswered):
                    await call
                await asyncio.sleep(0.1)
                return engine.requests

    assert run(scenario()) == [f"POST /v1.41/containers/{CONTAINER}/start HTTP/1.1"], "sent once, never again"


def test_an_engine_that_is_too_new_is_asked_again_in_its_oldest_language(tmp_path: Path) -> None:
    requests: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
                requests.append(request.split(" ")[1])
                if "/v1.41/" in request:
                    said = b'{"message":"client version 1.41 is too old. Minimum supported API version is 1.44, do"}'
                    head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(said)}\r\n"
                else:
                    said, head = b"", "HTTP/1.1 204 No Content\r\n"
                writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + said)
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_unix_server(serve, str(tmp_path / "e"))
        with adapter_of(tmp_path / "e") as adapter:
            await adapter.start(CONTAINER)
            await adapter.kill(CONTAINER)
        server.close()
        await asyncio.sleep(0.01)

    run(scenario())

    assert requests == [
        f"/v1.41/containers/{CONTAINER}/start",
        f"/v1.44/containers/{CONTAINER}/start",
        f"/v1.44/containers/{CONTAINER}/kill?signal=9",
    ]


NOBODY_THERE = """
import asyncio, sys
from harness.errors import EngineError, EngineUnanswered
from harness.live.docker_engine import DockerEngine
async def ask():
    try:
        await DockerEngine(socket=sys.argv[1]).containers(labels={})
    except EngineUnanswered as error:
        print(error)
asyncio.run(ask())
"""


def test_engine_that_is_not_there_is_unanswered(tmp_path: Path) -> None:
    # In a process of its own: the SDK leaves a socket that could not connect to the collector, and pytest would tell.
    command = [sys.executable, "-c", NOBODY_THERE, str(tmp_path / "nobody")]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S).stdout

    assert told.startswith("list containers: no answer after")
    assert "No such file" in told


def test_call_that_waits_in_vain_for_a_thread_is_never_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        async with silent_engine(tmp_path / "e") as engine:
            monkeypatch.setattr(docker_engine, "CALL_LIMIT_S", 1.0)
            with adapter_of(tmp_path / "e") as adapter:
                monkeypatch.setattr(docker_engine, "CALL_LIMIT_S", 0.2)
                first = [asyncio.ensure_future(adapter.kill(f"{number:064x}")) for number in range(THREADS)]
                while len(engine.requests) < THREADS:
                    await asyncio.sleep(0.005)
                late = asyncio.ensure_future(adapter.start(CONTAINER))
                outcomes = await asyncio.gather(*first, late, return_exceptions=True)
                await asyncio.sleep(1.0)  # by now every thread is free again
                return [str(outcome) for outcome in outcomes], engine.requests

    outcomes, requests = run(scenario())

    assert "not sent" in outcomes[-1]
    assert len(requests) == THREADS
    assert not any("start" in request for request in requests)


def test_call_that_waits_long_is_sent_as_long_as_others_are_answered(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(0.15)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async def scenario() -> float:
        server = await asyncio.start_unix_server(serve, str(tmp_path / "e"))
        began_s = asyncio.get_running_loop().time()
        with adapter_of(tmp_path / "e") as adapter:
            await asyncio.gather(*(adapter.kill(f"{number:064x}") for number in range(4 * THREADS)))
        took_s = asyncio.get_running_loop().time() - began_s
        server.close()
        await asyncio.sleep(0.01)
        return took_s

    assert run(scenario()) > docker_engine.CALL_LIMIT_S


def test_start_that_has_waited_for_too_long_is_not_sent(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        async with silent_engine(tmp_path / "e") as engine:
            with adapter_of(tmp_path / "e") as adapter:
                with pytest.raises(EngineError, match="start cccccccccccc: not sent: its time has passed"):
                    await adapter.start(CONTAINER, not_after_us=boot_time_us() - 1)
                return engine.requests

    assert run(scenario()) == []


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T02:00:00.25+02:00", 250_000_000),
        ("2025-11-22T17:32:24.638265405Z", 1_763_832_744_638_265_405),
    ],
)
def test_engine_times_keep_their_nanoseconds(text: str, ns: int) -> None:
    assert parse_time_ns(text) == ns


def test_something_else_is_no_time() -> None:
    with pytest.raises(ValueError, match="yesterday"):
        parse_time_ns("yesterday")
