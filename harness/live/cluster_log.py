"""The writer of a process's lines of the cluster log: JSON on standard output, from a thread of its own, never in
anybody's way.

While the engine is stalled nobody empties that pipe, and a process that blocks in a write renews no lease. The pipe
cannot be made non-blocking for this process alone, because all processes of the node share one description of it; so
lines go through a bounded queue, and those that find it full are counted, and the number is told as soon as there is
room. PID 1 writes its own lines (images/hypervisor/node_log.py).
"""

import json
import os
import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["ClusterLog", "LineWriter"]

QUEUE_LIMIT = 1000
"""Lines. A busy node writes some ten a second."""
LINE_LIMIT_BYTES = 4096
"""What a pipe takes in one piece: a longer line could be torn by another process's."""
MESSAGE_LIMIT = 300
"""Characters of a message whose line is too long: twelve bytes each at worst."""
FLUSH_LIMIT_S = 0.2


class LineWriter:
    """Puts records onto `descriptor`, one JSON object a line."""

    def __init__(self, *, node: str, descriptor: int = 1, limit: int = QUEUE_LIMIT) -> None:
        """`node` is written into the one line that this class makes itself, `log-lost`."""
        self._node = node
        self._descriptor = descriptor
        self._queue: queue.Queue[bytes] = queue.Queue(maxsize=limit)
        self._lost = 0
        threading.Thread(target=self._write, name="cluster log", daemon=True).start()

    def put(self, record: Mapping[str, Any]) -> None:
        """Queue one record; never waits, never raises. For one thread only."""
        if self._lost:
            message = f"{self._lost} lines were lost: nobody read the log for a while"
            lost = log_record(self._node, "log", "log-lost", message, fields={"lines": self._lost})
            if not self._offer(lost):
                self._lost += 1
                return
            self._lost = 0
        if not self._offer(record):
            self._lost += 1

    def flush(self, limit_s: float = FLUSH_LIMIT_S) -> bool:
        """Wait until all is written, at most `limit_s` seconds; returns whether it is."""
        with self._queue.all_tasks_done:
            return self._queue.all_tasks_done.wait_for(lambda: not self._queue.unfinished_tasks, timeout=limit_s)

    def _offer(self, record: Mapping[str, Any]) -> bool:
        try:
            self._queue.put_nowait(_line(record))
        except queue.Full:
            return False
        return True

    def _write(self) -> None:
        while True:
            line = self._queue.get()
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                pass  # nobody reads any more; the node does not depend on being read
            self._queue.task_done()


class ClusterLog:
    """The `Log` port of one component."""

    def __init__(self, node: str, component: str, *, writer: LineWriter | None = None) -> None:
        """`writer` is given by a process that has several components."""
        self._node = node
        self._component = component
        self.writer = writer if writer is not None else LineWriter(node=node)

    def __call__(self, event: str, message: str, /, *, number: int | None = None, **fields: str | int | None) -> None:
        """One line."""
        self.writer.put(log_record(self._node, self._component, event, message, number=number, fields=fields))


def log_record(
    node: str, component: str, event: str, message: str, *, number: int | None = None, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """A line's record, with the present time (docs/design/0001-seams.md)."""
    return {
        "time": round(time.time(), 6),
        "node": node,
        "component": component,
        "id": number,
        "event": event,
        "message": message,
        "fields": dict(fields),
    }


def _line(record: Mapping[str, Any]) -> bytes:
    line = json.dumps(record, default=str).encode() + b"\n"
    if len(line) <= LINE_LIMIT_BYTES:
        return line
    message = str(record.get("message", ""))[:MESSAGE_LIMIT]
    short = {**record, "message": message, "fields": {"cut_from_bytes": len(line)}}
    return json.dumps(short, default=str).encode() + b"\n"
