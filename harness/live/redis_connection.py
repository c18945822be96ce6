"""One connection to a Redis server: a command at a time, and its answer or an error. RESP 2, and nothing else of a
client.

A general client does much that must not happen here (retries, pools, health checks, reconnections of its own), and its
import costs a node a third of the time in which its service starts. What a voter is asked needs a hundred lines. An
answer that is not awaited any more ends the connection: it must never be taken for the answer to the next command.
"""

import asyncio
import socket
from typing import Any

__all__ = ["RedisAnswer", "RedisConnection", "RedisRefusal", "open_redis"]

RedisAnswer = str | int | None | list["RedisAnswer"]

ANSWER_LIMIT_BYTES = 16 << 20
"""A server's whole memory for registers is 128 MiB; one register is a few KiB, and an answer holds one."""
DEPTH_LIMIT = 8
_END = b"\r\n"


class RedisRefusal(Exception):
    """The server answered with an error; the connection is still good."""


class RedisConnection(asyncio.Protocol):
    """Made by `open_redis`. Not safe for concurrent commands: the caller takes turns."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[RedisAnswer | RedisRefusal] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a command can be sent; the server may be gone all the same."""
        return self._transport is not None

    async def command(self, *words: str) -> RedisAnswer:
        """The server's answer to one command.

        Raises RedisRefusal for an error answer, ConnectionError when the connection ends first, ValueError for what is
        no RESP. Whatever else ends it, a cancellation too, closes the connection.
        """
        if self._transport is None:
            raise ConnectionResetError("the connection is closed")
        if self._answer is not None:
            raise RuntimeError("a command is under way on this connection")
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(encode_command(words))
            answer = await self._answer
        except BaseException:
            self.close()
            raise
        finally:
            self._answer = None
        if isinstance(answer, RedisRefusal):
            raise answer
        return answer

    def close(self) -> None:
        """End it at once; what was not sent is lost. Harmless twice."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Hand the answer on once it is whole."""
        self._received += data
        try:
            parsed = _parse(self._received, 0, DEPTH_LIMIT)
            if parsed is None:
                if len(self._received) > ANSWER_LIMIT_BYTES:
                    raise ValueError(f"an answer of more than {ANSWER_LIMIT_BYTES} bytes")
                return
            answer, end = parsed
            if self._answer is None or self._answer.done() or end != len(self._received):
                raise ValueError("an answer that nobody has asked for")
        except ValueError as error:
            self._end(error)
            return
        self._received.clear()
        self._answer.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the command under way."""
        self._end(exc or ConnectionResetError("the server closed the connection"))

    def _end(self, error: Exception) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


async def open_redis(host: str, port: int) -> RedisConnection:
    """A connection to that server, unauthenticated. Raises OSError; has no limit of its own."""
    _, connection = await asyncio.get_running_loop().create_connection(RedisConnection, host, port)
    assert connection._transport is not None
    link: socket.socket = connection._transport.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def encode_command(words: tuple[str, ...]) -> bytes:
    """A command as the server reads it: an array of byte strings."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def _parse(data: bytearray, start: int, depth: int) -> tuple[Any, int] | None:
    """The value that begins at `start` and where it ends; None while it is not whole. Raises ValueError."""
    line_end = data.find(_END, start)
    if line_end < 0:
        return None
    kind, text, after = data[start : start + 1], data[start + 1 : line_end].decode(), line_end + 2
    match kind:
        case b"$":
            length = int(text)
            if length < 0:
                return None, after
            end = after + length
            if len(data) < end + 2:
                return None
            return data[after:end].decode(), end + 2
        case b"*":
            if depth == 0:
                raise ValueError("an answer nested too deeply")
            values = []
            for _ in range(int(text)):
                parsed = _parse(data, after, depth - 1)
                if parsed is None:
                    return None
                value, after = parsed
                values.append(value)
            return values, after
        case b"+":
            return text, after
        case b":":
            return int(text), after
        case b"-":
            return RedisRefusal(text), after
    raise ValueError(f"not an answer of Redis: {bytes(data[start : start + 40])!r}")
