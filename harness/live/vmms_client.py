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

from harness.errors import EngineUnanswered
from harness.live.framed_socket import NODE_USERS, FramedConnection, connect_frames
from harness.model.vm import VmNotice
from harness.vmms.remote import NOTICES_CALL, RemoteHypervisor, call_message, notice_in, result_in

__all__ = ["VMMS_SOCKET", "VmmsClient"]

VMMS_SOCKET = Path("/run/blackstart/vmms.sock")
CONNECT_WAIT_S = 1.0
"""How long a call waits for a VMMS that is being restarted, before it gives up unsent: PID 1 restarts it within half a
second.
"""
RECONNECT_FIRST_S, MAX_RECONNECT_PAUSE_S = 0.05, 1.0


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

    async def notices(self) -> AsyncIterator[VmNotice]:
        """Every VM as it is, then every change, over a connection of its own. Raises EngineUnanswered when it
        ends: then ask again.
        """
        try:
            connection = await connect_frames(self._path, users=self._users)
        except OSError as error:
            raise EngineUnanswered(f"notices of VMs: VMMS cannot be reached at {self._path}: {error}") from error
        try:
            connection.send(call_message(1, NOTICES_CALL, {}))
            async for message in connection:
                if "notice" in message:
                    yield notice_in(message)
        finally:
            connection.close()
        raise EngineUnanswered(f"notices of VMs: the connection to VMMS ended: {connection.ended}")

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
                connection.send(call_message(number, call, arguments))
                message = await answer
        except TimeoutError as error:
            raise EngineUnanswered(f"{call}: VMMS has not answered within {limit_s:g} s") from error
        except ConnectionResetError as error:
            raise EngineUnanswered(f"{call}: the connection to VMMS ended before it answered: {error}") from error
        finally:
            self._unanswered.pop(number, None)
        return result_in(call, message)

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
            wait=tenacity.wait_random_exponential(multiplier=RECONNECT_FIRST_S, max=MAX_RECONNECT_PAUSE_S),
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
