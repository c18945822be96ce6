"""Virtual time, and a process on it, for the tests of whatever runs on them."""

import pytest

from harness.simulation.kernel.runtime import SimulatedRuntime, SimulatedTask, VirtualClock


def _failed(task: SimulatedTask, error: Exception) -> None:
    raise AssertionError(task.name) from error


@pytest.fixture
def clock() -> VirtualClock:
    """At its beginning."""
    return VirtualClock()


@pytest.fixture
def runtime(clock: VirtualClock) -> SimulatedRuntime:
    """A process on that clock; a task of it that fails fails the test."""
    return SimulatedRuntime(clock, on_error=_failed)
