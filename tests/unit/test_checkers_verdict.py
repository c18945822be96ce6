"""What findings add up to: the exit codes and their precedence."""

from itertools import combinations

import pytest

from chaos.history.verdict import ExitCode, Finding, FindingKind, exit_code, exit_meaning

ORDER = [
    (FindingKind.CLEANUP, ExitCode.CLEANUP),
    (FindingKind.SIGNAL, ExitCode.INTERRUPTED),
    (FindingKind.BROKEN, ExitCode.BROKEN),
    (FindingKind.HARNESS, ExitCode.HARNESS),
    (FindingKind.INCONCLUSIVE, ExitCode.INCONCLUSIVE),
    (FindingKind.USAGE, ExitCode.USAGE),
    (FindingKind.NO_STEADY_STATE, ExitCode.NO_STEADY_STATE),
]


def finding(kind: FindingKind, signal: int | None = None) -> Finding:
    return Finding(kind=kind, reason="because", signal=2 if kind is FindingKind.SIGNAL and signal is None else signal)


def test_nothing_against_it_is_a_pass() -> None:
    assert exit_code([]) is ExitCode.PASSED
    assert ExitCode.PASSED.value == 0


@pytest.mark.parametrize(("kind", "code"), ORDER)
def test_each_finding_alone(kind: FindingKind, code: ExitCode) -> None:
    assert exit_code([finding(kind)]) is code


@pytest.mark.parametrize(("stronger", "weaker"), list(combinations(ORDER, 2)))
def test_the_stronger_finding_wins_in_any_order(
    stronger: tuple[FindingKind, ExitCode], weaker: tuple[FindingKind, ExitCode]
) -> None:
    both = [finding(weaker[0]), finding(stronger[0])]

    assert exit_code(both) is stronger[1]
    assert exit_code(reversed(both)) is stronger[1]


@pytest.mark.parametrize(("signal", "code"), [(1, 129), (2, 130), (3, 131), (15, 143)])
def test_the_signal_is_in_the_code(signal: int, code: int) -> None:
    assert exit_code([finding(FindingKind.SIGNAL, signal)]).value == code


def test_every_code_has_a_meaning() -> None:
    assert all(exit_meaning(code) for code in ExitCode)
