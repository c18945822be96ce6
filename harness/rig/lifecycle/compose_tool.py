"""The Compose tool of this host: `docker compose` where it exists, else `docker-compose`.

Used to create nodes, networks and volumes, and for nothing else: everything is found, started and removed by its
labels, so that no file on this side is ever needed again.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError

__all__ = ["ComposeFailed", "ComposeTool", "find_compose_tool", "require_compose_tool"]

ASKING_LIMIT_S = 30
RUN_LIMIT_S = 180
"""Three nodes take 1.6 s where it was measured; nine on a loaded host some ten times that."""
END_LIMIT_S = 10.0
"""Between SIGTERM and SIGKILL: the tool ends by itself within a second, once the engine has answered its call."""
_TAIL_LINES = 20


class ComposeFailed(HarnessError):
    """The tool ended with an error; what it said is in the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeTool:
    """How to call the tool."""

    command: tuple[str, ...]

    def version(self) -> str:
        """What it calls its version; empty when it does not work. Version 1 takes half a second to say so."""
        return _version(self.command)

    def run(self, project: str, file: Path, *arguments: str) -> None:
        """Raises ComposeFailed with the end of what the tool said, HarnessError when it does not end."""
        command = [*self.command, "-p", project, "-f", str(file), *arguments]
        # VMs of the rig are no services: without this each call of v1 would ask to remove "orphans".
        environment = {**os.environ, "COMPOSE_IGNORE_ORPHANS": "1", "COMPOSE_HTTP_TIMEOUT": str(RUN_LIMIT_S)}
        shown = " ".join(command)
        # A session of its own: Ctrl-C at the terminal must not end it between two objects while we clean up.
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=file.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=RUN_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise HarnessError(f"`{shown}` had not ended after {RUN_LIMIT_S} s and was killed") from error
        finally:
            if process.returncode is None:
                _end_session(process)
        if process.returncode != 0:
            tail = "\n".join(output.rstrip("\n").split("\n")[-_TAIL_LINES:])
            raise ComposeFailed(f"`{shown}` ended with status {process.returncode}; it said last:\n{tail}")


def _end_session(process: "subprocess.Popen[str]") -> None:
    """End the tool and the programs that it has started: asked first, as it may be creating something, then killed."""
    for number, limit_s in ((signal.SIGTERM, END_LIMIT_S), (signal.SIGKILL, END_LIMIT_S)):
        with contextlib.suppress(ProcessLookupError):  # no process of the session is left
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=limit_s)
            break
    if process.stdout is not None:
        process.stdout.close()


def find_compose_tool() -> ComposeTool | None:
    """The tool that will be used; None when there is none.

    That the plugin exists is learned only by calling it; `docker-compose` is believed until it is used.
    """
    plugin = ("docker", "compose")
    if _version(plugin):
        return ComposeTool(command=plugin)
    return ComposeTool(command=("docker-compose",)) if shutil.which("docker-compose") else None


def require_compose_tool() -> ComposeTool:
    """Raises HarnessError, saying what to install, when there is none."""
    tool = find_compose_tool()
    if tool is None:
        raise HarnessError(
            "neither `docker compose` nor `docker-compose` works here. Install one: on Debian and Ubuntu "
            "`sudo tools/engine.sh install`, elsewhere Docker Compose"
        )
    return tool


def _version(command: tuple[str, ...]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            [*command, "version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASKING_LIMIT_S,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError):
        return ""
    found = re.search(r"\d+\.\d+[^\s,]*", done.stdout) if done.returncode == 0 else None
    return found[0] if found else ""
