"""Signals: what ends at once, what goes on to its end, and the exit code that follows."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.arena.docker.event_loop import drive
from chaos.arena.interrupt import STOP_SIGNALS, Interrupt
from chaos.cli.signals import Signalled, exit_code_of, held, install, reports_written
from chaos.run.batch import run_files
from chaos.run.options import RunOptions
from harness.errors import HarnessError
from harness.ports import Runtime
from harness.rig.lifecycle import compose_tool
from harness.rig.lifecycle.compose_tool import ComposeTool

LIMIT_S = 30.0


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_outside_a_section_ends_at_once(number: int) -> None:
    install()

    with pytest.raises(Signalled) as raised:
        send(number)

    assert exit_code_of(raised.value) == 128 + number


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_section_goes_on_to_its_end(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    install()
    done = []

    def work() -> None:
        with held("the rig is removed to its end"):
            for repeat in range(4):
                send(number)
                done.append(repeat)

    with pytest.raises(Signalled) as raised:
        work()

    assert done == [0, 1, 2, 3]
    assert exit_code_of(raised.value) == 128 + number
    first, again = capfd.readouterr().err.splitlines()
    assert first == f"blackstart: {signal.Signals(number).name}: the rig is removed to its end"
    assert "the clean-up is under way" in again


def test_a_section_gives_up_where_it_checks() -> None:
    install()

    with held("it is given up") as section:
        section.check()
        send(signal.SIGTERM)
        with pytest.raises(Signalled):
            section.check()
        section.complete()


def test_a_complete_section_is_no_longer_ended() -> None:
    install()

    with reports_written():
        send(signal.SIGINT)

    with pytest.raises(Signalled):
        send(signal.SIGINT)


def test_the_error_of_a_section_wins_over_its_signal() -> None:
    install()

    def fail() -> None:
        with held("it ends"):
            send(signal.SIGINT)
            raise HarnessError("something is left")

    with pytest.raises(HarnessError, match="left"):
        fail()


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heard: list[int | None] = []

    async def main(runtime: Runtime, interrupt: Interrupt) -> None:
        send(signal.SIGHUP)
        await runtime.sleep(1000)
        heard.append(interrupt.signal)

    install()
    drive(main)

    assert heard == [None]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_every_stop_signal_is_a_request_to_a_run(number: int) -> None:
    install()
    said: list[str] = []

    async def main(runtime: Runtime, interrupt: Interrupt) -> int | None:
        interrupt.listen(said.append)
        for _ in range(3):
            send(number)
            await runtime.sleep(1000)
        return interrupt.signal

    assert drive(main) == number
    assert len(said) == 2
    assert said[0].startswith(f"{signal.Signals(number).name}: the run ends here")
    assert "the clean-up is under way" in said[1]
    with pytest.raises(Signalled):  # the loop has given the handlers back
        send(number)


LONG = """
title: a run that is ended by a signal
rig: {nodes: 3, groups: 1}
method:
  - {type: action, name: crash, provider: {type: fault, fault: vm.crash, target: web1-vm}, pauses: {after: 50000}}
"""


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize("times", [1, 2])
def test_a_run_ends_with_the_code_of_its_signal(tmp_path: Path, number: int, times: int) -> None:
    (tmp_path / "run.yaml").write_text(LONG)
    blackstart = Path(sys.executable).with_name("blackstart")

    process = subprocess.Popen(
        [blackstart, "run", "--arena", "sim", "run.yaml"], cwd=tmp_path, text=True, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    shown = ""
    while "crash: pause" not in shown:
        line = process.stdout.readline()
        assert line, f"the run ended before its pause:\n{shown}"
        shown += line
    for _ in range(times):
        process.send_signal(number)
    rest, _ = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 128 + number
    assert "holds nothing left behind" in rest


def test_reports_are_whole_whatever_signal_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.yaml").write_text("title: x\nrig: {nodes: 1, groups: 1}\nmethod: []\n")
    monkeypatch.chdir(tmp_path)
    install()
    from chaos.report.report_files import ReportFiles
    from chaos.run import batch

    def write(*_: object, **__: object) -> list[str]:
        send(signal.SIGINT)
        (tmp_path / "x.md").write_text("whole")
        return []

    monkeypatch.setattr(batch, "write_reports", write)
    options = RunOptions(arena="sim", reports=ReportFiles(markdown=Path("x.md")))

    assert run_files([Path("run.yaml")], options=options, unbroken=reports_written) in (0, 6)
    assert (tmp_path / "x.md").read_text() == "whole"


class Tool:
    """A Compose tool that is a shell script."""

    def __init__(self, directory: Path, script: str) -> None:
        self.file = directory / "compose.yaml"
        self.file.write_text("")
        program = directory / "tool"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        self.tool = ComposeTool(command=(str(program),))

    def run(self) -> None:
        self.tool.run("rig", self.file, "up")


def test_the_compose_tool_is_out_of_reach_of_the_terminal(tmp_path: Path) -> None:
    Tool(tmp_path, f"ps -o pgid= -p $$ > {tmp_path}/group").run()

    assert int((tmp_path / "group").read_text()) != os.getpgrp()


def test_a_compose_tool_that_hangs_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin is a child of the tool; it holds the pipe, and it would go on creating objects."""
    monkeypatch.setattr(compose_tool, "RUN_LIMIT_S", 0.5)
    monkeypatch.setattr(compose_tool, "END_LIMIT_S", 0.5)
    began = time.monotonic()

    with pytest.raises(HarnessError, match="had not ended after"):
        Tool(tmp_path, f"trap '' TERM\nsleep 600 & echo $! > {tmp_path}/child\nwait; sleep 600").run()

    assert time.monotonic() - began < LIMIT_S
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + LIMIT_S
    while Path(f"/proc/{child}/stat").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the tool's child is still there"
        time.sleep(0.05)
