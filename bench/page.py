"""The results as a page for people and as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.figure import Figure, GoalKind

__all__ = ["as_json", "as_page", "as_table"]

_HEAD = """\
# Benchmarks

Written by `make bench`; the raw numbers are in `benchmarks.json` beside it. Each figure and its floor were measured in
the same run, in turn. Ratios travel between hosts; seconds do not.

"""


def as_table(figures: Sequence[Figure]) -> str:
    """One line a figure, ratios first."""
    lines = [
        "| What | Ratio to the floor | Median | Floor | Spread | Goal | Reached |",
        "|---|---|---|---|---|---|---|",
    ]
    for figure in figures:
        goal = "times the floor" if figure.goal.kind is GoalKind.RATIO else figure.unit
        cells = (
            figure.title,
            f"{figure.ratio:.2f}" if figure.ratio is not None else "none",
            f"{_shown(figure.measured.median)} {figure.unit}",
            f"{_shown(figure.floor.median)} {figure.unit}",
            f"{_shown(figure.measured.least)} to {_shown(figure.measured.most)}",
            f"at most {figure.goal.limit:g} {goal}",
            "yes" if figure.reached else "**no**",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def as_page(figures: Sequence[Figure], facts: Mapping[str, str], notes: str) -> str:
    """The whole page: the table, what each figure is, the host; `notes` is what people wrote below the mark."""
    parts = [_HEAD, as_table(figures), "\n## The run\n\n"]
    parts += [f"- {name}: {value}\n" for name, value in facts.items()]
    parts.append("\n## What was measured\n")
    for figure in figures:
        parts.append(f"\n**{figure.title}.** {figure.how} Floor: {figure.floor_is}\n")
        if figure.phases:
            parts.append("\n| Phase, after the one before | Median |\n|---|---|\n")
            parts += [f"| {name} | {_shown(value)} s |\n" for name, value in figure.phases.items()]
    return "".join(parts) + notes


def as_json(figures: Sequence[Figure], facts: Mapping[str, str]) -> str:
    """Every value of every round."""
    entries: list[dict[str, Any]] = [
        {
            "title": figure.title,
            "unit": figure.unit,
            "median": round(figure.measured.median, 4),
            "floor_median": round(figure.floor.median, 4),
            "ratio": round(figure.ratio, 3) if figure.ratio is not None else None,
            "goal": {"kind": figure.goal.kind.value, "limit": figure.goal.limit},
            "reached": figure.reached,
            "values": [round(value, 4) for value in figure.measured.values],
            "floor_values": [round(value, 4) for value in figure.floor.values],
            "phases_s": {name: round(value, 4) for name, value in figure.phases.items()},
        }
        for figure in figures
    ]
    return json.dumps({"facts": dict(facts), "figures": entries}, indent=1) + "\n"


def _shown(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
