"""The connection to a voter's Redis, against a server that says what the test wants, byte by byte."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from harness.live import redis_connection
from harness.live.redis_connection import RedisAnswer, RedisConnection, RedisRefusal, encode_command, open_redis

LIMIT_S = 5.0
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def connection_to(handler: Handler) -> AsyncIterator[RedisConnection]:
    """A connection to a server on a free port of this machine, whose handler has ended afterwards."""
    ended = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)
        writer.close()
        ended.set()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        connection = await open_redis("127.0.0.1", server.sockets[0].getsockname()[1])
        try:
            yield connection
        finally:
            connection.close()
            await ended.wait()
    finally:
        server.close()


def saying(*pieces: bytes) -> Handler:
    """Waits for one command, sends the pieces one packet each, and then waits for the end."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)  # or the pieces travel together
        await reader.read(1 << 16)

    return handler


def run(scenario: Awaitable[Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(LIMIT_S):
            return await scenario

    return asyncio.run(limited())


def answer_to(*pieces: bytes) -> RedisAnswer:
    async def scenario() -> RedisAnswer:
        async with connection_to(saying(*pieces)) as connection:
            return await connection.command("ASK")

    answer: RedisAnswer = run(scenario())
    return answer


def test_a_command_is_an_array_of_byte_strings() -> None:
    assert encode_command(("SET", "käse", "")) == b"*3\r\n$3\r\nSET\r\n$5\r\nk\xc3\xa4se\r\n$0\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"+OK\r\n", "OK"),
        (b":42\r\n", 42),
        (b"$5\r\na\r\nbc\r\n", "a\r\nbc"),
        (b"$-1\r\n", None),
        (b"*0\r\n", []),
        (b"*3\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n+b\r\n", ["a", [1, None], "b"]),
    ],
)
def test_every_kind_of_answer_is_read_in_whatever_pieces_it_comes(said: bytes, answer: RedisAnswer) -> None:
    middle = len(said) // 2

    assert answer_to(said) == answer
    assert answer_to(said[:middle], said[middle:]) == answer


def test_an_error_answer_is_raised_and_the_connection_stays() -> None:
    async def scenario() -> tuple[str, RedisAnswer]:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for said in (b"-NOSCRIPT no such script\r\n", b"+PONG\r\n"):
                await reader.read(1 << 16)
                writer.write(said)
            await reader.read(1 << 16)

        async with connection_to(handler) as connection:
            with pytest.raises(RedisRefusal) as refusal:
                await connection.command("EVALSHA")
            return str(refusal.value), await connection.command("PING")

    assert run(scenario()) == ("NOSCRIPT no such script", "PONG")


def test_a_command_that_is_given_up_closes_the_connection() -> None:
    async def scenario() -> bool:
        async with connection_to(saying()) as connection:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await connection.command("ASK")
            with pytest.raises(ConnectionError):
                await connection.command("ASK")
            return connection.is_open

    assert run(scenario()) is False


@pytest.mark.parametrize(
    "said",
    [b"?what\r\n", b"$x\r\n", b"+one\r\n+two\r\n", b"*1\r\n" * (redis_connection.DEPTH_LIMIT + 1) + b":1\r\n"],
)
def test_what_is_no_single_answer_fails_the_command_and_closes_the_connection(said: bytes) -> None:
    async def scenario() -> bool:
        async with connection_to(saying(said)) as connection:
            with pytest.raises(ValueError, match=r".+"):
                await connection.command("ASK")
            return connection.is_open

    assert run(scenario()) is False


def test_an_answer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_connection, "ANSWER_LIMIT_BYTES", 100)

    with pytest.raises(ValueError, match="more than 100 bytes"):
        answer_to(b"$1000\r\n" + b"x" * 200)


def test_a_server_that_ends_fails_the_command_under_way() -> None:
    async def scenario() -> bool:
        async def handler(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read(1 << 16)  # and end

        async with connection_to(handler) as connection:
            with pytest.raises(ConnectionError):
                await connection.command("ASK")
            return connection.is_open

    assert run(scenario()) is False


def test_words_that_nobody_asked_for_close_the_connection() -> None:
    async def scenario() -> bool:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"+late\r\n")
            await reader.read(1 << 16)

        async with connection_to(handler) as connection:
            while connection.is_open:
                await asyncio.sleep(0.005)
            return connection.is_open

    assert run(scenario()) is False
