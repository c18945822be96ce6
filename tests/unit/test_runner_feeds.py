"""The feeds without an engine: what the engine, a node and the client say, as records; the client's exchange; the stall
watch.
"""

import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_arena import MS, SECOND, ScriptedArena

from chaos.arena.client_targets import measured_vms
from chaos.arena.cluster_view import cluster_seen
from chaos.arena.docker.arena import log_line
from chaos.arena.docker.availability_client import client_record
from chaos.arena.docker.container_list import differences
from chaos.arena.docker.engine_stream import engine_event
from chaos.arena.docker.in_node import availability, engine_ping, kill_vm, ping, processes
from chaos.arena.docker.in_node.availability import ask
from chaos.arena.docker.log_stream import parse_stamp_ns
from chaos.arena.interrupt import Interrupted
from chaos.arena.port import wait_record
from chaos.history.guest_journal import vms_without_journal
from chaos.history.records import ClientAnswer, ClientBeat, ContainerRole, Stall
from chaos.run.stall_detector import detect_stalls
from harness.document.topology import default_topology, read_topology
from harness.document.yaml_source import load
from harness.rig.cluster.status import GroupStatus, NodeStatus, Power, ResourceStatus, RigStatus


def test_an_engine_event_becomes_a_record() -> None:
    raw = {
        "Type": "container",
        "Action": "die",
        "timeNano": 1_700_000_000_123_456_789,
        "Actor": {
            "ID": "ab" * 32,
            "Attributes": {
                "exitCode": "137",
                "name": "rig-web-vm",
                "io.blackstart.rig": "rig",
                "io.blackstart.role": "vm",
                "io.blackstart.node": "node1",
                "io.blackstart.resource": "web-vm",
                "io.blackstart.group": "web",
                "io.blackstart.session": "node1@ab/1",
            },
        },
    }

    event = engine_event(raw)

    assert (event.at_ns, event.action, event.role) == (1_700_000_000_123_456_789, "die", ContainerRole.VM)
    assert (event.vm, event.group, event.node, event.session) == ("web-vm", "web", "node1", "node1@ab/1")
    assert (event.exit_code, event.signal) == (137, None)


def test_an_event_of_something_without_our_labels_is_no_vm() -> None:
    event = engine_event({"Action": "kill", "timeNano": 1, "Actor": {"ID": "a", "Attributes": {"signal": "9"}}})

    assert (event.role, event.vm, event.signal) == (ContainerRole.OTHER, "", 9)


@pytest.mark.parametrize(
    ("stamp", "at_ns"),
    [
        ("2024-01-31T12:00:00.123456789Z", 1706702400123456789),
        ("2024-01-31T12:00:00.5Z", 1706702400500000000),
        ("2024-01-31T12:00:00Z", 1706702400000000000),
        ("0001-01-01T00:00:00Z", None),
        ("yesterday", None),
    ],
)
def test_the_engines_time_stamps(stamp: str, at_ns: int | None) -> None:
    assert parse_stamp_ns(stamp) == at_ns


def test_a_line_of_the_cluster_log_becomes_a_record_and_anything_else_does_not() -> None:
    line = {
        "time": 1.5,
        "node": "node1",
        "component": "fm",
        "id": None,
        "event": "x",
        "message": "m",
        "fields": {"a": 1},
    }

    record = log_line(json.dumps(line))

    assert record is not None
    assert (record.at_ns, record.event, record.fields) == (1_500_000_000, "x", {"a": 1})
    for other in ("Traceback (most recent call last):", "3", "[]", "{}", json.dumps({**line, "fields": None})):
        assert log_line(other) is None


def test_the_clients_lines_become_records() -> None:
    assert client_record('{"at_ns": 1, "asked": 20, "answered": 19}') == ClientBeat(at_ns=1, asked=20, answered=19)
    silent = '{"at_ns": 2, "vm": "vm", "ok": false, "error": "no answer in time"}'
    assert client_record(silent) == ClientAnswer(at_ns=2, vm="vm", ok=False, error="no answer in time")
    assert client_record("Traceback") is None
    assert client_record("[1]") is None


def test_vms_with_an_address_are_asked() -> None:
    measured = measured_vms(default_topology())

    assert len(measured) == 6
    assert measured["web1-vm"] == "guest://10.87.0.100:8080/"


OWN_VMS = """\
groups:
  - name: own
    resources:
      - {name: ip, type: ip-address}
      - {name: guest-vm, type: virtual-machine, depends-on: "[ip]"}
      - {name: tcp-vm, type: virtual-machine, image: database, depends-on: "[ip]", answers-on: 5432}
      - {name: http-vm, type: virtual-machine, image: shop, depends-on: "[ip]", readiness: {http: /up, port: 9000}}
      - {name: mute-vm, type: virtual-machine, image: batch, depends-on: "[ip]"}
      - {name: lonely-vm, type: virtual-machine}
"""


def test_vms_of_a_persons_own_are_asked_where_they_say() -> None:
    topology = read_topology(load(OWN_VMS, name="rig.yaml"))

    assert measured_vms(topology) == {
        "guest-vm": "guest://10.87.0.100:8080/",
        "tcp-vm": "tcp://10.87.0.100:5432",
        "http-vm": "http://10.87.0.100:9000/up",
    }
    assert vms_without_journal(topology) == {"tcp-vm", "http-vm", "mute-vm"}


@pytest.mark.parametrize(
    "module",
    [availability, kill_vm, engine_ping, processes, ping],
)
def test_what_travels_as_source_needs_nothing_of_the_project(module: Any) -> None:
    source = Path(module.__file__).read_text()

    imports = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imports <= sys.stdlib_module_names
    assert len(source) < 100_000, "one argument of a command holds at most 128 KiB"


class Server:
    """One answer to one connection, on a free port of this host."""

    def __init__(self, answer: bytes | None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(4096)
            if self._answer is None:
                connection.recv(4096)  # silent until the client goes
            else:
                connection.sendall(self._answer)

    def close(self) -> None:
        self._thread.join(timeout=5)
        self._listener.close()


@pytest.fixture
def serve() -> Iterator[Any]:
    servers: list[Server] = []

    def start(answer: bytes | None) -> str:
        servers.append(Server(answer))
        return f"127.0.0.1:{servers[0].port}"

    yield start
    for server in servers:
        server.close()


def test_the_client_reads_boot_and_node(serve: Any) -> None:
    place = serve(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"boot": "b1", "node": "node1"}\n')

    assert ask(f"guest://{place}/") == {"ok": True, "boot": "b1", "node": "node1"}


@pytest.mark.parametrize(
    "answer",
    [
        *(b"HTTP/1.1 503 Busy\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nhello", b"HTTP/1.1 200 OK\r\n\r\n{}", b""),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 50_000,
    ],
)
def test_an_answer_that_is_not_a_vms_is_none(serve: Any, answer: bytes) -> None:
    place = serve(answer)

    assert ask(f"guest://{place}/")["ok"] is False


def test_names_in_a_vms_answer_are_visible(serve: Any) -> None:
    place = serve(b'HTTP/1.1 200 OK\r\n\r\n{"boot": "\\u001b[2J", "node": "\\ud800"}')

    assert ask(f"guest://{place}/") == {"ok": True, "boot": "\\u001b[2J", "node": "\\ud800"}


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        (b"HTTP/1.1 204 Fine\r\n\r\n", True),
        (b"HTTP/1.1 302 Elsewhere\r\n\r\n", True),
        (b"HTTP/1.1 500 Bad\r\n\r\n", False),
        (b"no HTTP", False),
    ],
)
def test_another_program_answers_with_its_status(serve: Any, answer: bytes, good: bool) -> None:
    place = serve(answer)

    assert ask(f"http://{place}/up")["ok"] is good


def test_of_a_port_the_connection_is_the_answer(serve: Any) -> None:
    place = serve(None)

    assert ask(f"tcp://{place}") == {"ok": True}


def test_a_vm_that_accepts_and_says_nothing_does_not_answer(serve: Any) -> None:
    place = serve(None)

    assert ask(f"guest://{place}/") == {"ok": False, "error": "no answer in time"}


def test_a_rigs_standing_becomes_a_snapshot() -> None:
    node = NodeStatus(
        name="node1", address="10.0.0.1", voter=True, power=Power.ON, state="Paused", session="s", quorum=True
    )
    resource = ResourceStatus(name="vm", type="virtual-machine", state="Online", persistent_state=1)
    group = GroupStatus(name="web", owner="node1", epoch=4, state="Online", resources=(resource,))

    seen = cluster_seen(RigStatus(rig="r", subnet="s", nodes=(node,), groups=(group,)), at_ns=7)

    assert (seen.at_ns, seen.quorum) == (7, True)
    assert (seen.nodes[0].state, seen.nodes[0].paused) == ("Up", True)
    assert seen.groups[0].resources[0].wanted is True


def test_a_list_that_shows_less_than_the_events_contradicts_them() -> None:
    raw = {
        "Action": "start",
        "timeNano": 5,
        "Actor": {"ID": "a", "Attributes": {"io.blackstart.role": "vm", "io.blackstart.resource": "vm"}},
    }

    assert differences((), [engine_event(raw)], since_ns=0) == ["vm (a) is gone, and its end was no event"]


def test_a_late_tick_is_a_stall_and_a_punctual_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = ScriptedArena()
    stood_still_us = [0]
    monkeypatch.setattr(arena.runtime, "now", lambda: arena.clock.now_us + stood_still_us[0])

    async def watch() -> None:
        watcher = arena.runtime.spawn(detect_stalls(arena), name="watch")
        await arena.runtime.sleep(5 * SECOND)
        stood_still_us[0] = 3 * SECOND  # nothing ran, and the clock went on
        await arena.runtime.sleep(SECOND)
        watcher.cancel()

    arena.drive(watch())

    (stall,) = arena.history.of(Stall)
    assert stall.length_us == 3 * SECOND


def test_waiting_for_a_record_ends_with_it_or_with_the_limit() -> None:
    arena = ScriptedArena()

    async def both() -> tuple[Any, Any, int]:
        arena.clock.after(300 * MS, lambda: arena.history.append(Stall(at_ns=1, length_us=1)))
        never = await wait_record(arena, Stall, lambda stall: stall.at_ns == 1, limit_us=200 * MS)
        came = await wait_record(arena, Stall, lambda stall: stall.at_ns == 1, limit_us=200 * MS)
        there = await wait_record(arena, Stall, lambda stall: stall.at_ns == 1, limit_us=0)
        assert there is came
        return never, came, arena.clock.now_us

    never, came, now_us = arena.drive(both())

    assert never is None
    assert came == Stall(at_ns=1, length_us=1)
    assert now_us - SECOND == pytest.approx(300 * MS, abs=MS)


def test_a_request_to_stop_ends_a_wait_at_once() -> None:
    arena = ScriptedArena()
    arena.clock.after(100 * MS, lambda: arena.interrupt.request(15))

    async def wait() -> int:
        with pytest.raises(Interrupted, match="SIGTERM"):
            await arena.interrupt.sleep(60 * SECOND)
        with pytest.raises(Interrupted):
            arena.interrupt.check()
        return arena.clock.now_us - SECOND

    assert arena.drive(wait()) == 100 * MS
