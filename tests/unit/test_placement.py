"""Which node takes which group."""

import random

import pytest

from harness.cluster_service.placement.ranking import claim_places, next_after_failure, rank_claimants
from harness.model.initial_registers import first_registers
from harness.model.records import GroupRecord
from harness.model.topology import GroupSpec, Priority, ResourceSpec, Topology
from harness.model.voter_set import VoterSet

NODES = ["n1", "n2", "n3", "n4"]


def group(name: str, **fields: object) -> GroupSpec:
    return GroupSpec(name=name, **fields)  # type: ignore[arg-type]


def test_orphans_are_spread_over_the_nodes_with_the_fewest_groups() -> None:
    ranking = rank_claimants(
        orphans=[group("a"), group("b"), group("c")], candidates=["n2", "n3"], groups_owned={"n2": 1, "n3": 0}
    )

    assert {name: ranked[0] for name, ranked in ranking.items()} == {"a": "n3", "b": "n2", "c": "n3"}


def test_a_preferred_owner_comes_before_the_least_loaded() -> None:
    ranking = rank_claimants(
        orphans=[group("a", preferred_owners=("n4", "n2"))],
        candidates=["n2", "n3", "n4"],
        groups_owned={"n4": 9, "n2": 5},
    )

    assert ranking["a"] == ["n4", "n2", "n3"]


def test_urgent_groups_choose_first() -> None:
    ranking = rank_claimants(
        orphans=[group("a", priority=Priority.LOW), group("z", priority=Priority.HIGH)],
        candidates=["n1", "n2"],
        groups_owned={"n2": 1},
    )

    assert ranking["z"][0] == "n1"
    assert ranking["a"][0] == "n1"


def test_only_possible_owners_are_ranked() -> None:
    ranking = rank_claimants(
        orphans=[group("a", possible_owners=("n3",))], candidates=["n1", "n3"], groups_owned={}
    )

    assert ranking["a"] == ["n3"]


def test_after_a_failure_the_cyclic_list_of_preferred_owners_and_the_rest_decides() -> None:
    # The example of the rules: preferred {3, 4} of four nodes, failing on 4 goes to 1.
    target = next_after_failure(
        group=group("a", preferred_owners=("n3", "n4")), nodes=NODES, candidates=NODES, failed_on="n4"
    )

    assert target == "n1"


def test_after_a_failure_nodes_that_are_no_candidates_are_passed_over() -> None:
    target = next_after_failure(group=group("a"), nodes=NODES, candidates=["n1", "n4"], failed_on="n2")

    assert target == "n4"


def test_without_another_candidate_there_is_no_target() -> None:
    assert next_after_failure(group=group("a"), nodes=NODES, candidates=["n2"], failed_on="n2") is None


def test_a_group_that_does_not_start_by_itself_is_created_with_persistent_state_0() -> None:
    topology = Topology(
        rig="r",
        subnet="10.87.0.0/24",
        nodes=(),
        groups=(
            group("a", priority=Priority.NO_AUTO_START, resources=(ResourceSpec(name="x", type="ip-address"),)),
            group("b", resources=(ResourceSpec(name="y", type="ip-address"),)),
        ),
    )

    first = first_registers(topology, VoterSet(version=1, members={}))
    wanted = {key: record.wanted for key, record in first if isinstance(record, GroupRecord)}

    assert wanted == {"group/a": False, "group/b": True}


@pytest.mark.parametrize("seed", range(40))
def test_the_place_of_one_node_is_its_place_in_the_ranking(seed: int) -> None:
    rng = random.Random(seed)

    def some(chance: float) -> tuple[str, ...]:
        return tuple(rng.sample(NODES, rng.randint(1, len(NODES)))) if rng.random() < chance else ()

    orphans = [
        group(
            f"web{number}", priority=rng.choice(list(Priority)), preferred_owners=some(0.2), possible_owners=some(0.2)
        )
        for number in range(rng.randint(0, 12))
    ]
    candidates, paused = some(0.9), some(0.3)
    owned = {name: rng.randint(0, 3) for name in some(0.8)}

    ranking = rank_claimants(orphans=orphans, candidates=candidates, groups_owned=owned, paused=paused)

    for node in NODES:
        places = claim_places(node, orphans=orphans, candidates=candidates, groups_owned=owned, paused=paused)
        assert places == {name: ranked.index(node) for name, ranked in ranking.items() if node in ranked}
