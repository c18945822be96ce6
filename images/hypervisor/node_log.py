"""The log of PID 1: records, the thread that writes them, and the cutting of programs' text into lines.

It is not the cluster log of the service, which writes its own lines in the same format to the same place.
"""

import json
import os
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Lines", "Log", "LogWriter"]

LINE_LIMIT = 2000
"""Bytes of a program's line: with what surrounds it, it stays below the size that a pipe takes in one piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A line for the cluster log."""

    event: str
    message: str
    fields: Mapping[str, object]


class LogWriter:
    """Lines to the node's standard output, from a thread of its own.

    While the engine is stalled nobody empties that pipe, and a PID 1 that blocks in a write is no watchdog. Lines
    that find the queue full are counted, and the number is told as soon as there is room.
    """

    def __init__(self, *, node: str, descriptor: int = 1, limit: int = 1000) -> None:
        self._node = node
        self._descriptor = descriptor
        self._queue: queue.Queue[bytes] = queue.Queue(maxsize=limit)
        self._lost = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def put(self, component: str, log: Log) -> None:
        """Queue one line of the cluster log; never blocks."""
        if self._lost:
            lost = Log(event="log-lost", message=f"{self._lost} lines were lost", fields={"lines": self._lost})
            if not self._offer("init", lost):
                self._lost += 1
                return
            self._lost = 0
        if not self._offer(component, log):
            self._lost += 1

    def flush(self, limit_s: float) -> None:
        """Wait until all is written, at most `limit_s`."""
        with self._queue.all_tasks_done:
            self._queue.all_tasks_done.wait_for(lambda: not self._queue.unfinished_tasks, timeout=limit_s)

    def _offer(self, component: str, log: Log) -> bool:
        record = {
            "time": round(time.time(), 6),
            "node": self._node,
            "component": component,
            "id": None,
            "event": log.event,
            "message": log.message,
            "fields": dict(log.fields),
        }
        try:
            self._queue.put_nowait(json.dumps(record).encode() + b"\n")
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


class Lines:
    """Cuts a stream into lines; what exceeds `LINE_LIMIT` is cut off, or is a line of its own when no end comes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that are whole now, without their ends, empty ones left out."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_LIMIT:
            whole.append(self._rest)
            self._rest = b""
        return [line[:LINE_LIMIT].decode(errors="replace").rstrip() for line in whole if line.strip()]
