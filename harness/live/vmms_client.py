"""The `Hypervisor` port for the other processes of a node: VMMS's socket, connected again whenever VMMS was restarted.

It does not know the container engine and imports nothing of it: the service and the resource host shall start fast
and stay small. A lost answer is EngineUnanswered, always: what was asked for may have happened, or may still happen.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any

import tenacity

from harness.errors import EngineError, EngineUnanswered, NoSuchContainer
from harness.live.framed_socket import NODE_USERS, FramedConnection, connect_frames
from harness.model.machine import MachineNotice
from harness.model.plain import from_plain, to_plain
from harness.ports import OrderRefused
from harness.vmms.remote import CALLS, RemoteHypervisor

__all__ = ["ERRORS", "NOTICES_CALL", "VMMS_SOCKET", "VmmsClient"]

VMMS_SOCKET = Path("/run/blackstart/vmms.sock")
NOTICES_CALL = "notices"
CONNECT_WAIT_S = 1.0
"""How long a call waits for a VMMS that is being restarted, before it gives up unsent: PID 1 restarts it within half a
second.
"""
RECONNECT_FIRST_S, RECONNECT_LAST_S = 0.05, 1.0

ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (EngineError, EngineUnanswered, NoSuchContainer, OrderRefused)
}
"""What VMMS raises, by the name that travels."""


class VmmsClient(RemoteHypervisor):
    """Use it as `async with VmmsClient() as hypervisor`. Safe for any number of concurrent calls and subscriptions."""

    def __init__(self, *, path: Path = VMMS_SOCKET, users: frozenset[int] = NODE_USERS) -> None:
        """`users` are those under which VMMS may run."""
        self._path = path
        self._users = users
        self._numbers = itertools.count(1)
        self._unanswered: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._connected = asyncio.Event()
        self._connection: FramedConnection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._last_seen = "no connection yet"

    async def __aenter__(self) -> "VmmsClient":
        self._keeper = asyncio.create_task(self._stay_connected(), name="connection to VMMS")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    async def notices(self) -> AsyncIterator[MachineNotice]:
        """Every machine as it is, then every change, over a connection of its own. Raises EngineUnanswered when it
        ends: then ask again.
        """
        try:
            connection = await connect_frames(self._path, users=self._users)
        except OSError as error:
            raise EngineUnanswered(f"notices of machines: VMMS cannot be reached at {self._path}: {error}") from error
        try:
            connection.send({"id": 1, "call": NOTICES_CALL, "arguments": {}})
            async for message in connection:
                if "notice" in message:
                    yield from_plain(MachineNotice, message["notice"])
        finally:
            connection.close()
        raise EngineUnanswered(f"notices of machines: the connection to VMMS ended: {connection.ended}")

    async def _call(self, call: str, arguments: dict[str, Any], limit_us: int) -> Any:
        limit_s = limit_us / 1e6
        number = next(self._numbers)
        try:
            async with asyncio.timeout(min(limit_s, CONNECT_WAIT_S)):
                await self._connected.wait()
        except TimeoutError as error:
            raise EngineUnanswered(f"{call}: VMMS cannot be reached at {self._path}: {self._last_seen}") from error
        connection = self._connection
        if connection is None:
            raise EngineUnanswered(f"{call}: the connection to VMMS has just been lost")
        answer = self._unanswered[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(limit_s):
                connection.send({"id": number, "call": call, "arguments": to_plain(arguments)})
                message = await answer
        except TimeoutError as error:
            raise EngineUnanswered(f"{call}: VMMS has not answered within {limit_s:g} s") from error
        except ConnectionResetError as error:
            raise EngineUnanswered(f"{call}: the connection to VMMS ended before it answered: {error}") from error
        finally:
            self._unanswered.pop(number, None)
        return _result(call, message)

    # The connection.

    async def _stay_connected(self) -> None:
        while True:
            connection = await self._connect()
            self._connection = connection
            self._connected.set()
            try:
                async for message in connection:
                    self._heard(message)
            finally:
                self._connected.clear()
                self._connection = None
                connection.close()
                self._last_seen = connection.ended
                self._lose_answers(connection.ended)
            # A listener that closes every connection at once must not be asked without a pause.
            await asyncio.sleep(RECONNECT_FIRST_S)

    async def _connect(self) -> FramedConnection:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(OSError),
            wait=tenacity.wait_random_exponential(multiplier=RECONNECT_FIRST_S, max=RECONNECT_LAST_S),
        ):
            with attempt:
                try:
                    return await connect_frames(self._path, users=self._users)
                except OSError as error:
                    self._last_seen = str(error)
                    raise
        raise AssertionError("retrying without a stop ended")

    def _heard(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        waiting = self._unanswered.get(number) if isinstance(number, int) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def _lose_answers(self, reason: str) -> None:
        for waiting in self._unanswered.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError(reason))


def _result(call: str, message: dict[str, Any]) -> Any:
    if "error" in message:
        error = message["error"]
        raise ERRORS.get(error["kind"], EngineError)(error["text"])
    hint = CALLS[call]["return"]
    if hint is None:
        return None
    try:
        return from_plain(hint, message.get("result"))
    except ValueError as error:
        raise EngineUnanswered(f"{call}: VMMS answered something else than was asked for: {error}") from error
