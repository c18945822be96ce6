"""Frames between processes, over real sockets of a temporary directory: who is let in, what arrives, who is dropped."""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from harness.live import framed_socket
from harness.live.framed_socket import FramedConnection, StrangerError, connect_frames, serve_frames

ME = frozenset({os.getuid()})
NOBODY_HERE = frozenset({os.getuid() + 1})
LIMIT_S = 5.0


async def listen(
    place: Path, handler: Callable[[FramedConnection], Awaitable[None]], *, users: frozenset[int] = ME
) -> asyncio.Server:
    return await serve_frames(place, handler, users=users, group=os.getgid())


@contextlib.asynccontextmanager
async def connect(place: Path, *, users: frozenset[int] = ME) -> AsyncIterator[FramedConnection]:
    connection = await connect_frames(place, users=users)
    try:
        yield connection
    finally:
        connection.close()


async def echo(connection: FramedConnection) -> None:
    async for message in connection:
        connection.send({"echo": message})


def run(scenario: Awaitable[Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(LIMIT_S):
            try:
                return await scenario
            finally:
                # The listener side of a connection ends after the caller; a missing end shall fail the test.
                await asyncio.sleep(0.01)
                while len(asyncio.all_tasks()) > 1:
                    await asyncio.sleep(0.01)

    return asyncio.run(limited())


def test_messages_arrive_whole_and_in_order(tmp_path: Path) -> None:
    async def scenario() -> list[Any]:
        async with await listen(tmp_path / "s", echo), connect(tmp_path / "s") as connection:
            for number in range(3):
                connection.send({"number": number, "padding": "x" * 200_000})
            return [(await anext(connection))["echo"]["number"] for _ in range(3)]

    assert run(scenario()) == [0, 1, 2]


def test_socket_is_open_to_user_and_group_only(tmp_path: Path) -> None:
    async def scenario() -> os.stat_result:
        async with await listen(tmp_path / "s", echo):
            return os.stat(tmp_path / "s")

    found = run(scenario())

    assert stat.S_IMODE(found.st_mode) == 0o660
    assert found.st_gid == os.getgid()


def test_listener_takes_the_place_of_a_stale_file(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("left by a process that was killed")

    async def scenario() -> Any:
        async with await listen(tmp_path / "s", echo), connect(tmp_path / "s") as connection:
            connection.send({"n": 1})
            return await anext(connection)

    assert run(scenario()) == {"echo": {"n": 1}}


def test_listener_gives_a_stranger_nothing(tmp_path: Path) -> None:
    heard: list[Any] = []

    async def hear(connection: FramedConnection) -> None:
        heard.extend([message async for message in connection])

    async def scenario() -> list[Any]:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context["exception"]))
        place = tmp_path / "s"
        async with await listen(place, hear, users=NOBODY_HERE), connect(place) as connection:
            connection.send({"secret": 1})
            return [message async for message in connection]

    assert run(scenario()) == []
    assert [type(entry) for entry in heard] == [StrangerError]


def test_caller_does_not_talk_to_a_stranger(tmp_path: Path) -> None:
    heard: list[Any] = []
    ended = asyncio.Event()

    async def hear(connection: FramedConnection) -> None:
        heard.extend([message async for message in connection])
        ended.set()

    async def scenario() -> None:
        async with await listen(tmp_path / "s", hear):
            with pytest.raises(StrangerError):
                await connect_frames(tmp_path / "s", users=NOBODY_HERE)
            await ended.wait()

    run(scenario())

    assert heard == []


def test_peer_that_does_not_speak_frames_is_dropped_and_others_are_not(tmp_path: Path) -> None:
    ends: list[str] = []

    async def note_end(connection: FramedConnection) -> None:
        await echo(connection)
        ends.append(connection.ended)

    async def scenario() -> Any:
        async with await listen(tmp_path / "s", note_end), connect(tmp_path / "s") as good:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):  # how the end looks is the kernel's choice
                assert await reader.read() == b""
            writer.close()
            good.send({"n": 1})
            return await anext(good)

    assert run(scenario()) == {"echo": {"n": 1}}
    assert "does not speak frames" in ends[0]


def test_peer_that_does_not_read_is_dropped_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framed_socket, "UNSENT_LIMIT_BYTES", 100_000)
    ends: list[tuple[int, str]] = []

    async def flood(connection: FramedConnection) -> None:
        sent = 0
        while not connection.ended and sent < 100:
            connection.send({"padding": "x" * 50_000})
            sent += 1
        ends.append((sent, connection.ended))

    async def scenario() -> None:
        async with await listen(tmp_path / "s", flood):
            _, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            while not ends:
                await asyncio.sleep(0.01)
            writer.close()

    run(scenario())
    sent, ended = ends[0]

    assert sent < 100
    assert "does not read" in ended


def test_what_was_sent_before_the_end_still_arrives(tmp_path: Path) -> None:
    async def answer_and_leave(connection: FramedConnection) -> None:
        connection.send({"last": "x" * 500_000})

    async def scenario() -> tuple[list[Any], str]:
        place = tmp_path / "s"
        async with await listen(place, answer_and_leave), connect(place) as connection:
            return [message async for message in connection], connection.ended

    messages, ended = run(scenario())

    assert len(messages) == 1
    assert ended == "closed by the peer"


def test_failure_of_a_handler_is_told_and_ends_only_its_connection(tmp_path: Path) -> None:
    told: list[Any] = []

    async def fail(connection: FramedConnection) -> None:
        async for message in connection:
            if "bad" in message:
                raise ValueError("a message from another version")
            connection.send(message)

    async def scenario() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
        place = tmp_path / "s"
        async with await listen(place, fail), connect(place) as bad, connect(place) as good:
            bad.send({"bad": 1})
            assert [message async for message in bad] == []
            good.send({"n": 1})
            return await anext(good)

    assert run(scenario()) == {"n": 1}
    assert [type(error) for error in told] == [ValueError]
