"""The faults as a table: what each does, what it is aimed at, its arguments, its receipt, its cure.

Read from the faults themselves and their docstrings, so that documentation, `doctor` and the code cannot tell different
stories.
"""

import inspect
import sys
from dataclasses import dataclass

from chaos.faults import FAULTS, Adjustable, Fault

__all__ = ["FaultRow", "fault_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRow:
    """One fault. `receipt` says when it counts as confirmed; `cure` is empty when there is nothing to heal."""

    name: str
    target: str
    does: str
    arguments: tuple[str, ...]
    receipt: str
    cure: str
    heals: tuple[str, ...]


def fault_rows() -> tuple[FaultRow, ...]:
    """Every fault, in the order of the table of faults."""
    return tuple(_row(fault) for fault in FAULTS.values())


def _row(fault: Fault) -> FaultRow:
    own = fault.arguments if isinstance(fault, Adjustable) else {}
    arguments = [f"{name}: {kind.value}" for name, kind in own.items()]
    if fault.undo:
        arguments.append("duration: a duration")
    return FaultRow(
        name=fault.name,
        target=fault.target.value,
        does=_first_sentences(sys.modules[type(fault).__module__].__doc__).removeprefix(f"`{fault.name}`: "),
        arguments=tuple(arguments),
        receipt=_first_sentences(inspect.getdoc(type(fault).receipt)).removeprefix("Confirmed ").rstrip("."),
        cure=fault.undo,
        heals=tuple(sorted(fault.heals)),
    )


def _first_sentences(text: str | None) -> str:
    """The first paragraph, on one line."""
    return " ".join((text or "").split("\n\n", 1)[0].split())
