"""The runtime on asyncio keeps what the port promises and asyncio by itself does not."""

import asyncio

import pytest

from harness.live.runtime import AsyncioRuntime
from harness.ports import DeadlinePassed

SECOND_US = 1_000_000


def no_failure(task: str, error: BaseException) -> None:
    raise AssertionError(f"{task}: {error!r}")


def test_result_outlives_the_cancellation_of_one_of_its_waiters() -> None:
    async def scenario() -> str:
        runtime = AsyncioRuntime(on_failure=no_failure)
        result = runtime.pending()
        heard = runtime.pending()

        async def wait() -> None:
            heard.set_result(await result)

        async def wait_a_moment() -> None:
            await result

        runtime.spawn(wait(), name="patient")
        with pytest.raises(DeadlinePassed):
            await runtime.within(10_000, wait_a_moment())
        assert not result.done()
        result.set_result("for the other one")
        return str(await heard)

    assert asyncio.run(scenario()) == "for the other one"


def test_time_out_of_the_awaited_thing_itself_is_not_the_deadline() -> None:
    async def own_time_out() -> None:
        raise TimeoutError("a socket's")

    async def scenario() -> None:
        await AsyncioRuntime(on_failure=no_failure).within(SECOND_US, own_time_out())

    with pytest.raises(TimeoutError, match="a socket's"):
        asyncio.run(scenario())


def test_deadline_cancels_what_was_awaited() -> None:
    ends: list[str] = []

    async def endless(runtime: AsyncioRuntime) -> None:
        try:
            await runtime.sleep(3600 * SECOND_US)
        finally:
            ends.append("cancelled")

    async def scenario() -> None:
        runtime = AsyncioRuntime(on_failure=no_failure)
        await runtime.within(10_000, endless(runtime))

    with pytest.raises(DeadlinePassed):
        asyncio.run(scenario())
    assert ends == ["cancelled"]


def test_failed_task_is_told_and_a_cancelled_one_is_not() -> None:
    told: list[tuple[str, str]] = []

    async def fail() -> None:
        raise KeyError("defect")

    async def scenario() -> None:
        runtime = AsyncioRuntime(on_failure=lambda task, error: told.append((task, repr(error))))
        runtime.spawn(runtime.sleep(SECOND_US), name="cancelled").cancel()
        runtime.spawn(fail(), name="failing")
        await runtime.sleep(10_000)

    asyncio.run(scenario())

    assert told == [("failing", "KeyError('defect')")]
