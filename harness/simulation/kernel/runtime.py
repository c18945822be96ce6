"""A heap of virtual time that drives coroutines and callbacks: the simulated twin of asyncio and the boot-time clock.

Deterministic: things that are due at one time run in the order in which they were scheduled, and nothing here
depends on hashes, threads or the wall clock. A coroutine may await only what this module hands out (`pending`,
`sleep`, `within`), or other coroutines.
"""

import inspect
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Any, Generic, Protocol, TypeVar

from harness.ports import DeadlinePassed

__all__ = ["Cancelled", "Clock", "SimulatedRuntime", "SimulatedTask", "Timer", "Unfinished", "VirtualClock"]

T = TypeVar("T")

DONE_KEPT = 16
"""What is done is forgotten when there is more of it than that beside as much that is not."""


class _Ends(Protocol):
    def done(self) -> bool: ...


E = TypeVar("E", bound=_Ends)


class Unfinished(Generic[E]):
    """A list of what may not be done yet; what is gets forgotten now and then."""

    def __init__(self) -> None:
        self._kept: list[E] = []
        self._prune_at = DONE_KEPT

    def add(self, one: E) -> None:
        """One more."""
        self._kept.append(one)
        if len(self._kept) > self._prune_at:
            self._kept = [kept for kept in self._kept if not kept.done()]
            self._prune_at = 2 * len(self._kept) + DONE_KEPT

    def take(self) -> list[E]:
        """All that are in the list, which is empty then. Some may be done."""
        taken, self._kept = self._kept, []
        return taken


class Cancelled(BaseException):
    """Thrown into a coroutine whose task was cancelled, at the point where it waits."""


class Clock(Protocol):
    """What the parts of a node know of time: the world's clock itself, or one that drifts against it."""

    @property
    def now_us(self) -> int: ...

    def at(self, when_us: int, callback: Callable[[], None]) -> None: ...

    def after(self, delay_us: int, callback: Callable[[], None]) -> None: ...


class Timer:
    """A callback for a clock that can be called off: nothing happens then, and what the callback knows is let go of.
    Most limits are called off long before their time.
    """

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def __call__(self) -> None:
        if self.callback is not None:
            self.callback()

    def call_off(self) -> None:
        """It shall not be carried out any more."""
        self.callback = None


class VirtualClock:
    """Time in microseconds and the heap of what is due. Shared by every runtime of one world. `scheduled` counts what
    was ever to be carried out. What is due at once needs no heap: everything on the heap for that time was put there
    before. Timers that were called off leave the heap when it has doubled.
    """

    def __init__(self, *, start_us: int = 0) -> None:
        self.now_us = start_us
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._prune_at = DONE_KEPT
        self._at_once: deque[Callable[[], None]] = deque()
        self.scheduled = 0

    def at(self, when_us: int, callback: Callable[[], None]) -> None:
        """Run `callback` at `when_us`, or as soon as possible if that has passed."""
        self.scheduled += 1
        if when_us > self.now_us:
            heappush(self._heap, (when_us, self.scheduled, callback))
            if len(self._heap) > self._prune_at:
                self._prune()
        else:
            self._at_once.append(callback)

    def _prune(self) -> None:
        heap = self._heap
        heap[:] = [due for due in heap if not (isinstance(due[2], Timer) and due[2].callback is None)]
        heapify(heap)
        self._prune_at = 2 * len(heap) + DONE_KEPT

    def after(self, delay_us: int, callback: Callable[[], None]) -> None:
        """Run `callback` `delay_us` microseconds from now."""
        self.at(self.now_us + delay_us, callback)

    def run_until(self, end_us: int) -> None:
        """Carry out everything that is due up to and including `end_us`, then set the clock there."""
        heap, take = self._heap, heappop
        at_once, next_of_them = self._at_once, self._at_once.popleft
        while True:
            if at_once and (not heap or heap[0][0] > self.now_us):
                next_of_them()()
            elif heap and heap[0][0] <= end_us:
                self.now_us, _, callback = take(heap)
                callback()
            else:
                break
        self.now_us = max(self.now_us, end_us)


class _Result(Generic[T]):
    """A result set once; waiting tasks are resumed through the clock, so that setting it never runs foreign code."""

    __slots__ = ("_clock", "_done", "_error", "_value", "_waiters")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._waiters: list[Callable[[], None]] = []

    def done(self) -> bool:
        return self._done

    def set_result(self, value: T, /) -> None:
        self._value = value
        self._settle()

    def set_exception(self, error: BaseException, /) -> None:
        self._error = error
        self._settle()

    def _settle(self) -> None:
        if self._done:
            raise RuntimeError("a pending result was set twice")
        self._done = True
        for waiter in self._waiters:
            self._clock.at(self._clock.now_us, waiter)
        self._waiters.clear()

    def on_done(self, waiter: Callable[[], None]) -> None:
        if self._done:
            self._clock.at(self._clock.now_us, waiter)
        else:
            self._waiters.append(waiter)

    def forget(self) -> None:
        """Nobody waits for it any more. Who does is known by it and knows it: they would keep each other."""
        self._waiters.clear()

    def __await__(self) -> Generator[Any, Any, T]:
        if not self._done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[no-any-return]


class _Race:
    """Two results, of which the first that is there resumes who waits."""

    __slots__ = ("_one", "_other")

    def __init__(self, one: "_Result[Any] | _Race", other: _Result[Any]) -> None:
        self._one, self._other = one, other

    def on_done(self, waiter: Callable[[], None]) -> None:
        self._one.on_done(waiter)
        self._other.on_done(waiter)


class _Within(Generic[T]):
    """A coroutine that is run inside of the task that waits for it, and ended when it is late."""

    __slots__ = ("_clock", "_coroutine", "_limit_us")

    def __init__(self, clock: Clock, limit_us: int, coroutine: Coroutine[Any, Any, T]) -> None:
        self._clock = clock
        self._limit_us = limit_us
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self._coroutine
        late: _Result[None] = _Result(self._clock)
        limit = Timer(partial(late.set_result, None))
        thrown: BaseException | None = None
        try:
            awaited = inner.send(None)
            self._clock.after(self._limit_us, limit)
            while True:
                try:
                    yield _Race(awaited, late)
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - whatever ends the task is for the coroutine first
                    thrown = error
                if thrown is None and late.done():
                    _end(inner)
                    raise DeadlinePassed(f"nothing within {self._limit_us / 1e6:g} s")
                awaited = inner.send(None) if thrown is None else inner.throw(thrown)
                thrown = None
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            limit.call_off()
            late.forget()


def _end(coroutine: Coroutine[Any, Any, Any]) -> None:
    """End it where it waits; its `finally` blocks run now, and may not wait."""
    try:
        coroutine.throw(Cancelled())
    except (Cancelled, StopIteration):
        return
    coroutine.close()


class SimulatedTask:
    """One coroutine on the heap. `on_error` gets whatever it raises that is not its own cancellation."""

    __slots__ = ("_coroutine", "_finished", "_gate", "_on_error", "_waiting_for", "name")

    def __init__(
        self,
        clock: Clock,
        coroutine: Coroutine[Any, Any, Any],
        *,
        name: str,
        on_error: Callable[["SimulatedTask", Exception], None],
        gate: "_Gate",
    ) -> None:
        self.name = name
        self._gate = gate
        self._coroutine = coroutine
        self._on_error = on_error
        self._finished = False
        self._waiting_for: object | None = None
        clock.at(clock.now_us, partial(self._resume, None))

    def done(self) -> bool:
        """Whether the coroutine has ended, in whatever way."""
        return self._finished

    def cancel(self) -> None:
        """End the coroutine where it waits; its `finally` blocks run now, and may not wait."""
        if self._finished:
            return
        self._finished = True
        self._waiting_for = None
        if inspect.getcoroutinestate(self._coroutine) in (inspect.CORO_RUNNING, inspect.CORO_CLOSED):
            return  # running in this very stack, it ends at its next wait because it is marked finished
        _end(self._coroutine)

    def _resume(self, expected: object | None) -> None:
        if self._finished or self._waiting_for is not expected:
            return
        if self._gate.held:
            self._gate.waiting.append(partial(self._resume, expected))
        else:
            self._step()

    def _step(self) -> None:
        self._waiting_for = None
        try:
            awaited = self._coroutine.send(None)
        except StopIteration:
            self._finished = True
            return
        except Cancelled:
            self._finished = True
            return
        except Exception as error:  # noqa: BLE001 - the root of a task: the world decides what a failure means
            self._finished = True
            self._on_error(self, error)
            return
        if self._finished:
            self._coroutine.close()
            return
        self._wait_for(awaited)

    def _wait_for(self, awaited: object) -> None:
        if not isinstance(awaited, _Result | _Race):
            raise TypeError(f"task {self.name} awaited {awaited!r}, which no port handed out")
        self._waiting_for = awaited
        awaited.on_done(partial(self._resume, awaited))


class _Gate:
    """Whether a process is held, and what shall go on when it is released."""

    def __init__(self) -> None:
        self.held = False
        self.waiting: list[Callable[[], None]] = []


class SimulatedRuntime:
    """The `Runtime` port of one simulated process.

    All its tasks can be ended together, as a kill does, or held, as a hang does: what becomes due meanwhile runs at
    the release.
    """

    def __init__(self, clock: Clock, *, on_error: Callable[[SimulatedTask, Exception], None]) -> None:
        self._gate = _Gate()
        self._clock = clock
        self._on_error = on_error
        self._tasks = Unfinished[SimulatedTask]()

    def now(self) -> int:
        """Microseconds of virtual time."""
        return self._clock.now_us

    def spawn(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> SimulatedTask:
        """Start a coroutine; it first runs when the heap gets to it."""
        task = SimulatedTask(self._clock, coroutine, name=name, on_error=self._on_error, gate=self._gate)
        self._tasks.add(task)
        return task

    def pending(self) -> _Result[Any]:
        """A result to be set once."""
        return _Result(self._clock)

    async def sleep(self, duration_us: int) -> None:
        """Wait for `duration_us` microseconds of virtual time."""
        result: _Result[None] = _Result(self._clock)
        self._clock.after(duration_us, lambda: result.set_result(None))
        await result

    async def within(self, limit_us: int, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; cancels it and raises DeadlinePassed when it takes longer than `limit_us`. It begins
        at once, and needs no task unless it waits for something.
        """
        return await _Within(self._clock, limit_us, coroutine)

    def hold(self) -> None:
        """Freeze the process."""
        self._gate.held = True

    def when_running(self, callback: Callable[[], None]) -> None:
        """Run `callback` now, or at the release of a process that is frozen."""
        if self._gate.held:
            self._gate.waiting.append(callback)
        else:
            callback()

    def release(self) -> None:
        """Let it go on with all that became due meanwhile."""
        self._gate.held = False
        waiting, self._gate.waiting = self._gate.waiting, []
        for resume in waiting:
            self._clock.at(self._clock.now_us, resume)

    def kill(self) -> None:
        """End every task of this process at once."""
        for task in self._tasks.take():
            task.cancel()
