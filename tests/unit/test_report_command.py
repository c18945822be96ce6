"""Making reports: which files are written, what is refused, and that a run that cannot be reported on is no pass."""

import io
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import Recorded, power_cut
from rich.console import Console
from scripted_arena import ScriptedArena
from test_runner import DOCUMENT

from chaos.arena.port import RunEnvironment
from chaos.cli.main import run_command
from chaos.experiment.loader import read_experiment
from chaos.history.verdict import Finding, exit_code
from chaos.report import page
from chaos.report.report_files import ReportFiles
from chaos.report.writer import prepare_reports, write_reports
from chaos.run import batch
from chaos.run.options import RunOptions
from chaos.run.terminal import Terminal
from harness.errors import HarnessError, UsageError


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return Recorded(power_cut()).write(tmp_path)


def test_report_makes_every_file_that_is_named(journal: Path, tmp_path: Path) -> None:
    html, junit, markdown = (tmp_path / "new" / name for name in ("run.html", "junit.xml", "summary.md"))

    code = run_command(
        ["report", str(journal), "--html", str(html), "--junit", str(junit), "--markdown", str(markdown)]
    )

    assert code == 0
    assert html.read_text().lstrip().startswith("<!doctype html>")
    assert junit.read_text().startswith("<?xml")
    assert markdown.read_text().startswith("## A test")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["junit.xml", "run.html", "summary.md"]


def test_report_without_a_file_prints_the_summary(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["report", str(journal)]) == 0

    assert capsys.readouterr().out.startswith("## A test\n\n**Passed** (exit code 0)")


def test_the_same_journal_makes_the_same_page_to_the_byte(journal: Path, tmp_path: Path) -> None:
    pages = [tmp_path / "a.html", tmp_path / "b.html"]

    for path in pages:
        write_reports([journal], ReportFiles(html=path))

    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_what_is_no_journal_is_refused_and_an_earlier_report_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, html = tmp_path / "other.json", tmp_path / "run.html"
    other.write_text("{}")
    html.write_text("earlier")

    code = run_command(["report", str(other), "--html", str(html)])

    assert code == 2
    assert "other.json: it has no keys" in capsys.readouterr().err
    assert html.read_text() == "earlier"


def test_a_report_never_takes_the_place_of_its_journal_or_of_another(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = journal.read_text()

    assert run_command(["report", str(journal), "--html", str(journal)]) == 2
    assert run_command(["report", str(journal), "--html", str(tmp_path / "x"), "--junit", str(tmp_path / "x")]) == 2

    assert capsys.readouterr().err.count("is named twice") == 2
    assert journal.read_text() == before


def test_the_summary_is_appended_for_the_job_only_when_asked(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "job.md"
    summary.write_text("of an earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))

    run_command(["report", str(journal)])
    untouched = summary.read_text()
    run_command(["report", str(journal), "--step-summary"])

    assert untouched == "of an earlier step\n"
    assert summary.read_text().startswith("of an earlier step\n## A test")


def test_a_job_summary_that_nobody_offers_is_refused(
    journal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    assert run_command(["report", str(journal), "--step-summary"]) == 2
    assert "GITHUB_STEP_SUMMARY" in capsys.readouterr().err


def test_a_report_of_an_earlier_run_is_gone_before_the_next_one_begins(tmp_path: Path) -> None:
    html = tmp_path / "deep" / "run.html"
    prepare_reports(ReportFiles(html=html))
    html.write_text("passed")

    prepare_reports(ReportFiles(html=html))

    assert html.parent.is_dir()
    assert not html.exists()


def test_a_place_where_nothing_can_be_written_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    experiment = tmp_path / "test.yaml"
    experiment.write_text(DOCUMENT)
    reports = ReportFiles(junit=tmp_path / "file" / "junit.xml")

    code = batch.run_files([experiment], options=RunOptions(out=tmp_path / "out", reports=reports))

    assert code == 2
    assert "junit.xml cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_report_that_cannot_be_made_keeps_no_other_from_being_made(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> str:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(page, "render_page", broken)
    files = ReportFiles(html=tmp_path / "run.html", junit=tmp_path / "junit.xml", markdown=tmp_path / "summary.md")

    with pytest.raises(HarnessError, match=r"run\.html cannot be made: ZeroDivisionError"):
        write_reports([journal], files)

    assert not (tmp_path / "run.html").exists()
    assert (tmp_path / "junit.xml").exists()
    assert (tmp_path / "summary.md").exists()


@pytest.mark.parametrize(("before", "after"), [(0, 4), (1, 1), (143, 143)])
def test_a_pass_without_the_report_that_was_asked_for_is_none(tmp_path: Path, before: int, after: int) -> None:
    terminal = Terminal(Console(file=io.StringIO()))

    code = batch._report(
        [tmp_path / "no.json"], [], "", code=before, files=ReportFiles(junit=tmp_path / "x"), terminal=terminal
    )

    assert code == after


def test_a_signal_before_an_experiment_begins_is_no_pass(tmp_path: Path) -> None:
    arena = ScriptedArena()
    arena.interrupt.request(15)
    journals: list[Path] = []

    def no_stage() -> RunEnvironment:
        raise AssertionError("no run may begin")

    findings: list[Finding] = []
    arena.drive(
        batch._run_all(
            [read_experiment(DOCUMENT, name="test.yaml")],
            stage=no_stage,
            interrupt=arena.interrupt,
            terminal=Terminal(Console(file=io.StringIO())),
            options=RunOptions(out=tmp_path),
            journals=journals,
            findings=findings,
        )
    )

    assert (exit_code(findings), journals, arena.calls) == (143, [], [])


def test_two_reports_in_one_file_are_refused_however_it_is_spelt(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is named twice"):
        prepare_reports(ReportFiles(html=tmp_path / "a", markdown=tmp_path / "." / "a"))
