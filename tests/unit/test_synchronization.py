"""Mutex, Signal and all_of on virtual time, with waiters that are cancelled at every point."""

import pytest

from harness.simulation.kernel.runtime import SimulatedRuntime, SimulatedTask, VirtualClock
from harness.synchronization import Mutex, Signal, all_of

MS = 1_000


def test_mutex_lets_one_in_at_a_time_in_order(clock: VirtualClock, runtime: SimulatedRuntime) -> None:
    mutex, order = Mutex(runtime), []

    async def work(name: str) -> None:
        async with mutex:
            order.append(f"{name} in")
            await runtime.sleep(MS)
            order.append(f"{name} out")

    for name in "abc":
        runtime.spawn(work(name), name=name)
    clock.run_until(10 * MS)

    assert order == ["a in", "a out", "b in", "b out", "c in", "c out"]


@pytest.mark.parametrize("cancel_at_us", [0, MS // 2, MS, MS + 1, MS + MS // 2])
def test_mutex_survives_the_cancellation_of_a_waiter(
    clock: VirtualClock, runtime: SimulatedRuntime, cancel_at_us: int
) -> None:
    mutex, done = Mutex(runtime), []

    async def work(name: str) -> None:
        async with mutex:
            await runtime.sleep(MS)
            done.append(name)

    runtime.spawn(work("a"), name="a")
    waiter = runtime.spawn(work("b"), name="b")
    runtime.spawn(work("c"), name="c")
    clock.at(cancel_at_us, waiter.cancel)
    clock.run_until(10 * MS)

    assert done[0] == "a"
    assert done[-1] == "c"


def test_mutex_is_handed_on_by_a_waiter_that_is_cancelled_when_its_turn_has_come(
    clock: VirtualClock, runtime: SimulatedRuntime
) -> None:
    mutex, done = Mutex(runtime), []
    tasks: list[SimulatedTask] = []

    async def holder() -> None:
        async with mutex:
            await runtime.sleep(MS)
        tasks[0].cancel()  # its turn has been given, and it has not run yet

    async def waiter(name: str) -> None:
        async with mutex:
            done.append(name)

    runtime.spawn(holder(), name="holder")
    tasks.append(runtime.spawn(waiter("cancelled"), name="cancelled"))
    runtime.spawn(waiter("next"), name="next")
    clock.run_until(10 * MS)

    assert done == ["next"]


def test_signal_is_not_lost_between_look_and_wait(clock: VirtualClock, runtime: SimulatedRuntime) -> None:
    signal, facts, seen = Signal(runtime), [], []

    async def tell() -> None:
        facts.append(1)
        signal.notify()

    async def wait() -> None:
        runtime.spawn(tell(), name="tell")
        seen.append(await signal.wait_until(lambda: bool(facts), limit_us=MS))

    runtime.spawn(wait(), name="wait")
    clock.run_until(MS // 2)

    assert seen == [True]


def test_signal_gives_up_at_its_limit(clock: VirtualClock, runtime: SimulatedRuntime) -> None:
    signal, seen = Signal(runtime), []

    async def wait() -> None:
        seen.append((await signal.wait_until(lambda: False, limit_us=MS), runtime.now()))

    runtime.spawn(wait(), name="wait")
    clock.run_until(10 * MS)

    assert seen == [(False, MS)]


def test_all_of_waits_for_all_and_collects_their_errors(clock: VirtualClock, runtime: SimulatedRuntime) -> None:
    seen: list[str] = []

    async def work(duration_us: int, error: str = "") -> None:
        await runtime.sleep(duration_us)
        if error:
            raise ValueError(error)

    async def gather() -> None:
        errors = await all_of(runtime, [work(3 * MS, "late"), work(5 * MS), work(MS, "early")], name="work")
        seen.append(f"{runtime.now()}: {', '.join(map(str, errors))}")

    runtime.spawn(gather(), name="gather")
    clock.run_until(10 * MS)

    assert seen == ["5000: late, early"]
