"""The cluster log of a whole rig: the lines of all its nodes, merged in the order of their times.

Read through the engine, so that it is there also when no node answers. A node's restart does not end it. Lines that
are no records of the cluster log are left out.
"""

import contextlib
import heapq
import itertools
import json
import queue
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import docker

from chaos.arena.docker.log_stream import LogStream, read_lines

__all__ = ["follow_events", "in_order", "read_events", "record_of"]

Record = Mapping[str, Any]

HOLD_S = 0.4
"""How long a line waits for earlier ones of other nodes: the engine hands lines on within some ten milliseconds."""
TURN_S = 0.1


def record_of(text: str) -> Record | None:
    """A line of the cluster log; None when it is something else."""
    try:
        record = json.loads(text)
        if isinstance(record["time"], int | float) and all(isinstance(record[key], str) for key in _WORDS):
            return dict(record)
    except (ValueError, KeyError, TypeError):
        pass
    return None


_WORDS = ("node", "component", "event", "message")


def read_events(
    client: docker.DockerClient, containers: Mapping[str, str], *, since_ns: int
) -> tuple[list[Record], dict[str, int]]:
    """What the nodes have written after `since_ns`, by time; and for each node the stamp of its last line, from where
    `follow_events` goes on. `containers` are the nodes' by name. Raises EngineError.
    """
    found: list[Record] = []
    last = {}
    for node, container in containers.items():
        lines = read_lines(client, container, since_ns=since_ns)
        last[node] = lines[-1][0] if lines else since_ns
        found += [record for _, text in lines if (record := record_of(text)) is not None]
    return sorted(found, key=lambda record: float(record["time"])), last


def follow_events(
    client: docker.DockerClient,
    containers: Mapping[str, str],
    *,
    since_ns: Mapping[str, int],
    clock: Callable[[], float],
) -> Iterator[Record | None]:
    """What the nodes write from now on, by time, without end; None whenever nothing new can be told, so that the caller
    gets a turn. `clock` gives seconds that never go back.
    """
    heard: queue.Queue[tuple[float, Record]] = queue.Queue()

    def take(text: str) -> None:
        record = record_of(text)
        if record is not None:
            heard.put((clock(), record))

    streams = [
        LogStream(client, container, sink=take, since_ns=since_ns[node]) for node, container in containers.items()
    ]
    for stream in streams:
        stream.open()
    try:
        yield from in_order(heard, clock=clock)
    finally:
        for stream in streams:
            stream.close()


def in_order(
    heard: "queue.Queue[tuple[float, Record]]", *, clock: Callable[[], float]
) -> Iterator[Record | None]:
    """Records with the times at which they were heard, by their own times: each goes out once it has waited for HOLD_S,
    and those with earlier times that came meanwhile go first. None in between.
    """
    waiting: list[tuple[float, int, float, Record]] = []
    numbers = itertools.count()
    while True:
        with contextlib.suppress(queue.Empty):
            wait_s = TURN_S
            while True:
                came, record = heard.get(timeout=wait_s) if wait_s else heard.get_nowait()
                heapq.heappush(waiting, (float(record["time"]), next(numbers), came, record))
                wait_s = 0.0
        while waiting and waiting[0][2] + HOLD_S <= clock():
            yield heapq.heappop(waiting)[3]
        yield None
