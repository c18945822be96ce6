"""The request to stop, as signals make it (SIGINT, SIGTERM, SIGHUP, SIGQUIT).

A signal never cuts through a step: an injection that has begun is finished, so that it can be undone. It ends waits,
and the next step does not begin. A second signal changes nothing: the clean-up goes on, and every part of it has a
limit.
"""

import signal as signals
from collections.abc import Callable
from typing import Any

from harness.ports import Pending, Runtime

__all__ = ["STOP_SIGNALS", "Interrupt", "Interrupted"]

STOP_SIGNALS = (signals.SIGHUP, signals.SIGINT, signals.SIGQUIT, signals.SIGTERM)
"""The signals that ask a command to end: a closed terminal, Ctrl-C, Ctrl-\\, `kill`. SIGKILL asks nothing."""


class Interrupted(Exception):
    """Raised where a run waits, or between two steps, once it has been asked to stop."""


class Interrupt:
    """One run's request to stop. Invariant: the first signal counts; it is never taken back."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._waiting: list[Pending[Any]] = []
        self._listeners: list[Callable[[str], None]] = []
        self.signal: int | None = None
        self.repeats = 0

    def request(self, signal: int) -> None:
        """Ask to stop. Called on the runner's own thread (a handler of its loop)."""
        if self.signal is not None:
            self.repeats += 1
            if self.repeats == 1:
                self._report(f"{self.name}, and a further signal: the clean-up is under way, and each part has a limit")
            return
        self.signal = signal
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._report(f"{self.name}: the run ends here; what it has injected and made is cleaned up first")

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with a sentence at the first request and at the second, and at no further one."""
        self._listeners.append(listener)

    def _report(self, text: str) -> None:
        for listener in self._listeners:
            listener(text)

    @property
    def name(self) -> str:
        """The signal's name, empty if there was none."""
        return signals.Signals(self.signal).name if self.signal is not None else ""

    def check(self) -> None:
        """Raises Interrupted when the run has been asked to stop."""
        if self.signal is not None:
            raise Interrupted(self.name)

    async def sleep(self, duration_us: int) -> None:
        """Wait; raises Interrupted at once when a signal comes, or has come."""
        self.check()
        waiting = self._runtime.pending()
        self._waiting.append(waiting)

        async def ring() -> None:
            await self._runtime.sleep(duration_us)
            if not waiting.done():
                waiting.set_result(None)

        timer = self._runtime.spawn(ring(), name="timer")
        try:
            await waiting
        finally:
            self._waiting.remove(waiting)
            timer.cancel()
        self.check()
