"""Random schedules against the healthy cluster, and against clusters with one rule weakened."""

import pytest

from harness.model.topology import Fencing
from harness.simulation.plants import PLANTS, Plant
from harness.simulation.plants_of_rules import PLANTS_OF_RULES
from harness.simulation.schedule import Outcome, run_schedule, small_topology

HEALTHY_SEEDS = 400
BLOCK = 50
PLANT_BUDGET = 400
"""Schedules within which each broken cluster must be found."""


def told(outcome: Outcome) -> str:
    plan = "\n".join(str(fault) for fault in outcome.plan)
    tail = "\n".join(str(line) for line in outcome.world.trace[-60:])
    return f"seed {outcome.seed}: {outcome.violations or outcome.unsettled}\n{plan}\n{tail}"


@pytest.mark.parametrize("first", range(0, HEALTHY_SEEDS, BLOCK))
def test_a_healthy_cluster_survives_random_faults(first: int) -> None:
    for seed in range(first, first + BLOCK):
        outcome = run_schedule(seed)

        assert not outcome.broken, told(outcome)


@pytest.mark.parametrize("first", range(0, HEALTHY_SEEDS // 4, BLOCK))
def test_a_healthy_cluster_with_self_fencing_survives_what_it_covers(first: int) -> None:
    for seed in range(first, first + BLOCK):
        outcome = run_schedule(seed, topology=small_topology(fencing=Fencing.SELF))

        assert not outcome.broken, told(outcome)


@pytest.mark.parametrize("plant", [*PLANTS, *PLANTS_OF_RULES], ids=lambda plant: plant.__name__)
def test_the_same_search_finds_each_weakened_rule(plant: type[Plant]) -> None:
    for seed in range(PLANT_BUDGET):
        topology = small_topology(fencing=plant.fencing)
        outcome = run_schedule(seed, topology=topology, composition=plant(), among=plant.among)
        if outcome.violations:
            return

    pytest.fail(f"{plant.__name__} was not found in {PLANT_BUDGET} schedules")


def test_one_seed_gives_one_trace() -> None:
    first, second = run_schedule(7), run_schedule(7)

    assert [str(line) for line in first.world.trace] == [str(line) for line in second.world.trace]
