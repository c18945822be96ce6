"""`tools/engine.sh` installs only where nobody is at the keyboard, and says what to do where somebody is."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "engine.sh"

STUBS = {
    "id": "echo ${STUB_UID:-0}",
    "apt-get": 'echo "$*" >> "$STUBS/apt"; '
    'case "$*" in *docker-compose*) touch "$STUBS/compose";; esac',
    "apt-cache": "exit 1",
    "docker": '[ "$1" = version ] && [ -e "$STUBS/running" ]',
    "docker-compose": '[ -e "$STUBS/compose" ]',
    "dockerd": 'touch "$STUBS/running"; sleep 2',
    "systemctl": 'touch "$STUBS/running"',
    "setsid": 'touch "$STUBS/running"; sleep 2',
}


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A directory of commands that stand in for the machine's; what was asked of apt-get is in `apt`."""
    for name, body in STUBS.items():
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)
    return tmp_path


def call(stubs: Path, *arguments: str, terminal: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{stubs}:/usr/bin:/bin", "STUBS": str(stubs), **environment}
    keyboard, stdin = pty.openpty()
    try:
        return subprocess.run(
            ["sh", str(SCRIPT), *arguments],
            stdin=stdin if terminal else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=env,
            timeout=60,
            check=False,
        )
    finally:
        os.close(keyboard)
        os.close(stdin)


def installed(stubs: Path) -> str:
    file = stubs / "apt"
    return file.read_text() if file.exists() else ""


def test_engine_that_answers_is_left_alone(stubs: Path) -> None:
    (stubs / "running").touch()
    (stubs / "compose").touch()

    done = call(stubs)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert installed(stubs) == ""


def test_person_at_a_terminal_is_told_what_to_do_and_nothing_is_changed(stubs: Path) -> None:
    done = call(stubs, terminal=True)

    assert done.returncode == 1
    assert "sudo tools/engine.sh install" in done.stderr
    assert installed(stubs) == ""


def test_unattended_root_gets_a_compose_tool_and_is_told_so(stubs: Path) -> None:
    (stubs / "running").touch()

    done = call(stubs)

    assert done.returncode == 0
    assert done.stdout == "setup: installing docker-compose (apt-get install)\n"
    assert "install --no-install-recommends docker-compose" in installed(stubs)


def test_engine_that_is_installed_and_stopped_is_started_where_nobody_can(stubs: Path) -> None:
    (stubs / "compose").touch()

    done = call(stubs)

    assert done.returncode == 0
    assert done.stdout == "setup: starting the container engine\n"
    assert installed(stubs) == ""


def test_ci_counts_as_nobody_even_with_a_terminal(stubs: Path) -> None:
    (stubs / "running").touch()

    assert call(stubs, terminal=True, CI="true").returncode == 0
    assert "docker-compose" in installed(stubs)


@pytest.mark.parametrize("environment", [{"STUB_UID": "1000"}, {"DOCKER_HOST": "tcp://elsewhere:2375"}])
def test_nothing_is_installed_without_root_or_for_an_engine_elsewhere(
    stubs: Path, environment: dict[str, str]
) -> None:
    done = call(stubs, **environment)

    assert done.returncode == 1
    assert installed(stubs) == ""
