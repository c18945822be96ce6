"""The writer of the cluster log: its lines, and that nobody ever waits for it."""

import json
import os
import time
from typing import Any

from harness.live.cluster_log import LINE_LIMIT_BYTES, ClusterLog, LineWriter

LIMIT_S = 5.0


def read_lines(descriptor: int) -> list[Any]:
    return [json.loads(line) for line in os.read(descriptor, 1 << 20).splitlines()]


def test_line_has_what_the_cluster_log_is_read_by() -> None:
    read, write = os.pipe()
    log = ClusterLog("node1", "vmms", writer=LineWriter(node="node1", descriptor=write))

    log("vm-ended", "VM web1 ended", number=1069, vm="web1", run=None)

    assert log.writer.flush(LIMIT_S)
    (line,) = read_lines(read)
    assert abs(line.pop("time") - time.time()) < LIMIT_S
    assert line == {
        "node": "node1",
        "component": "vmms",
        "id": 1069,
        "event": "vm-ended",
        "message": "VM web1 ended",
        "fields": {"vm": "web1", "run": None},
    }


def test_nobody_waits_while_the_pipe_is_full_and_the_loss_is_counted() -> None:
    read, write = os.pipe()
    writer = LineWriter(node="node1", descriptor=write, limit=10)
    log = ClusterLog("node1", "vmms", writer=writer)
    lines = 2000  # a pipe takes about 500 of them, the queue ten

    began = time.monotonic()
    for number in range(lines):
        log("event", "x", number=number)
    took_s = time.monotonic() - began
    seen: list[Any] = []
    while not writer.flush(0.05):
        seen += read_lines(read)
    log("event", "the log is read again")
    assert writer.flush(LIMIT_S)
    seen += read_lines(read)

    assert took_s < LIMIT_S
    told = sum(line["fields"]["lines"] for line in seen if line["event"] == "log-lost")
    written = [line["id"] for line in seen if line["message"] == "x"]
    assert written == sorted(written)
    assert told == lines - len(written)
    assert told > 0
    assert seen[-1]["message"] == "the log is read again"


def test_long_line_is_cut_to_what_a_pipe_takes_in_one_piece() -> None:
    read, write = os.pipe()
    log = ClusterLog("node1", "vmms", writer=LineWriter(node="node1", descriptor=write))

    log("event", "\U0001f4a5" * 5000, detail="y" * 5000)

    assert log.writer.flush(LIMIT_S)
    line = os.read(read, 1 << 20)
    assert len(line) <= LINE_LIMIT_BYTES
    assert json.loads(line)["fields"]["cut_from_bytes"] > LINE_LIMIT_BYTES


def test_closed_pipe_does_not_end_the_process() -> None:
    read, write = os.pipe()
    os.close(read)
    log = ClusterLog("node1", "vmms", writer=LineWriter(node="node1", descriptor=write))

    log("event", "nobody reads this")

    assert log.writer.flush(LIMIT_S)
