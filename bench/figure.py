"""A figure: what was measured, its floor from the same run, the goal, and whether it is reached. No measuring."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Figure", "Goal", "GoalKind", "Series", "alternate"]

Measure = Callable[[int], float]


class GoalKind(StrEnum):
    """What the goal limits: the median itself, or the ratio of the medians of figure and floor."""

    MEDIAN = "median"
    RATIO = "ratio"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """At most this much."""

    kind: GoalKind
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The values of all rounds, in their order."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def most(self) -> float:
        """The largest value."""
        return max(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the result. `unit` is of all values; `how` and `floor_is` are sentences; `phases` are medians in
    seconds of the parts of the figure, where it has parts.
    """

    title: str
    unit: str
    measured: Series
    floor: Series
    goal: Goal
    how: str
    floor_is: str
    phases: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Median over median of the floor; None when the floor is nothing at all."""
        return self.measured.median / self.floor.median if self.floor.median else None

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        value = self.ratio if self.goal.kind is GoalKind.RATIO else self.measured.median
        return value is not None and value <= self.goal.limit


def alternate(rounds: int, measures: Mapping[str, Measure]) -> dict[str, Series]:
    """Each measure once a round, one after the other, so that what slows the host meets all of them alike.

    A measure gets the number of the round, from 0.
    """
    values: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            values[name].append(measure(number))
    return {name: Series(values=tuple(found)) for name, found in values.items()}
