"""What a probe's answer is held against: equality, a range, a set, a regular expression.

The forms of the Chaos Toolkit. An answer of None (there is nothing to say yet) never holds. Whether a tolerance makes
sense for a probe at all is decided when the document is read (`misfit`), not when a cluster is already running.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chaos.experiment.pattern import found_in, problem_of_pattern
from chaos.experiment.schema import TOLERANCE_FORM, Answers
from harness.document.refusals import shown

__all__ = ["Equal", "InRange", "Matches", "OneOf", "Tolerance", "misfit", "read_tolerance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Equal:
    """The answer is that value, and of its kind: true is not 1."""

    value: bool | int | float | str

    def holds(self, answer: Any) -> bool:
        """Whether the answer is within."""
        return isinstance(answer, bool) == isinstance(self.value, bool) and bool(answer == self.value)

    def __str__(self) -> str:
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class InRange:
    """The answer is a number from `low` to `high`, both included."""

    low: float
    high: float

    def holds(self, answer: Any) -> bool:
        """Whether the answer is within."""
        return isinstance(answer, int | float) and not isinstance(answer, bool) and self.low <= answer <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """The answer is one of the values."""

    values: tuple[Any, ...]

    def holds(self, answer: Any) -> bool:
        """Whether the answer is within."""
        return any(Equal(value=value).holds(answer) for value in self.values)

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.values))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The answer is text in which the pattern is found."""

    pattern: str

    def holds(self, answer: Any) -> bool:
        """Whether the answer is within."""
        return isinstance(answer, str) and found_in(self.pattern, answer)

    def __str__(self) -> str:
        return f"matching {self.pattern}"


Tolerance = Equal | InRange | OneOf | Matches


def read_tolerance(value: Any) -> Tolerance:
    """The tolerance that a document's value stands for. Raises ValueError, whose text says what is wrong with it."""
    if isinstance(value, bool | int | float | str):
        return Equal(value=_finite(value))
    if isinstance(value, list):
        return _sequence(value)
    if isinstance(value, dict):
        return _mapping(value)
    raise ValueError(f"{shown(value)} is no tolerance ({TOLERANCE_FORM})")


def misfit(tolerance: Tolerance, answers: Answers) -> str:
    """Why no answer of that kind could ever hold, empty when one could."""
    match tolerance:
        case Equal(value=value) if not _is(value, answers):
            return f"the probe answers with {answers}, which is never {shown(value)}"
        case OneOf(values=values) if not all(_is(value, answers) for value in values):
            return f"the probe answers with {answers}, not with all of {shown(list(values))}"
        case InRange() if answers is not Answers.NUMBER:
            return f"the probe answers with {answers}, a range needs a number"
        case Matches() if answers is not Answers.TEXT:
            return f"the probe answers with {answers}, a pattern needs text"
    return ""


def _is(value: Any, answers: Answers) -> bool:
    match answers:
        case Answers.BOOLEAN:
            return isinstance(value, bool)
        case Answers.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case Answers.TEXT:
            return isinstance(value, str)


def _sequence(values: Sequence[Any]) -> Tolerance:
    """Two numbers are a range, as in the Chaos Toolkit; anything else is a set of values."""
    if len(values) == 2 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return _range(values)
    if not values or not all(isinstance(value, bool | int | float | str) for value in values):
        raise ValueError("a list that is neither two numbers nor plain values")
    return OneOf(values=tuple(values))


def _mapping(value: dict[str, Any]) -> Tolerance:
    kind = value.get("type")
    allowed = {"range": {"type", "range"}, "regex": {"type", "pattern"}}
    if not isinstance(kind, str) or kind not in allowed:
        raise ValueError(f"the type {shown(kind)} is not available: only range and regex are")
    unknown = sorted(value.keys() - allowed[kind])
    if unknown:
        raise ValueError(f"a tolerance of type {kind} has no key {', '.join(map(shown, unknown))}")
    if kind == "range":
        return _range(value.get("range"))
    pattern = value.get("pattern")
    if not isinstance(pattern, str) or not pattern:
        raise ValueError(f"the pattern is {shown(pattern)}, not text")
    problem = problem_of_pattern(pattern)
    if problem:
        raise ValueError(f"the pattern {shown(pattern)} is no regular expression of RE2: {problem}")
    return Matches(pattern=pattern)


def _range(value: Any) -> InRange:
    two = isinstance(value, list) and len(value) == 2
    if not two or not all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
        raise ValueError(f"the range is {shown(value)}, not two numbers")
    low, high = (float(_finite(item)) for item in value)
    if low > high:
        raise ValueError(f"the range is empty: {low:g} is above {high:g}")
    return InRange(low=low, high=high)


def _finite(value: Any) -> Any:
    """`value`; a number must have a counterpart among floating-point numbers."""
    try:
        fits = isinstance(value, bool | str) or math.isfinite(value)
    except OverflowError:
        fits = False
    if not fits:
        raise ValueError(f"{shown(value)} is not a number to compare with")
    return value
