"""Random schedules against the healthy cluster."""

import pytest

from harness.model.topology import Fencing
from harness.simulation.schedule import Outcome, run_schedule, small_topology

HEALTHY_SEEDS = 400
SELF_FENCED_SEEDS = 300
BLOCK = 50


def told(outcome: Outcome) -> str:
    plan = "\n".join(str(fault) for fault in outcome.plan)
    tail = "\n".join(str(line) for line in outcome.world.trace[-60:])
    return f"seed {outcome.seed}: {outcome.violations or outcome.unsettled}\n{plan}\n{tail}"


@pytest.mark.parametrize("first", range(0, HEALTHY_SEEDS, BLOCK))
def test_a_healthy_cluster_survives_random_faults(first: int) -> None:
    for seed in range(first, first + BLOCK):
        outcome = run_schedule(seed)

        assert not outcome.broken, told(outcome)


@pytest.mark.parametrize("first", range(0, SELF_FENCED_SEEDS, BLOCK))
def test_a_healthy_cluster_with_self_fencing_survives_what_it_covers(first: int) -> None:
    for seed in range(first, first + BLOCK):
        outcome = run_schedule(seed, topology=small_topology(fencing=Fencing.SELF))

        assert not outcome.broken, told(outcome)


def test_one_seed_gives_one_trace() -> None:
    first, second = run_schedule(7), run_schedule(7)

    assert [str(line) for line in first.world.trace] == [str(line) for line in second.world.trace]
