"""The command line: help, exit codes, and messages that a person can act on. No engine is needed."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from chaos.arena.interrupt import STOP_SIGNALS
from chaos.cli.main import cli, run_command
from chaos.cli.output import print_table
from chaos.cli.signals import Signalled
from chaos.faults import FAULTS
from harness.errors import (
    ApiUnanswered,
    BlackstartError,
    CleanupError,
    ConditionUnmet,
    EngineUnanswered,
    HarnessError,
    NotOnline,
    RequestRefused,
    UsageError,
)

COMMANDS = (
    *("compose", "doctor", "down", "events", "group", "images", "logs", "node", "quorum", "report", "resource", "run"),
    *("replay", "search", "shrink", "status", "up", "validate", "vm", "wait"),
)
VERBS = {
    "group": {"list", "show", "online", "offline", "move"},
    "resource": {"list", "show", "online", "offline", "fail"},
    "node": {"list", "show", "pause", "resume", "power-off", "power-on"},
    "vm": {"list", "show", "start", "stop", "logs"},
    "wait": {"all-online", "node-up", "group-online"},
}
WITHOUT_EXAMPLE = {"images build", "images list"}


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")


def test_help_names_every_command_examples_and_exit_codes() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output

    assert all(f"  {command} " in shown for command in COMMANDS)
    assert "blackstart run chaos/experiments/node-power-cut.yaml" in shown
    assert "  5         clean-up is incomplete" in shown


def every_command(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(every_command()), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"])

    assert result.exit_code == 0
    assert f"  blackstart {' '.join(path)}" in result.output or " ".join(path) in WITHOUT_EXAMPLE


@pytest.mark.parametrize("name", VERBS)
def test_each_kind_of_object_has_its_verbs(name: str) -> None:
    kind = cli.commands[name]

    assert isinstance(kind, click.Group)
    assert set(kind.commands) == VERBS[name]


def test_help_imports_no_engine_client_no_runner_and_no_simulator() -> None:
    import subprocess
    import sys

    program = (
        "import sys; from chaos.cli.main import run_command; run_command(['--help']); "
        "print(sorted({'docker', 'rich', 'yaml', 'chaos.run.runner', 'harness.simulation'} & set(sys.modules)), "
        "file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["up", "--nodes", "many"],
        ["up", "--nodes", "0"],
        ["up", "--nodes", "3", "--topology", "x.yaml"],
        ["up", "--topology", "missing.yaml"],
        ["up", "--name", "Not_A_Name"],
        ["run"],
        ["validate", "missing.yaml"],
        ["group", "move"],
        ["group", "online", "web1", "--timeout", "0"],
        ["group", "online", "web1", "--timeout", "soon"],
        ["node", "resume", "node1", "--failback", "maybe"],
        ["wait", "forever"],
        ["events", "--since", "yesterday"],
        ["logs", "node1", "--tail", "-1"],
    ],
)
def test_wrong_usage_ends_with_two(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(arguments) == 2
    assert capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["up"], ["status"], ["group", "move", "web1"], ["vm", "stop", "n/m"], ["events"], ["images", "build"]]
)
def test_without_an_engine_one_message_says_what_to_install(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(arguments) == 4

    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1
    assert "no container engine answers at unix:///nowhere/docker.sock" in said
    assert "install" in said


def test_doctor_without_an_engine_is_a_finding_for_each_fault(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["doctor", "--json"]) == 4

    report = json.loads(capfd.readouterr().out)
    assert report["health"] == "fail"
    assert next(check for check in report["checks"] if check["name"] == "engine")["advice"]
    assert {fault["fault"] for fault in report["faults"]} == FAULTS.keys()
    assert not any(fault["available"] for fault in report["faults"])
    assert all(fault["why_not"] for fault in report["faults"])


def test_doctor_names_the_faults_that_only_schedules_have(capfd: pytest.CaptureFixture[str]) -> None:
    run_command(["doctor", "--json"])
    named = json.loads(capfd.readouterr().out)["only_in_schedules"]

    run_command(["doctor"])

    (line,) = (line for line in capfd.readouterr().out.splitlines() if "network.lossy" in line)
    assert line.split("  ", 1) == ["sim, schedules of `search` only", ", ".join(named)]


def test_validate_names_file_line_and_the_expected_form(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("title: x\nrig:\n  nodes: 99\nmethod: []\n")

    assert run_command(["validate", str(file)]) == 2

    assert f"{file}:3: nodes is 99, expected a whole number from 1 to 64" in capfd.readouterr().err


def test_validate_speaks_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("rig: {nodes: 99}\n")

    assert run_command(["validate", "--json", str(file)]) == 2

    (result,) = json.loads(capfd.readouterr().out)
    assert not result["valid"]
    assert any("nodes is 99" in error for error in result["errors"])


def test_compose_prints_a_rig_of_ones_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rig.yaml"
    file.write_text("nodes: [alpha]\ngroups: []\n")

    assert run_command(["compose", "--topology", str(file), "--name", "mine"]) == 0

    assert "container_name: mine-alpha" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestRefused("no", code="refused"), 1),
        (ConditionUnmet("late"), 1),
        (NotOnline(waited_for="groups", saw="web-vm is Failed", limit_s=1), 1),
        (UsageError("wrong"), 2),
        (ApiUnanswered("perhaps"), 4),
        (HarnessError("broken"), 4),
        (EngineUnanswered("silent"), 4),
        (CleanupError("left"), 5),
        (KeyboardInterrupt(), 130),
        *((Signalled(number), 128 + number) for number in STOP_SIGNALS),
        (ZeroDivisionError("a defect of ours"), 4),
    ],
)
def test_every_error_has_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli.commands["doctor"], "callback", fail)
    monkeypatch.setattr(cli.commands["doctor"], "params", [])

    assert run_command(["doctor"]) == code

    said = capfd.readouterr().err
    assert (str(error) in said) if isinstance(error, BlackstartError) else said


def test_tables_have_no_colours_and_are_not_wrapped_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("state", "text"), [("[green]ok[/]", "word " * 60)], empty="")

    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 2
