"""The checkers: each reads the history of a run and nothing else, and rules on one thing.

They run whatever the experiment says. `CHECKERS` rule on the run itself and are asked before the rig is taken down, so
that evidence can still be collected; `AFTER_CLEAN_UP` are asked when it is gone.
"""

from collections.abc import Callable
from dataclasses import dataclass

from chaos.checkers import (
    invariants,
    nothing_left,
    one_instance_by_events,
    one_instance_by_journals,
    recovered,
    wanted_online,
)
from chaos.history.records import History
from chaos.history.verdict import Ruling, Verdict

__all__ = ["AFTER_CLEAN_UP", "CHECKERS", "Checker", "run_check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checker:
    """A checker and its name. `safety`: it rules on what must never happen, so also on a run that did not get far."""

    name: str
    check: Callable[[History], Verdict]
    safety: bool


CHECKERS: tuple[Checker, ...] = (
    Checker(name=one_instance_by_events.NAME, check=one_instance_by_events.check, safety=True),
    Checker(name=one_instance_by_journals.NAME, check=one_instance_by_journals.check, safety=True),
    Checker(name=invariants.NAME, check=invariants.check, safety=True),
    Checker(name=wanted_online.NAME, check=wanted_online.check, safety=False),
    Checker(name=recovered.NAME, check=recovered.check, safety=False),
)
"""What is asked at the end of every run."""

AFTER_CLEAN_UP: tuple[Checker, ...] = (Checker(name=nothing_left.NAME, check=nothing_left.check, safety=True),)
"""What can only be asked when the rig has been taken down."""


def run_check(checker: Checker, history: History) -> Verdict:
    """The checker's verdict. One that crashes has no opinion: INCONCLUSIVE, with what it crashed of."""
    try:
        return checker.check(history)
    except Exception as error:  # noqa: BLE001 - a checker's defect must neither end the run nor become a pass
        reason = f"the checker crashed: {type(error).__name__}: {error}"
        return Verdict(checker=checker.name, ruling=Ruling.INCONCLUSIVE, reasons=(reason,))
