"""What coroutines on the `Runtime` port wait for each other with: a mutex, a signal, and several at once.

asyncio has both, but the same code also runs on a heap of virtual time. Both survive the cancellation of any waiter at
any point, because a simulated process may be killed, and a live call abandoned at its limit, wherever it waits.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, TypeVar

from harness.ports import DeadlinePassed, Pending, Runtime

__all__ = ["Mutex", "Signal", "all_of", "result_of"]

T = TypeVar("T")


class Mutex:
    """First come, first served; use it as `async with mutex:`."""

    __slots__ = ("_held", "_runtime", "_waiting")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._held = False
        self._waiting: deque[Pending[None]] = deque()

    async def __aenter__(self) -> None:
        if not self._held:
            self._held = True
            return
        turn = self._runtime.pending()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn.done():
                self._pass_on()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._held = False


class Signal:
    """Wakes everybody who waits; who waits looks at the facts again, so that a wake-up too many does no harm."""

    __slots__ = ("_next", "_runtime")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._next: Pending[None] | None = None

    def notify(self) -> None:
        """Wake all who wait now."""
        waited, self._next = self._next, None
        if waited is not None and not waited.done():
            waited.set_result(None)

    async def wait(self) -> None:
        """Until the next `notify`."""
        await self._registered()

    def _registered(self) -> Pending[None]:
        if self._next is None or self._next.done():
            self._next = self._runtime.pending()
        return self._next

    async def wait_until(self, holds: Callable[[], bool], *, limit_us: int) -> bool:
        """Until `holds()`, looked at after each `notify`, at most `limit_us` microseconds. Returns whether it holds."""
        end_us = self._runtime.now() + limit_us
        while not holds():
            left_us = end_us - self._runtime.now()
            if left_us <= 0:
                return False
            # Registered before anything else can run: a `notify` between look and wait must not be lost.
            try:
                await self._runtime.within(left_us, result_of(self._registered()))
            except DeadlinePassed:
                return holds()
        return True


async def all_of(runtime: Runtime, coroutines: Iterable[Coroutine[Any, Any, None]], *, name: str) -> list[Exception]:
    """Run them at once and wait for all; returns what they raised, in their order."""
    errors: dict[int, Exception] = {}
    left = 0
    finished = Signal(runtime)

    async def run(index: int, coroutine: Coroutine[Any, Any, None]) -> None:
        nonlocal left
        try:
            await coroutine
        except Exception as error:  # noqa: BLE001 - the root of a task: handed on to the one who waits
            errors[index] = error
        finally:
            left -= 1
            finished.notify()

    for index, coroutine in enumerate(coroutines):
        left += 1
        runtime.spawn(run(index, coroutine), name=f"{name} {index}")
    while left:
        await finished.wait()
    return [errors[index] for index in sorted(errors)]


async def result_of(pending: Pending[T]) -> T:
    """Its result, as a coroutine for whom nothing else will do."""
    return await pending
