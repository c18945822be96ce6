"""Reports of a run that was killed, or whose rig was kept: the faults that are still injected, and the remedy."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from scripted_arena import Script, ScriptedArena, failure
from scripted_run import DOCUMENT, Ran

from chaos.report.junit import render_junit
from chaos.report.left_open import read_left_open
from chaos.report.markdown import render_markdown
from chaos.report.page import render_page
from chaos.report.run_record import RunRecord, read_journal

REPAIR = "blackstart repair --name test"


def killed(directory: Path, *, after: str, arena: str = "scripted") -> RunRecord:
    """The run whose journal ends with the first line that has `after` in it."""
    ran = Ran(ScriptedArena(), directory)
    whole = (ran.out / "journal.jsonl").read_text().split("\n")
    end = next(number for number, line in enumerate(whole) if after in line)
    cut = directory / "cut.jsonl"
    cut.write_text("\n".join(whole[: end + 1]).replace('"arena": "scripted"', f'"arena": "{arena}"'))
    return read_journal(cut)


def test_a_killed_run_has_its_open_faults_newest_first(tmp_path: Path) -> None:
    left = read_left_open(killed(tmp_path, after='"part": "rollbacks"'))

    assert left is not None
    (power,) = left.faults
    assert power.startswith("node.power-off on node1, ")
    assert "(last record: confirmed, " in power
    assert f"`{REPAIR}` heals them" in left.remedy
    assert "`blackstart down --name test` removes its rig" in left.remedy


def test_a_fault_that_was_only_intended_may_be_injected(tmp_path: Path) -> None:
    left = read_left_open(killed(tmp_path, after='"number": 2'))

    assert left is not None
    assert "about to be injected when the journal ends" in left.faults[0]


def test_a_run_that_was_killed_before_its_first_fault_may_have_left_its_rig(tmp_path: Path) -> None:
    left = read_left_open(killed(tmp_path, after='"part": "gate"'))

    assert left is not None
    assert left.faults == ()
    assert REPAIR not in left.remedy
    assert "blackstart down --name test" in left.remedy


def test_a_simulated_run_leaves_nothing(tmp_path: Path) -> None:
    assert read_left_open(killed(tmp_path, after='"part": "rollbacks"', arena="sim")) is None


def test_a_run_that_took_its_rig_down_leaves_nothing(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(), tmp_path)

    assert read_left_open(read_journal(ran.out / "journal.json")) is None


def test_a_kept_rig_with_a_fault_in_it_is_told(tmp_path: Path) -> None:
    document = DOCUMENT[: DOCUMENT.index("rollbacks:")]
    ran = Ran(ScriptedArena(Script(power_on_raises=failure("the engine hangs"))), tmp_path, document, keep_rig=True)

    left = read_left_open(read_journal(ran.out / "journal.json"))

    assert left is not None
    assert [fault.partition(",")[0] for fault in left.faults] == ["node.power-off on node1"]
    assert left.remedy.startswith(f"`{REPAIR}` heals them")


@pytest.mark.parametrize("render", [render_markdown, render_page, render_junit])
def test_every_report_names_fault_and_remedy(tmp_path: Path, render: object) -> None:
    assert callable(render)
    text = render([killed(tmp_path, after='"part": "rollbacks"')]).replace("\\", "")

    assert "node.power-off on node1" in text
    assert REPAIR in text


def test_an_open_fault_is_an_error_of_its_own(tmp_path: Path) -> None:
    root = ElementTree.fromstring(render_junit([killed(tmp_path, after='"part": "rollbacks"')]))

    (case,) = (case for case in root.iter("testcase") if case.get("name") == "still injected")
    error = case.find("error")
    assert error is not None
    assert "node.power-off on node1" in str(error.text)
    assert json.dumps(root.get("errors")) != '"0"'
