"""Rigs to measure on: they stand while they are needed and are gone afterwards, whatever happens in between."""

import contextlib
import queue
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import docker

from harness.document.topology import read_topology
from harness.document.yaml_source import load
from harness.errors import WaitTimeout
from harness.model import labels
from harness.model.topology import Topology
from harness.rig.lifecycle.rig import Rig
from harness.rig.lifecycle.teardown import remove_rig

__all__ = ["Events", "new_name", "say", "standing_rig", "topology_of"]

EVENT_LIMIT_S = 30.0


def say(text: str) -> None:
    """One line of progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def new_name() -> str:
    """A rig's name that nobody has."""
    return f"bench-{secrets.token_hex(2)}"


def topology_of(text: str, *, name: str) -> Topology:
    """The topology that a YAML text describes, for a rig of that name."""
    return read_topology(load(text, name="benchmark"), rig=name)


@contextlib.contextmanager
def standing_rig(client: docker.DockerClient, text: str) -> Iterator[Rig]:
    """The rig that a YAML text describes, with everything Online."""
    name = new_name()
    try:
        yield Rig.up(topology_of(text, name=name), say=say, client=client)
    finally:
        remove_rig(client, name, say=say)


class Events:
    """The engine's events of one rig's containers, from a thread. Use it as a context."""

    def __init__(self, client: docker.DockerClient, rig: str) -> None:
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue()
        filters = {"type": "container", "label": f"{labels.RIG}={rig}"}
        self._stream: Any = client.events(decode=True, filters=filters)
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _read(self) -> None:
        # Closing the stream from the other thread ends a read in one of several ways.
        with contextlib.suppress(OSError, ValueError, AttributeError, docker.errors.DockerException):
            for event in self._stream:
                self._queue.put(event)

    def wait(self, what: str, holds: Callable[[str, str], bool]) -> tuple[int, str]:
        """Time in nanoseconds and container of the next event whose action and container id are meant.

        Raises WaitTimeout.
        """
        while True:
            try:
                event = self._queue.get(timeout=EVENT_LIMIT_S)
            except queue.Empty:
                saw = "no further event of the rig"
                raise WaitTimeout(waited_for=what, saw=saw, limit_s=EVENT_LIMIT_S) from None
            container = str(event["Actor"]["ID"])
            if holds(event["Action"], container):
                return int(event["timeNano"]), container

    def drop(self) -> list[dict[str, Any]]:
        """What has come and was not taken; it is forgotten."""
        found = []
        while not self._queue.empty():
            found.append(self._queue.get_nowait())
        return found
