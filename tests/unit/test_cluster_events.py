"""The cluster log of several nodes as one: in the order of time, and only what is of it."""

import json
import queue
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from chaos.arena.docker.cluster_events import HOLD_S, in_order, read_events, record_of


def line(node: str, time_s: float, event: str = "group-claimed") -> str:
    record = {"time": time_s, "node": node, "component": "failover-manager", "id": None, "event": event, "message": "m"}
    return json.dumps({**record, "fields": {}})


def stamped(text: str, at_s: int) -> bytes:
    return f"2026-11-22T20:00:{at_s:02}.000000000Z {text}\n".encode()


class FakeEngine:
    """The logs of containers, as the engine gives them."""

    def __init__(self, logs: Mapping[str, bytes]) -> None:
        self.api = self
        self._logs = logs

    def logs(self, container: str, **_options: Any) -> bytes:
        return self._logs[container]


@pytest.mark.parametrize(
    "text",
    ["", "plain text", "[]", "7", "{}", '{"time": "now", "node": "n", "component": "c", "event": "e", "message": "m"}'],
)
def test_line_that_is_none_of_the_cluster_log_is_left_out(text: str) -> None:
    assert record_of(text) is None


def test_past_of_all_nodes_comes_in_the_order_of_its_own_times() -> None:
    engine: Any = FakeEngine(
        {
            "one": stamped(line("node1", 10.0), 1) + stamped("noise", 2) + stamped(line("node1", 12.0), 3),
            "two": stamped(line("node2", 11.0), 4),
        }
    )

    found, last = read_events(engine, {"node1": "one", "node2": "two"}, since_ns=0)

    assert [record["node"] for record in found] == ["node1", "node2", "node1"]
    assert last["node2"] - last["node1"] == 1_000_000_000


def test_only_what_came_after_the_moment_is_read_and_following_begins_there() -> None:
    engine: Any = FakeEngine({"one": stamped(line("node1", 10.0), 1)})
    _, last = read_events(engine, {"node1": "one"}, since_ns=0)

    again, same = read_events(engine, {"node1": "one"}, since_ns=last["node1"])

    assert again == []
    assert same == last


class Hearing:
    """Records that are heard one after the other, on a clock that the test turns."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.queue: queue.Queue[tuple[float, Mapping[str, Any]]] = queue.Queue()
        self.told: Iterator[Mapping[str, Any] | None] = in_order(self.queue, clock=lambda: self.now_s)

    def hear(self, name: str, time_s: float) -> None:
        self.queue.put((self.now_s, {"time": time_s, "name": name}))

    def told_names(self) -> list[str]:
        """What goes out now, until there is nothing more to tell."""
        names = []
        while (record := next(self.told)) is not None:
            names.append(record["name"])
        return names


def test_line_waits_a_little_for_earlier_ones_of_other_nodes() -> None:
    hearing = Hearing()
    hearing.hear("late", 2.0)

    before = hearing.told_names()
    hearing.hear("early", 1.0)
    hearing.now_s += HOLD_S
    hearing.hear("last", 3.0)
    after = hearing.told_names()

    assert before == []
    assert after == ["early", "late"]
