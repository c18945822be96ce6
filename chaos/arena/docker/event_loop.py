"""The loop on which runs are driven in real time, and the signals that ask them to stop."""

import asyncio
import contextlib
import signal as signals
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from chaos.arena.interrupt import STOP_SIGNALS, Interrupt
from harness.errors import HarnessError
from harness.live.runtime import AsyncioRuntime

__all__ = ["drive"]

T = TypeVar("T")


def drive(main: Callable[[AsyncioRuntime, Interrupt], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a loop of its own, with the `STOP_SIGNALS` as requests to stop.

    A SIGHUP that is ignored (`nohup`) stays ignored. Raises HarnessError when a background task has failed.
    """

    failures: list[str] = []

    async def run() -> T:
        runtime = AsyncioRuntime(on_failure=lambda name, error: failures.append(f"{name}: {error!r}"))
        interrupt = Interrupt(runtime)
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if number != signals.SIGHUP or signals.getsignal(number) is not signals.SIG_IGN:
                    asyncio.get_running_loop().add_signal_handler(number, interrupt.request, int(number))
        return await main(runtime, interrupt)

    with _handlers_kept():
        result = asyncio.run(run())
    if failures:
        raise HarnessError(f"a part of the runner failed, so its verdict counts for nothing: {'; '.join(failures)}")
    return result


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """The loop leaves the default handlers behind, by which a signal would end the process without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signals.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: it was not set from Python
                signals.signal(number, handler)
