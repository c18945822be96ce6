"""What a run ended with: the rulings of checkers, the findings of the run, and the exit code that follows from them.

Pure data and two pure functions. It is not where anything is judged: checkers and the runner judge, this says what
their judgements add up to.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum

__all__ = ["ExitCode", "Finding", "FindingKind", "Ruling", "Verdict", "exit_code", "exit_meaning"]


class ExitCode(int, Enum):
    """The exit codes of a run. 2 comes out of one that was refused by its arena before anything was started.

    A run that was ended by signal n and cleaned up has 128 + n.
    """

    PASSED = 0
    BROKEN = 1
    USAGE = 2
    NO_STEADY_STATE = 3
    HARNESS = 4
    CLEANUP = 5
    INCONCLUSIVE = 6
    HUNG_UP = 129
    INTERRUPTED = 130
    QUIT = 131
    TERMINATED = 143


class Ruling(StrEnum):
    """What a checker says of a history.

    NOT_APPLICABLE: the history has nothing that the checker is about, and should not have.
    """

    HOLDS = "holds"
    BROKEN = "broken"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One checker's ruling. `reasons` say why it is not HOLDS; `notes` are worth knowing and change nothing."""

    checker: str
    ruling: Ruling
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class FindingKind(StrEnum):
    """What stands between a run and a pass, named after the exit codes, in the order in which they decide."""

    CLEANUP = "clean-up incomplete"
    SIGNAL = "signal"
    BROKEN = "broken"
    HARNESS = "harness failed"
    INCONCLUSIVE = "inconclusive"
    USAGE = "wrong usage"
    NO_STEADY_STATE = "no steady state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason against a pass. `signal` is the signal's number when `kind` is SIGNAL."""

    kind: FindingKind
    reason: str
    signal: int | None = None


_SIGNALS = {1: ExitCode.HUNG_UP, 2: ExitCode.INTERRUPTED, 3: ExitCode.QUIT, 15: ExitCode.TERMINATED}

_PRECEDENCE = (
    (FindingKind.BROKEN, ExitCode.BROKEN),
    (FindingKind.HARNESS, ExitCode.HARNESS),
    (FindingKind.INCONCLUSIVE, ExitCode.INCONCLUSIVE),
    (FindingKind.USAGE, ExitCode.USAGE),
    (FindingKind.NO_STEADY_STATE, ExitCode.NO_STEADY_STATE),
)

_MEANING = {
    ExitCode.PASSED: "passed",
    ExitCode.BROKEN: "an expectation or an invariant broke",
    ExitCode.USAGE: "wrong usage or an invalid file",
    ExitCode.NO_STEADY_STATE: "the steady state did not hold before the method; nothing was injected",
    ExitCode.HARNESS: "the harness failed",
    ExitCode.CLEANUP: "clean-up is incomplete",
    ExitCode.INCONCLUSIVE: "inconclusive",
    ExitCode.HUNG_UP: "hung up, cleaned up",
    ExitCode.INTERRUPTED: "interrupted, cleaned up",
    ExitCode.QUIT: "quit, cleaned up",
    ExitCode.TERMINATED: "terminated, cleaned up",
}


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """The exit code of a run; only a run without findings is a pass.

    Clean-up comes first, because something is left to do; then the signal, broken, harness, inconclusive, usage, no
    steady state.
    """
    found = list(findings)
    kinds = {finding.kind for finding in found}
    if FindingKind.CLEANUP in kinds:
        return ExitCode.CLEANUP
    for finding in found:
        if finding.kind is FindingKind.SIGNAL:
            return _SIGNALS.get(finding.signal or 0, ExitCode.INTERRUPTED)
    for kind, code in _PRECEDENCE:
        if kind in kinds:
            return code
    return ExitCode.PASSED


def exit_meaning(code: ExitCode) -> str:
    """What a person should read in it."""
    return _MEANING[code]
