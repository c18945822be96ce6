"""Printing fails without ending anything, and what guests and files write is shown, never sent to a terminal."""

import ast
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from chaos.arena.docker.log_stream import read_lines
from chaos.cli.log_commands import _print_event
from chaos.cli.main import run_command
from chaos.history.verdict import ExitCode, Finding, FindingKind
from chaos.output import printing
from chaos.output.printing import Stream, aside, console, echo, echo_json, guarded, reader_gone
from chaos.run.terminal import Terminal

ROOT = Path(__file__).parents[2]
HOSTILE = "a\x1b[2J\x1b]0;owned\a b\rc \u202ed \u2028e \x85f \ud800g"
RUNS_ELSEWHERE = {"client_probe.py", "crash_probe.py", "engine_probe.py", "inside_probe.py", "network_probe.py"}


class Failing(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, _: str, /) -> int:
        raise self.error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("closed file")])
def test_a_stream_that_fails_keeps_its_first_problem(error: Exception) -> None:
    stream = Stream(Failing(error))

    stream.write("lost")
    stream.write("lost too")
    stream.flush()

    assert stream.problem in ("No space left on device", "closed file")
    assert not stream.gone


def test_a_reader_that_has_gone_is_no_problem() -> None:
    stream = Stream(Failing(BrokenPipeError()))

    stream.write("unread")

    assert (stream.gone, stream.problem) == (True, "")


def test_a_character_beyond_the_encoding_is_an_escape() -> None:
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding="ascii"))

    stream.write("caf\u00e9 \U0001f4a5 \ud800\n")
    stream.flush()

    assert raw.getvalue() == b"caf\\xe9 \\U0001f4a5 \\ud800\n"
    assert stream.problem == ""


def test_a_stream_that_was_closed_at_the_start_takes_text() -> None:
    assert Stream(None).write("nothing") == 7


def test_a_console_goes_on_when_its_stream_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Stream(Failing(OSError(errno.ENOSPC, "full"))))

    terminal = Terminal(console())
    terminal.phase("a phase")
    terminal.verdict(ExitCode.PASSED, [], [])

    assert reader_gone()
    assert guarded().problem == "full"


def test_a_defect_of_the_renderer_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    class Screen:
        @aside
        def draw(self) -> None:
            raise ZeroDivisionError("a defect")

    Screen().draw()

    assert "cannot print draw: ZeroDivisionError: a defect" in capsys.readouterr().err


@pytest.mark.parametrize("err", [False, True])
def test_control_characters_are_shown(capsys: pytest.CaptureFixture[str], err: bool) -> None:
    echo(HOSTILE, err=err)

    told = capsys.readouterr()
    text = told.err if err else told.out
    assert text.count("\n") == 1
    assert not set(text) & set("\x1b\a\r\u202e\u2028\x85")
    assert text.startswith("a\N{REPLACEMENT CHARACTER}[2J")


def test_json_stays_json_and_has_no_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    echo_json({"text": f"{HOSTILE}\x7f"})

    text = capsys.readouterr().out
    assert text.isascii()
    assert all(character.isprintable() for character in text.rstrip("\n"))
    assert json.loads(text) == {"text": f"{HOSTILE}\x7f"}


def test_nothing_of_a_run_reaches_the_terminal_raw() -> None:
    screen = io.StringIO()
    terminal = Terminal(Console(file=screen, force_terminal=True, color_system=None, width=300))

    terminal.begin(HOSTILE, HOSTILE, HOSTILE)
    terminal.step(HOSTILE, "failed", HOSTILE, 1.0)
    terminal.note(HOSTILE)
    terminal.verdict(ExitCode.BROKEN, [Finding(kind=FindingKind.BROKEN, reason=HOSTILE)], [HOSTILE])

    shown = screen.getvalue()
    assert not set(shown) & set("\x1b\a\r\u202e\u2028\x85\ud800")
    assert shown.count("owned") == 8


def test_a_line_break_in_a_name_forges_no_line() -> None:
    screen = io.StringIO()

    Terminal(Console(file=screen, width=300)).step("x\nverdict: passed (exit code 0)", "succeeded", "", 0.0)

    assert [line for line in screen.getvalue().split("\n") if line.startswith("verdict")] == []


def test_every_text_goes_through_printing() -> None:
    """What prints by itself can fail, and can send a guest's control characters."""
    found = []
    for path in sorted((ROOT / "chaos").rglob("*.py")):
        if path.name in RUNS_ELSEWHERE or path == Path(printing.__file__) or "in_node" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            attribute = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if name in ("print", "click.echo", "click.secho", "Console", "traceback.print_exc"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
            if attribute in ("sys.stdout", "sys.stderr"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {attribute}")

    assert found == []


def test_results_that_cannot_be_written_are_no_success(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(OSError(errno.ENOSPC, "No space left on device")))

    assert run_command(["compose"]) == 4
    assert "cannot write to standard output: No space left on device" in capfd.readouterr().err
    assert run_command(["compose", "--nodes", "0"]) == 2


FILE = """
title: caf\u00e9 \U0001f4a5
rig: {nodes: 3, groups: 1}
method:
  - {type: action, name: "crash \U0001f4a5", provider: {type: fault, fault: vm.crash, target: web1-vm}}
"""


def run_in_the_simulator(directory: Path, **settings: object) -> "subprocess.CompletedProcess[str]":
    (directory / "run.yaml").write_text(FILE, encoding="utf-8")
    blackstart = Path(sys.executable).with_name("blackstart")
    command = [blackstart, "run", "--arena", "sim", "run.yaml"]
    return subprocess.run(command, cwd=directory, text=True, stderr=subprocess.PIPE, timeout=120, **settings)  # type: ignore[call-overload,no-any-return]


def test_a_run_on_a_full_disk_says_so_and_has_its_verdict(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run_in_the_simulator(tmp_path, stdout=full)

    assert done.returncode == 4
    assert "cannot write to standard output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "out" / "journal.json").read_text())["blackstart"]["exit_code"] == 0


def test_a_run_on_an_ascii_terminal_passes(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}

    done = run_in_the_simulator(tmp_path, stdout=subprocess.PIPE, env=environment)

    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "caf\\xe9" in done.stdout


def test_a_run_whose_streams_are_closed_passes(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(FILE, encoding="utf-8")
    blackstart = Path(sys.executable).with_name("blackstart")

    done = subprocess.run(
        ["sh", "-c", f"{blackstart} run --arena sim run.yaml <&- >&- 2>&-"], cwd=tmp_path, timeout=120, check=False
    )

    assert done.returncode == 0


class Engine:
    """The engine's log call, with these bytes."""

    def __init__(self, data: bytes) -> None:
        self.api = self
        self._data = data

    def logs(self, *_: object, **__: object) -> bytes:
        return self._data


def test_a_guests_log_is_split_at_line_feeds_only() -> None:
    stamp = "2026-11-22T20:15:00.000000001Z"
    text = "one\u2028two\x0bthree\x85four\rfive\x1csix"
    data = f"{stamp} {text}\n{stamp.replace('1Z', '2Z')} next\n".encode()

    lines = read_lines(Engine(data), "guest")  # type: ignore[arg-type]

    assert [line for _, line in lines] == [text, "next"]


def test_an_event_with_line_breaks_stays_one_entry(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"time": 1.0, "node": "node1", "component": "c", "event": "e", "id": None, "message": "a\n20:00 forged"}

    _print_event(record, False)

    first, *further = capsys.readouterr().out.rstrip("\n").split("\n")
    assert first.endswith("e: a")
    assert all(line.startswith(" " * 12) for line in further)


@pytest.mark.parametrize("arguments", [["validate"], ["run", "--dry"], ["run", "--arena", "sim"]])
def test_no_command_sends_what_a_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text('title: "\\e[2J\\e]0;owned\\a\\u202e"\nrig: {nodes: 3, groups: 1}\nmethod: []\n')

    run_command([*arguments, "bad.yaml"])

    told = capfd.readouterr()
    assert "owned" in told.out + told.err
    assert not set(told.out + told.err) & set("\x1b\a\r\u202e")
