"""JUnit XML and the Markdown summary: what a CI server shows is never better than the exit code."""

import re
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from recorded_runs import Recorded, power_cut, step
from scripted_arena import SECOND, Script, ScriptedArena, failure, gap, interrupt_at
from test_runner import Ran

from chaos.history.verdict import ExitCode
from chaos.report.junit import render_junit
from chaos.report.markdown import MAX_ROWS, render_markdown
from chaos.report.run_record import RunRecord, read_journal

SCRIPTS = {
    "passes": (Script(), ExitCode.PASSED),
    "never recovers": (Script(never_recovers=True), ExitCode.BROKEN),
    "runs twice": (Script(starts_before_fence=True), ExitCode.BROKEN),
    "no steady state": (Script(never_online=True), ExitCode.NO_STEADY_STATE),
    "fault not confirmed": (Script(crash_does_nothing=True), ExitCode.INCONCLUSIVE),
    "events lost": (Script(lost_events=True), ExitCode.INCONCLUSIVE),
    "journals unreadable": (Script(journals_unreadable=True), ExitCode.INCONCLUSIVE),
    "event gap": (Script(at={SECOND: gap}), ExitCode.INCONCLUSIVE),
    "up fails": (Script(up_raises=failure("no engine")), ExitCode.HARNESS),
    "something is left": (Script(leaves=("a container",)), ExitCode.CLEANUP),
    "terminated": (Script(at=interrupt_at(3 * SECOND, 15)), ExitCode.TERMINATED),
}


def record(recorded: Recorded, directory: Path) -> RunRecord:
    return read_journal(recorded.write(directory))


def cases(root: Element, tag: str) -> list[str]:
    return [case.get("name", "") for case in root.iter("testcase") if case.find(tag) is not None]


@pytest.mark.parametrize(("script", "code"), SCRIPTS.values(), ids=SCRIPTS)
def test_junit_has_a_failure_or_an_error_exactly_when_the_exit_code_is_not_0(
    tmp_path: Path, script: Script, code: ExitCode
) -> None:
    ran = Ran(ScriptedArena(script), tmp_path)
    assert ran.code is code, ran.reasons

    root = ElementTree.fromstring(render_junit([read_journal(ran.out / "journal.json")]))

    against = cases(root, "failure") + cases(root, "error")
    assert bool(against) == (code is not ExitCode.PASSED)
    assert ("verdict" in against) == (code is not ExitCode.PASSED)
    for element in (root, *root.iter("testsuite")):
        assert element.get("tests") == str(len(list(element.iter("testcase"))))
        assert element.get("failures") == str(len(cases(element, "failure")))
        assert element.get("errors") == str(len(cases(element, "error")))


@pytest.mark.parametrize(
    ("script", "case"),
    [
        (SCRIPTS["events lost"][0], "at-most-one-instance, engine events"),
        (SCRIPTS["journals unreadable"][0], "at-most-one-instance, guests' journals"),
        (SCRIPTS["fault not confirmed"][0], "crash"),
    ],
)
def test_what_is_inconclusive_is_an_error_and_never_passed(tmp_path: Path, script: Script, case: str) -> None:
    ran = Ran(ScriptedArena(script), tmp_path)

    root = ElementTree.fromstring(render_junit([read_journal(ran.out / "journal.json")]))

    assert case in cases(root, "error")
    assert {error.get("type") for error in root.iter("error")} == {"inconclusive"}


def test_there_is_a_case_for_each_step_and_each_checker(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(), tmp_path)

    root = ElementTree.fromstring(render_junit([read_journal(ran.out / "journal.json")]))

    assert [(case.get("classname"), case.get("name")) for case in root.iter("testcase")] == [
        ("test.gate", "all online"),
        ("test.method", "crash"),
        ("test.method", "crash recovered"),
        ("test.method", "cut the power"),
        ("test.method", "recovered"),
        ("test.after", "all online"),
        ("test.rollbacks", "power on"),
        ("test.checkers", "at-most-one-instance, engine events"),
        ("test.checkers", "at-most-one-instance, guests' journals"),
        ("test.checkers", "invariants of the simulator"),
        ("test.checkers", "wanted online at the end"),
        ("test.checkers", "recovery"),
        ("test.checkers", "nothing left behind"),
        ("test", "verdict"),
    ]


def test_the_checkers_of_a_run_without_steady_state_are_skipped_and_say_why(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(never_online=True)), tmp_path)

    root = ElementTree.fromstring(render_junit([read_journal(ran.out / "journal.json")]))

    assert "wanted online at the end" in cases(root, "skipped")
    assert cases(root, "error") == ["all online", "verdict"]


def test_an_experiment_that_never_began_and_a_failure_beside_all_of_them_are_errors(tmp_path: Path) -> None:
    run = record(Recorded(power_cut()), tmp_path)

    root = ElementTree.fromstring(render_junit([run], not_started=["dir/second.yaml"]))
    failed = ElementTree.fromstring(render_junit([run], problem="a part of the runner failed"))

    assert [suite.get("name") for suite in root if suite.get("errors") == "1"] == ["second"]
    assert [error.text for error in failed.iter("error")] == ["a part of the runner failed"]


def test_text_that_xml_cannot_carry_still_makes_a_document(tmp_path: Path) -> None:
    hostile = "]]></failure>\x00\x1b[31m\ud800\uffff<a href='x'>&amp;\""
    recorded = Recorded([step(1, 2, hostile, "failed", reason=hostile)], title=hostile, exit_code=1)

    text = render_junit([record(recorded, tmp_path)], problem=hostile)

    root = ElementTree.fromstring(text.encode("utf-8"))
    name = root.findall(".//testcase")[0].get("name", "")
    assert "]]></failure>" in name
    assert "\x1b" not in name


def test_the_summary_begins_with_title_verdict_and_exit_code(tmp_path: Path) -> None:
    findings = [{"kind": "broken", "reason": "web-vm ran twice"}]

    text = render_markdown([record(Recorded(power_cut(), exit_code=1, findings=findings), tmp_path)])

    assert text.startswith("## A test\n\n**An expectation or an invariant broke** (exit code 1), 10.0 s, some/")
    assert "- **broken**: web-vm ran twice\n" in text
    assert "| web-vm | 1 node.power-off node1 | node1 | node2 | 2.000 | 2.300 | 2.600 | 2.900 |" in text
    assert text.endswith("2 of 2 steps succeeded.\n")


def test_no_text_of_a_journal_becomes_a_mark_a_link_or_a_second_line(tmp_path: Path) -> None:
    hostile = "x\n# big | ![a](http://evil/x.png) <img src=x> `code` **bold** @all www.evil https://evil $x$"

    text = render_markdown([record(Recorded([step(1, 2, hostile, "failed", reason=hostile)], title=hostile), tmp_path)])

    plain = re.sub(r"\\.", "", text)
    assert "big" in text
    for mark in ("](", "<img", "`code", "@all", "://", "www."):
        assert mark not in plain
    assert [line for line in text.splitlines() if line.startswith("# ")] == []
    rows = [line for line in text.splitlines() if line.startswith("| method")]
    assert [re.sub(r"\\.", "", row).count("|") for row in rows] == [5], "a cell stays a cell"


def test_a_long_table_is_cut_and_the_number_is_told(tmp_path: Path) -> None:
    steps = [step(1, 2, f"step {number}", "failed") for number in range(MAX_ROWS + 3)]

    text = render_markdown([record(Recorded(steps, exit_code=1), tmp_path)])

    assert "3 further rows are not shown." in text


def test_an_experiment_that_never_began_is_named_in_the_summary(tmp_path: Path) -> None:
    run = record(Recorded(power_cut()), tmp_path)

    assert "**Not started:** second.yaml" in render_markdown([run], not_started=["second.yaml"])
