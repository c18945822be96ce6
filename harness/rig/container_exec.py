"""A command inside a container, with a deadline.

The deadline is the point: an exec's stream can hang for ever when its container is killed. The result says what the
command wrote and how it ended. When the deadline passes, the command may go on inside.
"""

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import docker

from harness.errors import EngineError, WaitTimeout
from harness.rig.engine import engine_call

__all__ = ["Finished", "run_inside"]

_HEADER = struct.Struct(">BxxxL")
_STDERR = 2
_OUTPUT_MAX = 16 << 20


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
        stream: Any = client.api.exec_start(exec_id, socket=True)
    reader = _Reader(stream, on_line)
    try:
        with engine_call(f"run {shown}"):
            reader.write(stdin)
            reader.read_to_end(deadline)
    except EngineError as error:
        if isinstance(error.__cause__, TimeoutError):
            raise WaitTimeout(waited_for=shown, saw=reader.saw(), limit_s=limit_s) from error
        raise
    finally:
        reader.close()
    with engine_call(f"learn how {shown} ended"):
        exit_code = client.api.exec_inspect(exec_id)["ExitCode"]
    if exit_code is None:
        raise EngineError(f"{shown} broke off: its container was killed or restarted; it wrote: {reader.saw()}")
    return Finished(exit_code=exit_code, stdout=reader.stdout.decode(errors="replace"), stderr=reader.error_text())


class _Reader:
    """The engine's framing: eight bytes that say which stream and how long, then the bytes."""

    def __init__(self, stream: Any, on_line: Callable[[str], None] | None) -> None:
        self.stdout = bytearray()
        self._stderr = bytearray()
        self._on_line = on_line
        self._told = 0
        self._buffer = bytearray()
        self._stream = stream
        self._socket = getattr(stream, "_sock", None) or stream
        # The client reads the answer's head through a buffer, and the first output may already be in it.
        self._buffered = getattr(getattr(getattr(stream, "_response", None), "raw", None), "_fp", None)

    def write(self, stdin: bytes) -> None:
        """Sends all of `stdin` and its end."""
        if stdin:
            self._socket.sendall(stdin)
            self._socket.shutdown(1)

    def read_to_end(self, deadline: float) -> None:
        """Raises TimeoutError at `deadline` (monotonic seconds)."""
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the deadline has passed")
            self._socket.settimeout(left_s)
            data = self._next()
            if not data:
                return
            self._buffer += data
            self._take_frames()

    def close(self) -> None:
        """Ends the connection: the stream, its socket and the answer that still refers to both are three objects."""
        for part in (getattr(self._stream, "_response", None), self._stream, self._socket):
            if part is not None:
                part.close()

    def saw(self) -> str:
        """The last of what the command wrote."""
        text = (self.stdout.decode(errors="replace") + self.error_text()).strip()
        return text[-500:] if text else "no output"

    def error_text(self) -> str:
        """What it wrote to standard error."""
        return self._stderr.decode(errors="replace")

    def _next(self) -> bytes:
        buffered = getattr(self._buffered, "fp", None)
        return bytes(buffered.read1(65536) if buffered is not None else self._socket.recv(65536))

    def _take_frames(self) -> None:
        while len(self._buffer) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            into = self._stderr if stream == _STDERR else self.stdout
            into += self._buffer[_HEADER.size : end]
            del self._buffer[:end]
            if len(self.stdout) + len(self._stderr) > _OUTPUT_MAX:
                raise OSError(f"more than {_OUTPUT_MAX} bytes of output")
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
