"""A folder for each run below `--out`, whatever the files are called, and one command at a time that writes there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from chaos.cli.main import run_command
from chaos.run.output_folder import LOCK_FILE, OutputFolder, held_output, refuse_held
from harness.errors import HarnessError, UsageError

FAILS = """
title: a recovery time above the threshold fails
rig: {nodes: 3, groups: 2}
method:
  - {type: action, name: crash, provider: {type: fault, fault: vm.crash, target: web1-vm}}
  - type: probe
    name: within a millisecond
    provider: {type: cluster, probe: recovery-time, group: web1}
    tolerance: {type: range, range: [0, 0.001]}
    until: {timeout: 20s}
"""
PASSES = """
title: quick
rig: {nodes: 3, groups: 2}
method:
  - {type: action, name: crash, provider: {type: fault, fault: vm.crash, target: web1-vm}, pauses: {after: 4s}}
"""
HOLD = """
import sys
from pathlib import Path
from chaos.run.output_folder import held_output
with held_output(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def same_name(tmp_path: Path) -> list[Path]:
    """Two files with one name: the first fails, the second passes."""
    files = [tmp_path / place / "failover.yaml" for place in ("a", "b")]
    for file, text in zip(files, (FAILS, PASSES), strict=True):
        file.parent.mkdir()
        file.write_text(text)
    return files


def test_failure_of_the_first_of_two_files_with_one_name_is_kept(same_name: list[Path], tmp_path: Path) -> None:
    """The second journal replaced the first, and the reports were made of it twice."""
    reports = ["--junit", str(tmp_path / "j.xml"), "--markdown", str(tmp_path / "m.md")]
    out = tmp_path / "out"

    code = run_command(["run", "--arena", "sim", "--out", str(out), *reports, *map(str, same_name)])

    assert code == 1
    codes = [json.loads(path.read_text())["blackstart"]["exit_code"] for path in sorted(out.glob("*/journal.json"))]
    assert codes == [1, 0]
    suites = list(ElementTree.parse(tmp_path / "j.xml").getroot())
    assert [suite.get("name") for suite in suites] == [str(file) for file in same_name]
    assert [suite.get("file") for suite in suites] == [str(file) for file in same_name]
    assert [int(suite.get("failures", "0")) > 0 for suite in suites] == [True, False]
    assert all(str(file) in (tmp_path / "m.md").read_text().replace("\\", "") for file in same_name)


def test_one_file_twice_has_two_folders_and_two_suites(same_name: list[Path], tmp_path: Path) -> None:
    out, file = tmp_path / "out", str(same_name[1])

    run_command(["run", "--arena", "sim", "--out", str(out), "--junit", str(tmp_path / "j.xml"), file, file])

    assert sorted(path.parent.name for path in out.glob("*/journal.json")) == ["failover-1", "failover-2"]
    assert [suite.get("name") for suite in ElementTree.parse(tmp_path / "j.xml").getroot()] == [
        "failover",
        "failover (2)",
    ]


def test_journal_of_the_latest_run_is_found_in_out(same_name: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"

    for file, code in zip(same_name, (1, 0), strict=True):
        assert run_command(["run", "--arena", "sim", "--out", str(out), str(file)]) == code
        assert json.loads((out / "journal.json").read_text())["blackstart"]["exit_code"] == code
        assert (out / "journal.jsonl").is_file()
        assert (out / "evidence").is_dir() == (code == 1)  # never that of an earlier run


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("x/node-power-cut.yaml", "node-power-cut-1"),
        ("..yaml", "run-1"),
        ("-.yaml", "run-1"),
        ("a b/ü\n.yaml", "run-1"),
        ("My Test_2.yml", "My-Test_2-1"),
        ("a" * 300 + ".yaml", "a" * 60 + "-1"),
        ("journal.json", "journal-1"),
    ],
)
def test_folder_is_named_after_the_file(tmp_path: Path, file: str, folder: str) -> None:
    assert OutputFolder(tmp_path).new_run(file) == tmp_path / folder


def test_folder_of_an_earlier_run_is_never_used_again(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path)
    (tmp_path / "quick-7").mkdir()
    (tmp_path / "quick-8x").mkdir()

    assert [output.new_run("quick.yaml").name for _ in range(2)] == ["quick-8", "quick-9"]


def test_file_of_the_user_in_the_place_of_a_link_stays(tmp_path: Path) -> None:
    (tmp_path / "journal.json").write_text('{"precious": true}')
    (tmp_path / "journal.jsonl").write_text('{"record": "run-began"}\n')

    OutputFolder(tmp_path).new_run("quick.yaml")

    assert not (tmp_path / "journal.json").is_symlink()
    assert (tmp_path / "journal.jsonl").is_symlink()


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(HarnessError, match=r"cannot make a folder for quick\.yaml"):
        OutputFolder(tmp_path / "file").new_run("quick.yaml")
    with pytest.raises(UsageError, match="name another place with --out"), held_output(tmp_path / "file"):
        pass


class TestHeld:
    def test_second_command_is_refused_until_the_first_dies(
        self, same_name: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The kernel releases the lock of a process that was killed."""
        out, report = tmp_path / "out", tmp_path / "j.xml"
        command = ["run", "--arena", "sim", "--out", str(out), "--junit", str(report), str(same_name[1])]
        report.write_text("")
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"

            assert run_command(command) == 2

            told = capsys.readouterr().err
            assert re.search(rf"process {holder.pid}, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", told)
            assert "--out" in told
            assert report.exists()
            assert [path.name for path in out.iterdir()] == [LOCK_FILE]
            holder.kill()
        assert run_command(command) == 0

    def test_folder_that_nobody_holds_is_not_refused(self, tmp_path: Path) -> None:
        refuse_held(tmp_path / "none")
        assert not (tmp_path / "none").exists()

        with held_output(tmp_path / "out"):
            (tmp_path / "out" / "something").touch()

        refuse_held(tmp_path / "out")
        assert (tmp_path / "out" / "something").exists()

    def test_folder_is_removed_when_nothing_came_into_it(self, tmp_path: Path) -> None:
        """A run that is refused leaves nothing; a folder that was there before stays."""
        (tmp_path / "mine").mkdir()

        for place in ("mine", "made"):
            with held_output(tmp_path / place):
                pass

        assert [path.name for path in tmp_path.iterdir()] == ["mine"]

    def test_lock_is_no_link_to_another_file(self, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("precious")
        os.symlink(tmp_path / "precious", tmp_path / LOCK_FILE)

        with pytest.raises(UsageError), held_output(tmp_path):
            pass

        assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("option", ["--html", "--junit", "--markdown", "--journal"])
def test_output_is_never_the_experiment_itself(
    option: str, same_name: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = same_name[1]

    assert run_command(["run", "--arena", "sim", "--out", str(tmp_path / "out"), option, str(file), str(file)]) == 2
    assert "name another place" in capsys.readouterr().err
    assert file.read_text() == PASSES
