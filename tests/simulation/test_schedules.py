"""Random schedules against the healthy cluster."""

import pytest

from chaos.search.search import play, schedule_of
from harness.database.register import JsonCodec, Stored
from harness.model.topology import Fencing
from harness.simulation.faults.schedule import Outcome, run_schedule, small_topology
from harness.simulation.world.composition import Composition

HEALTHY_SEEDS = 400
SELF_FENCED_SEEDS = 300
BLOCK = 50


def told(outcome: Outcome) -> str:
    plan = "\n".join(str(fault) for fault in outcome.plan)
    tail = "\n".join(str(line) for line in outcome.world.trace[-60:])
    return f"seed {outcome.seed}: {outcome.violations or outcome.unconverged}\n{plan}\n{tail}"


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


class ReadTwice(Composition):
    """What a text is taken for is compared with what it says, the order of keys included."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: set[str] = set()
        decode, plain = self.codec.decode, JsonCodec()

        def compared(value: str) -> Stored:
            known = decode(value)
            if value not in self.texts:
                self.texts.add(value)
                assert repr(known) == repr(plain.decode(value))
            return known

        self.codec.decode = compared  # type: ignore[method-assign]


def test_what_a_world_remembers_of_a_text_is_what_it_says() -> None:
    texts = 0
    for seed in range(12):
        parts, schedule = ReadTwice(), schedule_of(seed)
        for group in schedule.rig["groups"]:
            group["resources"].reverse()
        assert not play(schedule, lambda parts=parts: parts).broken  # type: ignore[misc]
        texts += len(parts.texts)

    assert texts > 200
