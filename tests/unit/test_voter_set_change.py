"""Changes of the voter set lose no acknowledged change, and each rule behind that is needed."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from voter_set_change_harness import Run, SetBench

from harness.database.acceptor import Acceptor
from harness.database.protocol import NO_BALLOT, RefusalReason, Refused
from harness.model.voter_set import VoterSet
from harness.simulation.plants_of_rounds import RewritesNothing

THREE = {"v1": "i1", "v2": "i2", "v3": "i3"}
FIVE = {f"v{i}": f"i{i}" for i in range(1, 6)}
SEEDS = 150
PLANT_BUDGET = 3000


def readmit(bench: SetBench, current: VoterSet) -> VoterSet | None:
    """Three, two, three: a lost voter is removed, and added again as a new one."""
    lost = bench.lost(current)
    if lost:
        return current.without(lost)
    for name in THREE:
        if name not in current.members and (birth := bench.birth_of(name)):
            return current.plus(name, birth)
    return None


def grow(bench: SetBench, current: VoterSet) -> VoterSet | None:
    """Three, four, five."""
    for name in FIVE:
        if name not in current.members:
            return current.plus(name, bench.birth_of(name))
    return None


def grow_at_once(bench: SetBench, current: VoterSet) -> VoterSet | None:
    """Three, five."""
    if len(current.members) == len(FIVE):
        return None
    new = {name: bench.birth_of(name) for name in FIVE if name not in current.members}
    return VoterSet(version=current.version + 1, members={**current.members, **new})


def shrink(bench: SetBench, current: VoterSet) -> VoterSet | None:
    """Five, four, three, two."""
    del bench
    return current.without(max(current.members)) if len(current.members) > 2 else None


def readmission(seed: int, **weak: Any) -> Run:
    return SetBench(
        rng=random.Random(seed), members=THREE, path=weak.pop("path", readmit), wipes=("v1", "v2", "v3"), **weak
    ).run()


def growth(seed: int, **weak: Any) -> Run:
    return SetBench(rng=random.Random(seed), members=THREE, path=weak.pop("path", grow), **weak).run()


def shrinking(seed: int, **weak: Any) -> Run:
    return SetBench(rng=random.Random(seed), members=FIVE, path=shrink, **weak).run()


@pytest.mark.parametrize("way", [readmission, growth, shrinking])
def test_changes_of_the_set_lose_no_acknowledged_change(way: Callable[[int], Run]) -> None:
    carried_through = 0
    for seed in range(SEEDS):
        run = way(seed)
        carried_through += run.version - 1

        assert not run.broken, f"seed {seed}: {run}"

    assert carried_through > SEEDS


# Each rule weakened, and found.


class _VotesWithoutItsDisk(Acceptor):
    """An empty voter votes: it keeps its name and its set."""

    def wipe(self) -> None:
        self.registers.clear()
        self.leases.clear()
        self.revision = 0


class _TakesOlderRounds(Acceptor):
    """The version is not raised: rounds of older sets are taken."""

    def _refusal(self, call: Any) -> Refused | None:
        refused = super()._refusal(call)
        older = call.to.set_version < self.set_version
        return None if refused is not None and refused.why is RefusalReason.SET_VERSION and older else refused


def copy_values(bench: SetBench, voter: str) -> None:
    """The empty voter is given the newest values of the others and votes on under its old name."""
    others = [other for name, other in bench.voters.items() if name != voter and other.incarnation]
    mine = bench.voters[voter]
    newest = max((other.voter_set for other in others if other.voter_set), key=lambda one: one.version)
    mine.rig, mine.voter, mine.voter_set = others[0].rig, voter, newest
    mine.incarnation = newest.members.get(voter, "")
    for other in others:
        for key, register in other.registers.items():
            own = mine.registers.get(key)
            if own is None or register.accepted > own.accepted:
                mine.registers[key] = replace(register, promised=own.promised if own is not None else NO_BALLOT)


def votes_empty(seed: int) -> Run:
    return readmission(seed, acceptor=_VotesWithoutItsDisk)


def copies_values(seed: int) -> Run:
    return readmission(seed, after_wipe=copy_values, path=lambda _bench, _current: None)


def does_not_raise(seed: int) -> Run:
    return growth(seed, acceptor=_TakesOlderRounds)


def rewrites_nothing(seed: int) -> Run:
    return readmission(seed, change=RewritesNothing)


def changes_two_at_once(seed: int) -> Run:
    return growth(seed, path=grow_at_once)


@pytest.mark.parametrize(
    "weakened", [votes_empty, copies_values, does_not_raise, rewrites_nothing, changes_two_at_once]
)
def test_the_same_search_finds_each_weakened_rule_of_the_voter_set(weakened: Callable[[int], Run]) -> None:
    found = next((seed for seed in range(PLANT_BUDGET) if weakened(seed).broken), None)

    assert found is not None, f"{weakened.__name__} was not found in {PLANT_BUDGET} schedules"
