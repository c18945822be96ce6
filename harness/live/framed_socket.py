"""Frames over Unix sockets on asyncio: how the processes of one node talk to each other.

Files, never abstract names: guests share the node's network namespace, and an abstract name would be theirs too. Who
is at the other end is asked of the kernel (SO_PEERCRED); whoever is not a process of the node gets nothing. What the
messages mean is not said here.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from harness.wire import FrameDecoder, FrameError, encode_frame

__all__ = ["NODE_GROUP", "NODE_USERS", "FramedConnection", "StrangerError", "connect_frames", "serve_frames"]

NODE_USERS = frozenset({0, *range(899, 904)})
"""The administrator, PID 1, and the processes of a node (docs/design/0001-seams.md)."""
NODE_GROUP = 910
SOCKET_MODE = 0o660
UNSENT_LIMIT_BYTES = 4 << 20
"""Four of the largest frames: a peer that leaves more than that unread is hung, and must not take this process's
memory with it.
"""
READ_BYTES = 1 << 16
_CREDENTIALS = struct.Struct("3i")


class StrangerError(OSError):
    """The other end runs under a user that is none of the node's."""


class FramedConnection:
    """One connection: `send` never waits, `async for` gives the messages until the connection ends, for whatever
    reason; `ended` says which.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = FrameDecoder()
        self._messages: deque[dict[str, Any]] = deque()
        self.ended = ""

    @property
    def peer_user(self) -> int:
        """The user under which the other end runs, as the kernel says. Raises OSError when the socket is gone."""
        link = self._writer.get_extra_info("socket")
        if link is None:
            raise ConnectionResetError("the socket is closed")
        _, user, _ = _CREDENTIALS.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return int(user)

    def send(self, message: dict[str, Any]) -> None:
        """Queue one message; what is sent on an ended connection is lost. Raises FrameError for one that is larger
        than a frame may be.
        """
        frame = encode_frame(message)
        if self._writer.is_closing():
            return
        self._writer.write(frame)
        unsent = self._writer.transport.get_write_buffer_size()
        if unsent > UNSENT_LIMIT_BYTES:
            self._end(f"the peer does not read: {unsent} bytes unsent")
            self._writer.transport.abort()

    def close(self) -> None:
        """End the connection, after what was sent has gone out."""
        self._end("closed by this side")
        self._writer.close()

    def __aiter__(self) -> "FramedConnection":
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._messages:
            try:
                data = await self._reader.read(READ_BYTES)
            except OSError as error:
                self._end(f"the connection broke: {error}")
                raise StopAsyncIteration from error
            if not data:
                self._end("closed by the peer")
                self._writer.close()
                raise StopAsyncIteration
            try:
                self._messages.extend(self._decoder.feed(data))
            except FrameError as error:
                self._end(f"the peer does not speak frames: {error}")
                self._writer.transport.abort()
                raise StopAsyncIteration from error
        return self._messages.popleft()

    def _end(self, reason: str) -> None:
        self.ended = self.ended or reason


async def serve_frames(
    path: Path,
    handler: Callable[[FramedConnection], Awaitable[None]],
    *,
    users: frozenset[int] = NODE_USERS,
    group: int = NODE_GROUP,
) -> asyncio.Server:
    """Listen at `path`, in place of whatever file is there; `handler` runs as a task for each connection, which is
    closed when it returns.

    A connection of a user that is not in `users` is closed at once. An exception of `handler` goes to the loop's
    exception handler. Raises OSError when the place cannot be bound.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = FramedConnection(reader, writer)
        try:
            _check_peer(connection, users)
            await handler(connection)
        except StrangerError as error:
            _tell(f"refused a connection at {path}", error)
        except Exception as error:  # noqa: BLE001 - the root of a connection's task
            _tell(f"a connection at {path} failed", error)
        finally:
            connection.close()

    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        # Nobody can connect before it listens, so the file is never open to more than it shall be.
        os.chown(path, -1, group)
        os.chmod(path, SOCKET_MODE)
        listener.setblocking(False)
        return await asyncio.start_unix_server(connected, sock=listener)
    except BaseException:
        listener.close()
        raise


async def connect_frames(path: Path, *, users: frozenset[int] = NODE_USERS) -> FramedConnection:
    """A connection to whoever listens at `path`. Raises OSError when nobody does, or a user that is not in `users`."""
    connection = FramedConnection(*await asyncio.open_unix_connection(str(path)))
    try:
        _check_peer(connection, users)
    except OSError:
        connection.close()
        raise
    return connection


def _check_peer(connection: FramedConnection, users: frozenset[int]) -> None:
    user = connection.peer_user
    if user not in users:
        raise StrangerError(f"the other end runs as user {user}, which is none of {', '.join(map(str, sorted(users)))}")


def _tell(message: str, error: Exception) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and the process with it
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
