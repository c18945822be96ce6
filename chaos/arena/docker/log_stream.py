"""The output of a container, line by line: what there is, and what comes, followed across its restarts.

Node logs and the client's lines come this way. The engine ends a stream when the container dies; it is opened again
when the container is told to have started, from the last line on. Each line carries the engine's time stamp, which
tells a repeated line from a new one. Runs in a thread and hands lines to a sink.
"""

import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import docker

from chaos.arena.docker.engine_stream import BROKEN
from chaos.arena.reader_thread import ReaderThread
from harness.rig.engine.connection import engine_call

__all__ = ["LogStream", "parse_stamp_ns", "read_lines"]

LOOK_INTERVAL_S = 1.0
"""A start that was told is followed at once; one that was not, because the event stream broke, after a second."""
LINE_LIMIT = 65536


class LogStream:
    """The standard output of one container. Invariant: each line reaches the sink once and in order."""

    def __init__(
        self,
        client: docker.DockerClient,
        container: str,
        *,
        sink: Callable[[str], None],
        since_ns: int = 0,
        stderr: bool = False,
    ) -> None:
        """`sink` is called on the stream's own thread. Lines from the container's first on, or after `since_ns`."""
        self._client = client
        self._container = container
        self._sink = sink
        self._stderr = stderr
        self._last_ns = since_ns
        self._started = threading.Event()
        self._closed = threading.Event()
        self._stream: Any = None
        self._thread = ReaderThread(self._run, name=f"log of {container}")

    def open(self) -> None:
        """Begin to follow."""
        self._thread.begin()

    def container_started(self) -> None:
        """The container has been started: there will be lines again."""
        self._started.set()

    def close(self) -> None:
        """Stop following. Waits a little for the thread."""
        self._closed.set()
        self._started.set()
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(*BROKEN):  # it is closed already, which is what was wanted
                stream.close()
        self._thread.end()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._started.clear()
            with contextlib.suppress(*BROKEN):  # container or engine are gone: the next round, or `close`, ends it
                self._follow()
            if not self._closed.is_set():
                self._started.wait(LOOK_INTERVAL_S)

    def _follow(self) -> None:
        # A float has not enough digits for the nanosecond, so a little more is asked for and what was seen is dropped.
        since = max(0.0, self._last_ns / 1e9 - 0.001)
        self._stream = self._client.api.logs(
            self._container,
            stdout=True,
            stderr=self._stderr,
            stream=True,
            follow=True,
            timestamps=True,
            since=since or None,
        )
        rest = b""
        for part in self._stream:
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                self._take(line)
            rest = rest[-LINE_LIMIT:]

    def _take(self, line: bytes) -> None:
        stamp, _, text = line.decode(errors="replace").partition(" ")
        at_ns = parse_stamp_ns(stamp)
        if at_ns is None or at_ns <= self._last_ns:
            return
        self._last_ns = at_ns
        self._sink(text)


def read_lines(
    client: docker.DockerClient, container: str, *, since_ns: int = 0, tail: int | None = None, stderr: bool = False
) -> list[tuple[int, str]]:
    """What the container has written after `since_ns`, at most its last `tail` lines, each with the engine's stamp in
    Unix nanoseconds. Raises EngineError.
    """
    with engine_call(f"read the log of {container}"):
        data: bytes = client.api.logs(
            container,
            stdout=True,
            stderr=stderr,
            timestamps=True,
            since=max(0.0, since_ns / 1e9 - 0.001) or None,
            tail="all" if tail is None else tail,
        )
    lines = []
    # At line feeds only: other characters that Python takes for line ends are a guest's own.
    for line in data.split(b"\n"):
        stamp, _, text = line.decode(errors="replace").partition(" ")
        at_ns = parse_stamp_ns(stamp)
        if at_ns is not None and at_ns > since_ns:
            lines.append((at_ns, text))
    return lines


def parse_stamp_ns(stamp: str) -> int | None:
    """Unix nanoseconds of the engine's stamps (RFC 3339, up to nine digits of a second, Z).

    None when it is none, or the engine's zero time.
    """
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    try:
        seconds = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    if seconds <= 0 or not (fraction.isdigit() or not fraction):
        return None
    return int(seconds) * 10**9 + int((fraction + "000000000")[:9])
