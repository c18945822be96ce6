"""Commands ended by signals on real containers: nothing is left, or it is named. `up` after one that was killed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from conftest import topology

from chaos.arena.interrupt import STOP_SIGNALS
from harness.errors import HarnessError, UsageError
from harness.model.object_names import node_container
from harness.rig.engine.exec import run_inside
from harness.rig.lifecycle import create
from harness.rig.lifecycle import rig as rig_module
from harness.rig.lifecycle.rig import Rig
from harness.rig.lifecycle.teardown import left_behind

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

BLACKSTART = Path(sys.executable).with_name("blackstart")
DOCUMENT = "nodes: 3\ngroups: 2\n"
EXPERIMENT = """
title: a run that a signal ends
rig: {nodes: 3, groups: 2}
method:
  - {type: action, name: cut off, provider: {type: fault, fault: node.isolate, target: node3}}
  - {type: action, name: hang, provider: {type: fault, fault: vm.hang, target: web1-vm}, pauses: {after: 60s}}
"""
UP_MOMENTS = ("making rig", "voters formed", "waiting for")
RUN_MOMENTS = ("Rig ", "voters formed", "Steady state before", "hang: pause")
LIMIT_S = 120.0


class Command:
    """A command of this project in a session of its own, as a terminal has it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [BLACKSTART, *arguments],
            cwd=directory,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.output = ""

    def wait_until_it_says(self, words: str) -> None:
        assert self.process.stdout is not None
        while words not in self.output:
            line = self.process.stdout.readline()
            assert line, f"it ended before it said {words!r}:\n{self.output}"
            self.output += line

    def interrupt(self, number: int, *, times: int) -> None:
        """To the whole group, as the terminal does it: the Compose tool must not be reached."""
        for _ in range(times):
            os.killpg(self.process.pid, number)

    def end(self) -> int:
        rest, _ = self.process.communicate(timeout=LIMIT_S)
        self.output += rest
        return self.process.returncode


def ended(command: Command, number: int, *, times: int) -> None:
    command.interrupt(number, times=times)
    code = command.end()
    assert code == 128 + number, command.output
    assert f"{signal.Signals(number).name}: " in command.output
    assert "Traceback" not in command.output


def interrupt_up(directory: Path, name: str, moment: str, number: int, times: int) -> None:
    file = directory / "rig.yaml"
    file.write_text(DOCUMENT)
    command = Command(directory, "up", "--topology", "rig.yaml", "--name", name)
    command.wait_until_it_says(moment)
    ended(command, number, times=times)


def interrupt_run(directory: Path, name: str, moment: str, number: int, times: int) -> None:
    (directory / "run.yaml").write_text(EXPERIMENT)
    command = Command(directory, "run", "--name", name, "run.yaml")
    command.wait_until_it_says(moment)
    ended(command, number, times=times)
    assert "holds nothing left behind" in command.output


@pytest.mark.parametrize(
    ("moment", "number", "times"),
    [("making rig", signal.SIGINT, 2), ("voters formed", signal.SIGHUP, 1), ("waiting for", signal.SIGQUIT, 2)],
)
def test_an_interrupted_up_leaves_nothing(
    engine: docker.DockerClient, rig_names: Callable[[], str], tmp_path: Path, moment: str, number: int, times: int
) -> None:
    name = rig_names()

    interrupt_up(tmp_path, name, moment, number, times)

    assert left_behind(engine, name) == []


@pytest.mark.parametrize(
    ("moment", "number", "times"), [("voters formed", signal.SIGQUIT, 1), ("hang: pause", signal.SIGHUP, 2)]
)
def test_an_interrupted_run_leaves_nothing(
    engine: docker.DockerClient, rig_names: Callable[[], str], tmp_path: Path, moment: str, number: int, times: int
) -> None:
    name = rig_names()

    interrupt_run(tmp_path, name, moment, number, times)

    assert left_behind(engine, name) == []


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_whatever_signal_comes_when_nothing_is_left(
    engine: docker.DockerClient, rig_names: Callable[[], str], tmp_path: Path, number: int, times: int
) -> None:
    for moments, interrupt in ((UP_MOMENTS, interrupt_up), (RUN_MOMENTS, interrupt_run)):
        for moment in moments:
            name = rig_names()
            interrupt(tmp_path, name, moment, number, times)
            assert left_behind(engine, name) == [], moment


def test_an_interrupted_down_removes_its_rig_to_the_end(
    engine: docker.DockerClient, make_rig: Callable[[str], Rig], tmp_path: Path
) -> None:
    rig = make_rig(DOCUMENT)
    whole = len(left_behind(engine, rig.name))
    command = Command(tmp_path, "down", "--name", rig.name)
    while len(left_behind(engine, rig.name)) == whole:
        assert command.process.poll() is None, command.end()

    command.interrupt(signal.SIGTERM, times=2)

    # It may have been over before the signal came.
    assert command.end() in (0, 143), command.output
    assert left_behind(engine, rig.name) == []


def test_an_interrupted_up_leaves_a_rig_that_stood(
    engine: docker.DockerClient, make_rig: Callable[[str], Rig], tmp_path: Path
) -> None:
    rig = make_rig(DOCUMENT)
    (tmp_path / "rig.yaml").write_text(DOCUMENT)
    rig.power_off("node3")
    before = {name for name in left_behind(engine, rig.name) if name.startswith(("volume", "network"))}

    command = Command(tmp_path, "up", "--topology", "rig.yaml", "--name", rig.name)
    command.wait_until_it_says("powering on")
    ended(command, signal.SIGINT, times=1)

    assert f"rig {rig.name} stood before and stays as it is" in command.output
    assert before - set(left_behind(engine, rig.name)) <= {f"volume {rig.name}_hold_node3"}
    rig.wait_online(say=print)
    rig.down(say=print)


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up."""


@pytest.mark.parametrize(
    ("module", "step"),
    [(create, "fill_secrets"), (create, "_start"), (rig_module, "form"), (create, "mark_formed")],
)
def test_up_completes_a_rig_that_was_made_half(
    engine: docker.DockerClient,
    rig_names: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    step: str,
) -> None:
    wanted = topology(DOCUMENT, name=rig_names())

    def end(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, step, end)
        with pytest.raises(Killed):
            Rig.up(wanted, say=print, client=engine)
    said: list[str] = []
    rig = Rig.up(wanted, say=said.append, client=engine)

    assert said[0] == f"rig {rig.name} is half made: its cluster is not marked as formed; completing it"
    assert rig.standing().missing(rig.topology) == []
    rig.down(say=print)


FORMS_VOTERS_ONLY = """
import harness.live.form_cluster as provision
async def stop(*arguments):
    raise provision.ProvisionError("ended here")
provision._write_first_registers = stop
raise SystemExit(provision.main())
"""


def test_up_refuses_a_rig_whose_forming_was_cut_short(
    engine: docker.DockerClient, rig_names: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its voters belong to a cluster that has no registers: nothing but a new rig helps."""
    wanted = topology(DOCUMENT, name=rig_names())
    monkeypatch.setattr(rig_module, "BEGUN_LIMIT_S", 3.0)

    def half(client: docker.DockerClient, container: str, command: list[str], **named: object) -> object:
        del command
        return run_inside(client, container, ["python3", "-I", "-c", FORMS_VOTERS_ONLY], **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(create, "run_inside", half)
        with pytest.raises(HarnessError, match="ended here"):
            Rig.up(wanted, say=print, client=engine)
    with pytest.raises(UsageError) as refused:
        Rig.up(wanted, say=print, client=engine)

    told = str(refused.value)
    assert told.startswith(f"rig {wanted.rig} is half made: ")
    assert f"`blackstart down --name {wanted.rig}` removes it" in told
    assert not re.search(r"\w\(\w+=", told), "a record's repr is no sentence"
    assert node_container(wanted.rig, "node1") in str(left_behind(engine, wanted.rig))
