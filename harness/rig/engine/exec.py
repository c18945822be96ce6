"""A command inside a container, with a deadline.

The deadline is the point: an exec's stream can hang for ever when its container is killed. The result says what the
command wrote and how it ended. When the deadline passes, the command may go on inside.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import docker

from harness.errors import EngineError, WaitTimeout
from harness.rig.engine.connection import engine_call
from harness.rig.engine.framed_stream import STDERR, FramedStream

__all__ = ["Finished", "run_inside"]

_MAX_OUTPUT = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a command ended and what it wrote."""

    exit_code: int
    stdout: str
    stderr: str


def run_inside(
    client: docker.DockerClient,
    container: str,
    command: Sequence[str],
    *,
    user: str,
    limit_s: float,
    stdin: bytes = b"",
    on_line: Callable[[str], None] | None = None,
    shown: str = "",
) -> Finished:
    """Runs `command` as `user` and waits for its end; `on_line` gets each line of its standard output as it comes.
    `shown` stands for the command in errors, when it is a whole program.

    Raises WaitTimeout after `limit_s`, NoSuchContainer, EngineError (a container that does not run, or died meanwhile).
    """
    shown = f"`{shown or ' '.join(command)}` in {container}"
    deadline = time.monotonic() + limit_s
    with engine_call(f"start {shown}"):
        exec_id = client.api.exec_create(container, list(command), user=user, stdin=bool(stdin))["Id"]
        stream = FramedStream(client.api.exec_start(exec_id, socket=True))
    output = _Output(stream, on_line)
    try:
        with engine_call(f"run {shown}"):
            output.write(stdin)
            output.read_to_end(deadline)
    except EngineError as error:
        if isinstance(error.__cause__, TimeoutError):
            raise WaitTimeout(waited_for=shown, saw=output.saw(), limit_s=limit_s) from error
        raise
    finally:
        stream.close()
    with engine_call(f"learn how {shown} ended"):
        exit_code = client.api.exec_inspect(exec_id)["ExitCode"]
    if exit_code is None:
        raise EngineError(f"{shown} broke off: its container was killed or restarted; it wrote: {output.saw()}")
    return Finished(exit_code=exit_code, stdout=output.stdout.decode(errors="replace"), stderr=output.error_text())


class _Output:
    """What a command has written so far."""

    def __init__(self, stream: FramedStream, on_line: Callable[[str], None] | None) -> None:
        self.stdout = bytearray()
        self._stderr = bytearray()
        self._on_line = on_line
        self._told = 0
        self._stream = stream

    def write(self, stdin: bytes) -> None:
        """Sends all of `stdin` and its end."""
        if stdin:
            self._stream.write(stdin)
            self._stream.write_end()

    def read_to_end(self, deadline: float) -> None:
        """Raises TimeoutError at `deadline` (monotonic seconds)."""
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the deadline has passed")
            frames = self._stream.read(left_s)
            if frames is None:
                return
            for stream, data in frames:
                self._take(stream, data)

    def saw(self) -> str:
        """The last of what the command wrote."""
        text = (self.stdout.decode(errors="replace") + self.error_text()).strip()
        return text[-500:] if text else "no output"

    def error_text(self) -> str:
        """What it wrote to standard error."""
        return self._stderr.decode(errors="replace")

    def _take(self, stream: int, data: bytes) -> None:
        into = self._stderr if stream == STDERR else self.stdout
        into += data
        if len(self.stdout) + len(self._stderr) > _MAX_OUTPUT:
            raise OSError(f"more than {_MAX_OUTPUT} bytes of output")
        self._tell_lines()

    def _tell_lines(self) -> None:
        if self._on_line is None:
            return
        end = self.stdout.rfind(b"\n") + 1
        if end > self._told:
            lines = self.stdout[self._told : end].decode(errors="replace").splitlines()
            self._told = end
            for line in lines:
                self._on_line(line)
