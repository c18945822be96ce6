"""The clean-up of a run is reached whatever fails: each call of arena, screen, journal and ledger fails once."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scripted_arena import ScriptedArena
from scripted_run import DOCUMENT

from chaos.experiment.loader import read_experiment
from chaos.history.journal import Journal
from chaos.history.verdict import ExitCode, FindingKind
from chaos.reaper.ledger import Ledger
from chaos.run import runner
from chaos.run.runner import RunResult, run_experiment
from chaos.run.terminal import Terminal

SHORT = DOCUMENT.replace("until: {timeout: 5s}", "until: {timeout: 5s, interval: 1s}").replace(
    "until: {timeout: 10s}", "until: {timeout: 10s, interval: 1s}"
)
STAYS_WHOLE = (ExitCode.HARNESS, ExitCode.CLEANUP)


class Defect(RuntimeError):
    """Nothing that the harness raises on purpose."""


class Fuse:
    """Counts calls; the one with the number `blows` raises."""

    def __init__(self, blows: int = 0) -> None:
        self.blows = blows
        self.calls = 0
        self.blown = ""

    def count(self, name: str) -> None:
        self.calls += 1
        if self.calls == self.blows:
            self.blown = name
            raise Defect(f"call {self.calls}: {name}")

    def wrapped(self, of: Any, names: tuple[str, ...]) -> Any:
        """`of` with each call of those methods counted first."""
        for name in names:
            setattr(of, name, self._counted(getattr(of, name), name))
        return of

    def _counted(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.count(name)
            return method(*arguments, **named)

        return call


PORT = (
    *("up", "cluster", "containers", "held", "inside", "network", "engine", "apply", "request", "settle", "collect"),
    *("keep_ledger_line", "guard_lost"),
)


class World:
    """One run with one fuse."""

    def __init__(self, directory: Path, what: str, blows: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fuse = Fuse(blows)
        self.arena = ScriptedArena()
        self.opened: list[Journal] = []
        screen = Console(file=io.StringIO(), width=200)
        if what == "arena":
            self.fuse.wrapped(self.arena, (*PORT, "facts"))
        elif what == "clean-up":
            self.fuse.wrapped(self.arena, ("down",))
        elif what == "screen":
            self.fuse.wrapped(screen, ("print", "status"))
        monkeypatch.setattr(runner, "Journal", lambda out: self._journal(out, what))
        monkeypatch.setattr(runner, "Ledger", lambda *args, **named: self._ledger(what, *args, **named))
        self.result: RunResult = self.arena.drive(
            run_experiment(
                read_experiment(SHORT, name="test.yaml"),
                arena=self.arena,
                interrupt=self.arena.interrupt,
                terminal=Terminal(screen),
                out=directory / "out",
            )
        )

    def _journal(self, out: Path, what: str) -> Journal:
        journal = Journal(out)
        self.opened.append(journal)
        return self.fuse.wrapped(journal, ("write", "follow", "assemble")) if what == "journal" else journal

    def _ledger(self, what: str, *arguments: Any, **named: Any) -> Ledger:
        ledger = Ledger(*arguments, **named)
        return self.fuse.wrapped(ledger, ("intend", "heal")) if what == "ledger" else ledger


@pytest.fixture
def every_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Iterator[World]]:
    """A run for each call of one collaborator, in which that call fails."""

    def runs(what: str) -> Iterator[World]:
        whole = World(tmp_path / "whole", what, 0, monkeypatch)
        assert whole.result.code is ExitCode.PASSED, whole.result.findings
        assert whole.fuse.calls
        for number in range(1, whole.fuse.calls + 1):
            world = World(tmp_path / str(number), what, number, monkeypatch)
            assert world.fuse.blown, f"call {number} was not reached"
            yield world

    return runs


@pytest.mark.parametrize("what", ["arena", "journal", "ledger"])
def test_whatever_fails_the_rig_is_taken_down(every_failure: Callable[[str], Iterator[World]], what: str) -> None:
    for world in every_failure(what):
        told = (world.fuse.blows, world.fuse.blown, world.result.findings)
        assert "down" in world.arena.calls, told
        assert not world.arena.stands, told
        assert world.result.code in STAYS_WHOLE, told
        assert any(str(world.fuse.blows) in finding.reason for finding in world.result.findings), told


def test_a_clean_up_that_fails_is_incomplete(every_failure: Callable[[str], Iterator[World]]) -> None:
    (world,) = every_failure("clean-up")

    assert world.result.code is ExitCode.CLEANUP
    assert any(finding.kind is FindingKind.CLEANUP for finding in world.result.findings)


def test_a_screen_that_fails_changes_nothing(every_failure: Callable[[str], Iterator[World]]) -> None:
    for world in every_failure("screen"):
        assert world.result.code is ExitCode.PASSED, world.result.findings
        assert world.arena.calls[-1] == "down"
