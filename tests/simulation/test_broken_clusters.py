"""Clusters with one rule weakened each: the small schedules that break them, and the search that finds them.

`make search-table` writes the schedules. A change of the core draws other latencies, so each may try a few seeds.
"""

from dataclasses import replace

import pytest

from chaos.search.schedule_file import Schedule, read_schedule
from chaos.search.search import play
from harness.simulation.plants import OwnerIsANode, Plant
from harness.simulation.plants_of_belief import AnswersForAnother, SuspectsAreFenced
from harness.simulation.plants_of_rules import NothingIsFenced, PersistentStateIsIgnored
from tools.broken_clusters import BROKEN_CLUSTERS, BUDGET, SCHEDULES, search

SEEDS = 40
SOON: tuple[type[Plant], ...] = (
    OwnerIsANode,
    NothingIsFenced,
    PersistentStateIsIgnored,
    SuspectsAreFenced,
    AnswersForAnother,
)
SOON_BUDGET = 150


def tried(plant: type[Plant]) -> list[Schedule]:
    """Its small schedule, under its own seed first."""
    path = SCHEDULES / f"{plant.__name__}.yaml"
    small = read_schedule(path.read_text(encoding="utf-8"), name=str(path))
    return [replace(small, seed=seed) for seed in dict.fromkeys((small.seed, *range(SEEDS)))]


@pytest.mark.parametrize("plant", BROKEN_CLUSTERS, ids=lambda plant: plant.__name__)
def test_a_small_schedule_breaks_the_broken_cluster_and_not_the_healthy_one(plant: type[Plant]) -> None:
    for schedule in tried(plant):
        outcome = play(schedule, plant)
        assert outcome.defect is None
        if outcome.broken:
            assert not play(schedule).broken
            return

    pytest.fail(f"{plant.__name__} is whole: has its rule another form now? Look, then `make search-table`")


@pytest.mark.parametrize("plant", SOON, ids=lambda plant: plant.__name__)
def test_a_search_finds_what_is_found_soon(plant: type[Plant]) -> None:
    assert search(plant, SOON_BUDGET)[1] is not None


@pytest.mark.long
@pytest.mark.parametrize("plant", BROKEN_CLUSTERS, ids=lambda plant: plant.__name__)
def test_the_same_search_finds_every_weakened_rule(plant: type[Plant]) -> None:
    assert search(plant)[1] is not None, f"{plant.__name__} was not found in {BUDGET} schedules"
