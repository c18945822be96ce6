"""Reading a journal back: everything of a run that ended, as much as there is of one that was killed, no rubbish."""

import json
from importlib import metadata
from pathlib import Path

import pytest
from recorded_runs import Recorded, power_cut
from scripted_arena import Script, ScriptedArena
from test_runner import Ran

from chaos.cli.main import run_command
from chaos.history.records import History
from chaos.history.recovery import read_recoveries
from chaos.history.verdict import ExitCode
from chaos.report.page import render_page
from chaos.report.run_record import read_journal
from chaos.report.steps import read_steps
from harness.errors import UsageError

VERSION_HERE = f'"version": "{metadata.version("blackstart")}"'


def test_every_record_of_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(), tmp_path)

    run = read_journal(ran.out / "journal.json")

    assert list(run.history) == list(ran.arena.history)
    assert run.left_out == 0
    assert (run.title, run.file, run.code) == ("A test", "test.yaml", ExitCode.PASSED)
    assert run.verdicts == ran.result.verdicts
    assert run.nodes == ("node1", "node2", "node3")
    assert [(group.name, group.vms) for group in run.groups] == [("web", ("web-vm",)), ("data", ("data-vm",))]
    assert read_recoveries(run.history) == read_recoveries(ran.arena.history)


def test_the_lines_of_a_run_tell_the_same_as_its_document(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(never_recovers=True)), tmp_path)

    lines, document = (read_journal(ran.out / name) for name in ("journal.jsonl", "journal.json"))

    assert list(lines.history) == list(document.history)
    assert (lines.code, lines.findings, lines.verdicts) == (document.code, document.findings, document.verdicts)
    assert lines.groups == document.groups


def test_a_run_that_was_killed_has_a_page_without_a_verdict(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(), tmp_path)
    whole = (ran.out / "journal.jsonl").read_text().splitlines()
    cut = tmp_path / "cut.jsonl"
    cut.write_text("\n".join(whole[: len(whole) // 2]) + '\n{"record": "LogLi')

    run = read_journal(cut)

    assert run.code is None
    assert not run.passed
    assert run.left_out == 1, "the torn line"
    assert 0 < len(run.history) < len(ran.arena.history)
    assert "no verdict: the run did not come to its end" in render_page([run])


def test_steps_that_were_never_reached_are_told(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(never_recovers=True)), tmp_path)

    steps = read_steps(read_journal(ran.out / "journal.json"))

    assert [(step.phase, step.name, step.outcome) for step in steps if step.outcome != "succeeded"] == [
        ("method", "crash recovered", "failed"),
        ("method", "cut the power", "not reached"),
        ("method", "recovered", "not reached"),
        ("after", "all online", "not reached"),
        ("rollbacks", "power on", "skipped"),
    ]
    assert next(step for step in steps if step.name == "crash").what == "vm.crash on web-vm"
    assert next(step for step in steps if step.name == "crash recovered").expected == "0 to 1"


def test_a_record_that_does_not_fit_is_left_out_and_counted(tmp_path: Path) -> None:
    document = Recorded(power_cut()).document()
    good = len(document["history"])
    document["history"] += [
        {"record": "NoSuchThing", "at_ns": 1},
        {"record": "Stall", "at_ns": "soon", "length_us": 1},
        {"record": "Stall", "at_ns": 1, "length_us": 1, "unheard": "of"},
        {"record": ["Stall"]},
        "no record",
        None,
    ]
    path = tmp_path / "journal.json"
    path.write_text(json.dumps(document))

    run = read_journal(path)

    assert (len(run.history), run.left_out) == (good, 6)
    assert "6 entries of the journal could not be read" in render_page([run])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not say that a run began"),
        ("{}", "no keys `blackstart` and `history`"),
        ("[1]", "does not say that a run began"),
        ('{"blackstart": {}, "history": []}', "began_ns"),
        ('{"blackstart": {"began_ns": 1, "ended_ns": 1, "exit_code": 99}, "history": []}', "99 is not a valid"),
        ('{"record": "Stall", "at_ns": 1, "length_us": 1}', "does not say that a run began"),
        ("[" * 100_000, "expected the journal.json"),
    ],
)
def test_what_is_no_journal_is_refused_with_its_name(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)

    with pytest.raises(UsageError, match=why) as refused:
        read_journal(path)

    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json: cannot be read: No such file"):
        read_journal(tmp_path / "none.json")


def test_a_rig_that_nobody_planned_is_known_from_what_was_seen(tmp_path: Path) -> None:
    document = Recorded(power_cut()).document()
    del document["blackstart"]["topology"]
    path = tmp_path / "journal.json"
    path.write_text(json.dumps(document))

    run = read_journal(path)

    assert run.nodes == ("node1", "node2")
    assert [(group.name, group.vms) for group in run.groups] == [("web", ("web-vm",))]
    assert isinstance(run.history, History)


def of_version(version: str, directory: Path) -> Path:
    path = Recorded(power_cut()).write(directory)
    path.write_text(path.read_text().replace(VERSION_HERE, f'"version": "{version}"'))
    return path


def test_a_journal_of_another_version_whose_entries_fit_is_reported_with_a_remark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = of_version("0.0.9", tmp_path)

    assert run_command(["report", str(path)]) == 0

    told, remark = capsys.readouterr(), read_journal(path).remark
    assert remark.startswith("a journal of version 0.0.9, read by version ")
    assert told.err == f"{path}: {remark}\n"
    assert f"This is {remark}." in told.out
    assert f"This is {remark}." in render_page([read_journal(path)])


def test_a_journal_of_this_version_is_reported_without_a_remark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(ScriptedArena(), tmp_path)

    assert run_command(["report", str(ran.out / "journal.json"), str(ran.out / "journal.jsonl")]) == 0

    assert capsys.readouterr().err == ""


def test_a_journal_of_another_version_with_an_entry_that_does_not_fit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = of_version("0.0.9", tmp_path)
    path.write_text(path.read_text().replace('"record": "CleanUp"', '"record": "TidyUp"'))

    assert run_command(["report", str(path)]) == 2

    told = capsys.readouterr()
    assert f"{path}: it is of version 0.0.9: version " in told.err
    assert "cannot read 1 of its entries; expected the journal.json of a run of this version" in told.err
    assert told.out == ""


def test_a_torn_line_refuses_no_lines_of_another_version(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(), tmp_path)
    lines = (ran.out / "journal.jsonl").read_text()
    cut, touched = tmp_path / "cut.jsonl", tmp_path / "touched.jsonl"
    defect = '{"record": "traceback", "part": "method", "text": "a defect"}\n'
    cut.write_text(lines.replace(VERSION_HERE, '"version": "0.0.9"') + defect + '{"record": "LogLi')
    touched.write_text(lines.replace(VERSION_HERE, '"version": "0.0.9"') + '{"record": "NoSuchThing", "at_ns": 1}\n')

    run = read_journal(cut)

    assert (run.version, run.left_out) == ("0.0.9", 1)
    with pytest.raises(UsageError, match=r"version 0\.0\.9: .* cannot read 1 of its entries"):
        read_journal(touched)
