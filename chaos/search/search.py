"""The search: schedule after schedule, each from its seed alone, until one breaks the cluster.

Runs are handed out in the order of their seeds and judged in that order, so that the schedule that is reported is the
same with one process and with eight.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from chaos.search.rig_generator import draw_rig
from chaos.search.schedule_file import Schedule, topology_of
from harness.simulation.faults.schedule import Outcome, plan, run_schedule
from harness.simulation.world.composition import Composition
from harness.simulation.world.fault_kinds import FaultKind
from harness.simulation.world.world import Struck

__all__ = ["Coverage", "Search", "SearchResult", "Trial", "broken_by", "covered", "play", "schedule_of"]

Coverage = Counter[Struck]
"""How often each kind of fault struck, by what the cluster was at and what its target was."""

AHEAD = 2
"""Runs handed out for each process: one under way and one that waits."""

Parts = Callable[[], Composition]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run. `broken` are sentences; none when every invariant held and the world came to rest. `unconverged`: it is
    only that it did not. `defect`: a part of Blackstart raised something, and the run did not come to its end.
    """

    schedule: Schedule
    broken: tuple[str, ...]
    coverage: Coverage
    unconverged: bool = False
    defect: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search ended with. `failure` is the first run that broke something, None when none did."""

    runs: int
    coverage: Coverage
    failure: Trial | None = None


@dataclass(slots=True, kw_only=True)
class Search:
    """One search. `rig` is the document of every run's rig, None to draw one for each; `among` are the kinds of fault
    that are drawn from, the default mix without one, `of_it` what is played of a schedule that was drawn; `parts` is
    what nodes are made of, for the controls that show that it finds something.
    """

    first_seed: int
    jobs: int = 1
    rig: Mapping[str, Any] | None = None
    among: tuple[FaultKind, ...] = ()
    of_it: Callable[[Schedule], Schedule] = field(default=lambda schedule: schedule)
    parts: Parts = Composition
    coverage: Coverage = field(default_factory=Counter)
    runs: int = 0

    def search(self, goes_on: Callable[["Search"], bool]) -> SearchResult:
        """Try seed after seed while `goes_on` says so; it is asked after each run."""
        with ExitStack() as stack:
            for tried in self._tried(stack):
                self.runs += 1
                self.coverage.update(tried.coverage)
                if tried.broken:
                    return SearchResult(runs=self.runs, coverage=self.coverage, failure=tried)
                if not goes_on(self):
                    break
        return SearchResult(runs=self.runs, coverage=self.coverage)

    def schedule(self, seed: int) -> Schedule:
        """What is run for that seed."""
        return self.of_it(schedule_of(seed, self.rig, self.among))

    def _tried(self, stack: ExitStack) -> Iterator[Trial]:
        seed = self.first_seed
        if self.jobs == 1:
            while True:
                yield _try(self.schedule(seed), self.parts)
                seed += 1
        pool = ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn"))
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        handed_out: deque[Future[Trial]] = deque()
        while True:
            while len(handed_out) < AHEAD * self.jobs:
                handed_out.append(pool.submit(_try, self.schedule(seed), self.parts))
                seed += 1
            yield handed_out.popleft().result()


def schedule_of(
    seed: int, rig: Mapping[str, Any] | None = None, among: tuple[FaultKind, ...] = ()
) -> Schedule:
    """The schedule that a search runs for that seed."""
    drawn = rig if rig is not None else draw_rig(random.Random(f"rig.{seed}"))
    return Schedule(seed=seed, rig=drawn, faults=plan(random.Random(seed), topology_of(drawn), among))


def play(schedule: Schedule, parts: Parts = Composition) -> Outcome:
    """Run a schedule to its end, or to the first violation."""
    return run_schedule(
        schedule.seed, topology=schedule.topology, planned=schedule.faults, composition=parts()
    )


def covered(coverage: Coverage, place: int) -> tuple[list[str], list[tuple[str, ...]]]:
    """The coverage as a table, a line for each kind of fault: the words at that place of its keys, and the lines."""
    counts: Counter[tuple[str, str]] = Counter()
    for key, times in coverage.items():
        counts[key[0], key[place]] += times
    words = sorted({word for _, word in counts})
    kinds = sorted({kind for kind, _ in counts})
    return words, [(kind, *(str(counts[kind, word]) for word in words)) for kind in kinds]


def broken_by(outcome: Outcome) -> tuple[str, ...]:
    """What broke, as sentences."""
    unconverged = (f"not at rest a minute after the last fault: {text}" for text in outcome.unconverged)
    return outcome.violations or tuple(unconverged)


def _try(schedule: Schedule, parts: Parts) -> Trial:
    outcome = play(schedule, parts)
    return Trial(
        schedule=schedule,
        broken=broken_by(outcome),
        coverage=outcome.world.coverage,
        unconverged=bool(outcome.unconverged),
        defect=outcome.defect is not None,
    )
