"""The journal: lines as things happen, a whole document or the old one at the end."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from chaos.experiment.loader import read_experiment
from chaos.history.journal import Journal
from chaos.history.records import CleanUp, History, Stall, StepEnded, to_plain
from chaos.run.journal_document import about_experiment
from harness.errors import HarnessError


def test_a_record_is_in_the_file_as_soon_as_it_is_in_the_history(tmp_path: Path) -> None:
    journal, history = Journal(tmp_path / "out"), History()
    journal.follow(history)

    history.append(Stall(at_ns=1, length_us=2))
    history.append(CleanUp(at_ns=3, left=("a",)))

    lines = [json.loads(line) for line in journal.lines_path.read_text().splitlines()]
    assert lines == [
        {"record": "Stall", "at_ns": 1, "length_us": 2, "load": None},
        {"record": "CleanUp", "at_ns": 3, "left": ["a"], "kept": False},
    ]
    journal.close()


def test_a_new_run_takes_the_place_of_the_last_ones_files(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.write("run-began", {})
    first.assemble({"run": 1})
    first.close()

    second = Journal(tmp_path)

    assert second.lines_path.read_text() == ""
    assert not second.path.exists(), "a run that is killed must not show an earlier one's verdict"
    second.assemble({"run": 2})
    second.close()
    assert json.loads(second.path.read_text()) == {"run": 2}
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".new"] == []


def test_a_disk_that_does_not_take_a_line_ends_no_run_and_is_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.close()
    journal._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - the full disk of this test

    journal.write("anything", {"a": 1})

    journal.close()
    assert "is incomplete" in journal.error
    assert "No space left" in journal.error


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    with pytest.raises(HarnessError, match="cannot be written"):
        Journal(tmp_path / "out")


def test_a_document_with_a_history_is_json_with_a_line_for_each_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    records = [{"record": "Stall", "at_ns": at_ns, "length_us": 2} for at_ns in (1, 2)]

    journal.assemble({"a": {"b": [1]}, "history": records})

    journal.close()
    text = journal.path.read_text()
    assert json.loads(text) == {"a": {"b": [1]}, "history": records}
    assert [line for line in text.splitlines() if '"Stall"' in line] == [
        f"    {json.dumps(records[0])},",
        f"    {json.dumps(records[1])}",
    ]


def test_an_empty_document_and_an_empty_history_are_json_as_well(tmp_path: Path) -> None:
    journal = Journal(tmp_path)

    for document in ({}, {"history": []}, {"a": 1, "history": []}):
        journal.assemble(document)
        assert json.loads(journal.path.read_text()) == document

    journal.close()


@pytest.mark.parametrize("typed", ["./crash.yaml", "chaos/experiments/crash.yaml", "/home/somebody/crash.yaml"])
def test_from_where_a_run_was_started_leaves_no_trace_in_its_journal(typed: str) -> None:
    text = "title: a crash\nrig: {nodes: 3}\nmethod: []\n"

    told = [about_experiment(read_experiment(text, name=name)) for name in ("crash.yaml", typed)]

    assert told[0]["file"] == "crash.yaml"
    assert told[0] == told[1]


def test_numbers_that_json_lacks_become_text(tmp_path: Path) -> None:
    journal, history = Journal(tmp_path), History()
    journal.follow(history)

    history.append(StepEnded(at_ns=2, began_ns=1, phase="method", name="p", outcome="succeeded", output=math.nan))
    journal.assemble({"experiment": {"contributions": {"a": math.inf}}, "history": [to_plain({"b": -math.inf})]})

    (line,) = journal.lines_path.read_text().splitlines()
    assert strict(line)["output"] == "nan"
    document = strict(journal.path.read_text())
    assert document == {"experiment": {"contributions": {"a": "inf"}}, "history": [{"b": "-inf"}]}
    journal.close()


def strict(text: str) -> Any:
    """The JSON in `text`; Python's own names for numbers that JSON lacks are refused."""

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_journal_has_the_names_of_an_environment_without_values() -> None:
    text = (
        "title: a crash\nmethod: []\nrig:\n  nodes: 1\n  groups:\n    - name: db\n      resources:\n"
        "        - {name: vm, type: virtual-machine, environment: {TOKEN: sesame, SIZE: 3}}\n"
    )

    told = about_experiment(read_experiment(text, name="crash.yaml"))

    assert "sesame" not in json.dumps(told)
    assert told["experiment"]["rig"]["groups"][0]["resources"][0]["environment"] == {"TOKEN": "***", "SIZE": "***"}
    (vm,) = told["topology"]["groups"][0]["resources"]
    assert json.loads(vm["properties"]["environment"]) == {"TOKEN": "***", "SIZE": "***"}
