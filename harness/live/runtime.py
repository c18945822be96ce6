"""The `Runtime` port on asyncio, and the boot-time clock.

Clock, tasks and waits only. The boot-time clock counts the time for which the VM was suspended; asyncio's own
timers do not, so a wait may last longer than asked on that clock, never shorter.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from harness.ports import DeadlinePassed

__all__ = ["AsyncioRuntime", "boot_time_us"]

T = TypeVar("T")


def boot_time_us() -> int:
    """Microseconds of CLOCK_BOOTTIME, which goes on through a suspend."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class AsyncioRuntime:
    """Made on a running loop and used on it only. Keeps its tasks, because the loop holds them weakly."""

    def __init__(self, *, on_failure: Callable[[str, BaseException], None]) -> None:
        """`on_failure` gets the name of a task that failed, and what it raised: nobody awaits such a task, so this is
        where its process must end.
        """
        self._loop = asyncio.get_running_loop()
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[None]] = set()

    def now(self) -> int:
        """Microseconds of CLOCK_BOOTTIME."""
        return boot_time_us()

    def spawn(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start a coroutine; its failure is told to `on_failure`."""
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def pending(self) -> "_Result[Any]":
        """A result to be set once."""
        return _Result(self._loop)

    async def sleep(self, duration_us: int) -> None:
        """Wait for `duration_us` microseconds."""
        await asyncio.sleep(duration_us / 1e6)

    async def within(self, limit_us: int, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; cancels it and raises DeadlinePassed when it takes longer than `limit_us`."""
        try:
            async with asyncio.timeout(limit_us / 1e6) as limit:
                return await coroutine
        except TimeoutError as error:
            if limit.expired():
                raise DeadlinePassed(f"nothing within {limit_us / 1e6:g} s") from error
            raise  # the coroutine's own

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._on_failure(task.get_name(), error)


class _Result(Generic[T]):
    """A future that outlives the cancellation of whoever awaits it: asyncio's own is cancelled together with its first
    waiter.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[T] = loop.create_future()

    def __await__(self) -> Generator[Any, Any, T]:
        return asyncio.shield(self._future).__await__()

    def done(self) -> bool:
        return self._future.done()

    def set_result(self, value: T, /) -> None:
        self._future.set_result(value)

    def set_exception(self, error: BaseException, /) -> None:
        self._future.set_exception(error)
