"""The simulated engine when it hangs."""

import random

import pytest

from harness.model import labels as label
from harness.simulation.kernel.runtime import VirtualClock
from harness.simulation.twins.engine import SimulatedEngine

SECOND = 1_000_000


@pytest.mark.parametrize("stall_us", [0, 5 * SECOND])
def test_what_becomes_due_while_the_engine_hangs_is_carried_out_at_its_end(stall_us: int) -> None:
    clock = VirtualClock()
    engine = SimulatedEngine(clock, random.Random(1))
    up: list[int] = []
    engine.on_node_up.append(lambda _node: up.append(clock.now_us))
    engine.add_node("node1", {label.RIG: "r"})

    engine.start_node("node1")
    engine.stall(stall_us)
    clock.run_until(10 * SECOND)

    assert len(up) == 1
    assert stall_us <= up[0] <= stall_us + SECOND
