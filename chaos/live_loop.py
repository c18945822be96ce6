"""The loop on which runs are driven in real time, and the signals that ask them to stop."""

import asyncio
import signal as signals
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from chaos.interrupt import Interrupt
from harness.errors import HarnessError
from harness.live.runtime import AsyncioRuntime

__all__ = ["drive"]

T = TypeVar("T")


def drive(main: Callable[[AsyncioRuntime, Interrupt], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a loop of its own, with SIGINT and SIGTERM as requests to stop.

    Raises HarnessError when a task that nobody awaits has failed.
    """

    failures: list[str] = []

    async def run() -> T:
        runtime = AsyncioRuntime(on_failure=lambda name, error: failures.append(f"{name}: {error!r}"))
        interrupt = Interrupt(runtime)
        if threading.current_thread() is threading.main_thread():
            for number in (signals.SIGINT, signals.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, interrupt.request, int(number))
        return await main(runtime, interrupt)

    result = asyncio.run(run())
    if failures:
        raise HarnessError(f"a part of the runner failed, so its verdict counts for nothing: {'; '.join(failures)}")
    return result
