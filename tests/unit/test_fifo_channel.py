"""A local socket in the simulator: each direction keeps its order, whatever each message takes."""

import random

from harness.simulation.kernel.fifo_channel import FifoChannel
from harness.simulation.kernel.runtime import VirtualClock


def test_what_was_sent_first_arrives_first() -> None:
    clock, arrived = VirtualClock(), list[int]()
    stream = FifoChannel(clock, random.Random(1))

    for number in range(200):
        clock.at(number * 20, lambda number=number: stream.send(lambda: arrived.append(number)))  # type: ignore[misc]
    clock.run_until(10_000)

    assert arrived == list(range(200))


def test_nothing_arrives_when_it_is_sent() -> None:
    clock, arrived = VirtualClock(), list[int]()

    FifoChannel(clock, random.Random(1)).send(lambda: arrived.append(clock.now_us))
    clock.run_until(1_000)

    assert 80 <= arrived[0] <= 300
