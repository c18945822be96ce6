"""The heap of virtual time and the coroutines on it."""

import gc
import weakref
from functools import partial

import pytest

from harness.ports import DeadlinePassed
from harness.simulation.kernel.deferred_gc import collected_later
from harness.simulation.kernel.runtime import SimulatedRuntime, Timer, VirtualClock

SECOND = 1_000_000


def test_what_is_due_at_one_time_runs_in_the_order_in_which_it_was_scheduled(clock: VirtualClock) -> None:
    ran: list[str] = []

    def first() -> None:
        ran.append("first")
        clock.at(5, lambda: ran.append("put there by the first"))
        clock.at(0, lambda: ran.append("late already"))

    clock.at(5, first)
    clock.at(5, lambda: ran.append("second"))
    clock.at(6, lambda: ran.append("later"))
    clock.run_until(10)

    assert ran == ["first", "second", "put there by the first", "late already", "later"]
    assert clock.now_us == 10


def test_a_result_within_its_limit_is_returned(clock: VirtualClock, runtime: SimulatedRuntime) -> None:
    told: list[object] = []

    async def inner() -> str:
        await runtime.sleep(SECOND)
        await runtime.sleep(SECOND)
        return "done"

    async def at_once() -> str:
        return "at once"

    async def root() -> None:
        told.append(await runtime.within(3 * SECOND, inner()))
        told.append(await runtime.within(0, at_once()))
        told.append(clock.now_us)

    runtime.spawn(root(), name="root")
    clock.run_until(10 * SECOND)

    assert told == ["done", "at once", 2 * SECOND]


def test_what_is_late_ends_where_it_waits(clock: VirtualClock, runtime: SimulatedRuntime) -> None:
    told: list[object] = []

    async def inner() -> None:
        try:
            await runtime.within(8 * SECOND, runtime.sleep(9 * SECOND))
        finally:
            told.append("cleaned up")

    async def root() -> None:
        try:
            await runtime.within(2 * SECOND, inner())
        except DeadlinePassed as late:
            told.append(str(late))
        told.append(clock.now_us)
        await runtime.sleep(20 * SECOND)
        told.append("goes on")

    runtime.spawn(root(), name="root")
    clock.run_until(60 * SECOND)

    assert told == ["cleaned up", "nothing within 2 s", 2 * SECOND, "goes on"]


def test_an_error_comes_out_of_it(clock: VirtualClock, runtime: SimulatedRuntime) -> None:
    told: list[str] = []

    async def inner() -> None:
        await runtime.sleep(1)
        raise ValueError("wrong")

    async def root() -> None:
        with pytest.raises(ValueError, match="wrong"):
            await runtime.within(SECOND, inner())
        told.append("heard")

    runtime.spawn(root(), name="root")
    clock.run_until(SECOND)

    assert told == ["heard"]


def test_a_killed_process_ends_what_it_waits_for_within_a_limit(
    clock: VirtualClock, runtime: SimulatedRuntime
) -> None:
    told: list[str] = []

    async def inner() -> None:
        try:
            await runtime.sleep(5 * SECOND)
        finally:
            told.append("cleaned up")

    async def root() -> None:
        await runtime.within(9 * SECOND, inner())
        told.append("never")

    runtime.spawn(root(), name="root")
    clock.run_until(SECOND)
    runtime.kill()
    clock.run_until(60 * SECOND)

    assert told == ["cleaned up"]


def test_a_process_that_was_frozen_beyond_the_limit_is_late(clock: VirtualClock, runtime: SimulatedRuntime) -> None:
    told: list[str] = []

    async def root() -> None:
        try:
            await runtime.within(2 * SECOND, runtime.sleep(SECOND))
        except DeadlinePassed:
            told.append("late")

    runtime.spawn(root(), name="root")
    clock.run_until(SECOND // 2)
    runtime.hold()
    clock.run_until(4 * SECOND)
    runtime.release()
    clock.run_until(5 * SECOND)

    assert told == ["late"]


class Known:
    """Something that a callback knows of."""


def test_a_timer_that_was_called_off_does_nothing_and_keeps_nothing(clock: VirtualClock) -> None:
    ran: list[int] = []
    known = Known()
    there = weakref.ref(known)
    timers = [Timer(partial(lambda number, _known: ran.append(number), number, known)) for number in range(100)]
    for number, timer in enumerate(timers):
        clock.at(1_000 - number, timer)
    del known

    for timer in timers[:98]:
        timer.call_off()
    clock.at(500, lambda: ran.append(500))
    for timer in timers[98:]:
        assert there() is not None
        timer.call_off()
    assert there() is None

    clock.run_until(2_000)
    assert ran == [500]


def test_timers_that_were_called_off_leave_the_heap_and_the_others_their_order(clock: VirtualClock) -> None:
    ran: list[int] = []
    for number in range(1_000):
        kept, dropped = Timer(partial(ran.append, number)), Timer(partial(ran.append, -1))
        clock.at(10_000 + (number * 37) % 1_000, kept if number % 100 == 0 else dropped)
        dropped.call_off()
    assert len(clock._heap) < 100

    clock.run_until(20_000)
    assert ran == sorted(range(0, 1_000, 100), key=lambda number: (number * 37) % 1_000)


def test_a_limit_that_was_kept_leaves_nothing_behind(clock: VirtualClock, runtime: SimulatedRuntime) -> None:
    seen: list[weakref.ref[Known]] = []

    async def inner() -> Known:
        result = Known()
        seen.append(weakref.ref(result))
        await runtime.sleep(SECOND)
        return result

    async def root() -> None:
        for _ in range(200):
            await runtime.within(10_000 * SECOND, inner())

    runtime.spawn(root(), name="root")
    gc.collect()
    with collected_later():
        clock.run_until(1_000 * SECOND)

        assert len(seen) == 200
        assert [there for there in seen if there() is not None] == []
        assert gc.collect() < 100, "what waited keeps what it waited for"
    assert len(clock._heap) < 100
