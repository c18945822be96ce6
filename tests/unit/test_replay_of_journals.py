"""What `replay` says of the lines that a run writes as it goes: they are not its journal, which stands beside them."""

from pathlib import Path

import pytest
from scripted_arena import ScriptedArena
from scripted_run import Ran

from chaos.cli.main import run_command
from chaos.history.journal import holds_lines


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return Ran(ScriptedArena(), tmp_path).out / "journal.jsonl"


def test_the_lines_of_a_run_are_refused_with_the_place_of_its_journal(
    lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["replay", str(lines)]) == 2

    told = capsys.readouterr().err
    assert f"{lines}: the lines of a run, written as it went, expected its journal: {lines.parent}/journal.json" in told


def test_the_lines_of_a_run_that_was_killed_are_refused_as_such(
    lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines.with_name("journal.json").unlink()
    lines.write_text(lines.read_text()[:400])

    assert run_command(["replay", str(lines)]) == 2

    told = capsys.readouterr().err
    assert f"{lines}: the lines of a run, and there is no {lines.parent}/journal.json: the run was killed" in told


def test_a_journal_and_a_schedule_are_no_lines(lines: Path) -> None:
    assert holds_lines(lines.read_text())
    assert not holds_lines(lines.with_name("journal.json").read_text())
    assert not holds_lines("schedule: 1\nseed: 86\n")
