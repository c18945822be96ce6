"""The root of a run's errors: a part of the run ends, or its error becomes a finding and the run goes on.

An error that was raised on purpose becomes a finding with its text; a defect gets its traceback into the journal too.
Only the end of the process passes through (a cancelled task, KeyboardInterrupt).
"""

import traceback
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chaos.arena.interrupt import Interrupted
from chaos.history.journal import Journal
from chaos.history.verdict import Finding, FindingKind
from harness.errors import BlackstartError, NotOnline, UsageError
from harness.ports import DeadlinePassed

__all__ = ["ErrorRoot"]

T = TypeVar("T")


class ErrorRoot:
    """The root of one run. Invariant: no `Exception` leaves its methods, and each is in `findings`."""

    def __init__(self, journal: Journal, findings: list[Finding]) -> None:
        """`findings` is the run's own list."""
        self._journal = journal
        self._findings = findings

    async def part(self, name: str, call: Callable[[], Awaitable[None]]) -> bool:
        """Await `call`. Answers whether it came to its end."""
        try:
            await call()
        except Interrupted:
            # The finding is made at the end: a signal may also come while nothing waits.
            return False
        except Exception as error:  # noqa: BLE001 - the root: a defect of the harness must not skip the clean-up
            self._take(name, error)
            return False
        return True

    def step(self, name: str, call: Callable[[], T], otherwise: T) -> T:
        """The answer of `call`; `otherwise` when it fails."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the root of the conclusion: the verdict must come out
            self._take(name, error)
            return otherwise

    def _take(self, name: str, error: Exception) -> None:
        match error:
            case UsageError():
                self._find(FindingKind.USAGE, str(error))
            case NotOnline():
                self._find(FindingKind.NO_STEADY_STATE, f"{name}: {error}")
            case BlackstartError() | DeadlinePassed():
                self._find(FindingKind.HARNESS, f"{name}: {error}")
            case _:
                self._find(FindingKind.HARNESS, f"{name}: {type(error).__name__}: {error} ({self._defect(name)})")

    def _defect(self, name: str) -> str:
        """Where the traceback of the defect is."""
        try:
            self._journal.write("traceback", {"part": name, "text": traceback.format_exc()})
        except Exception as unwritten:  # noqa: BLE001 - the journal may be the defect
            return f"a defect; the journal has no traceback: {unwritten}"
        return "a defect; traceback in the journal"

    def _find(self, kind: FindingKind, reason: str) -> None:
        self._findings.append(Finding(kind=kind, reason=reason))
