"""How fast a crashed machine runs again, and how fast a dead node's machines run elsewhere, against their floors.

    .venv/bin/python -m bench.recovery crash [--rounds N]
    .venv/bin/python -m bench.recovery power-cut [--rounds N]

Crash: from the machine's die event to its next start event, the restart recorded in the database in between
(`restart-delay` is set to nothing, as the first restart of a machine has none). Its floor, measured in turn with it: a
program that waits on the engine's event stream and starts the dead container through the SDK, in the same kind of node.
Power cut: from the node's kill event to the start event of the last of its six machines. Its floor is reckoned: the
lease and 0.04 s a machine. Event times are the engine's own.
"""

import argparse
import contextlib
import inspect
import json
import queue
import secrets
import statistics
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import chaos.crash_probe
from harness.model import labels
from harness.rig.container_exec import run_inside
from harness.rig.engine import connect
from harness.rig.rig import Rig
from harness.rig.topology_document import read_topology
from harness.rig.yaml_source import load

__all__ = ["main"]

EVENT_LIMIT_S = 30.0
REST_LIMIT_S = 60.0
MACHINES = 6
FLOOR_PER_MACHINE_S = 0.04
SOURCE = inspect.getsource(chaos.crash_probe)

TOPOLOGY = """
nodes: 3
voters: 3
groups:
"""
GROUP = """
  - name: g{number}
    preferred-owners: [node1]
    resources:
      - {{name: ip{number}, type: ip-address}}
      - name: vm{number}
        type: virtual-machine
        depends-on: "[ip{number}]"
        restart-threshold: 50
        restart-delay: 0s
"""


class Events:
    """The engine's container events of one rig, from a thread."""

    def __init__(self, client: Any, rig: str) -> None:
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue()
        self._stream = client.events(decode=True, filters={"type": "container", "label": f"{labels.RIG}={rig}"})
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for event in self._stream:
            self._queue.put(event)

    def wait(self, what: str, holds: Callable[[str, str], bool]) -> tuple[int, str]:
        """Time in nanoseconds and container of the next event whose action and container id are meant."""
        while True:
            try:
                event = self._queue.get(timeout=EVENT_LIMIT_S)
            except queue.Empty:
                raise SystemExit(f"waited {EVENT_LIMIT_S:g} s for {what}: no event came") from None
            if holds(event["Action"], event["id"]):
                return event["timeNano"], event["id"]

    def drop(self) -> None:
        """Forget what has come so far."""
        while not self._queue.empty():
            self._queue.get_nowait()

    def close(self) -> None:
        """End the stream."""
        self._stream.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.recovery", description="recovery times against their floors")
    parser.add_argument("what", choices=("crash", "power-cut"))
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args(arguments)
    client = connect()
    try:
        result = (crash if options.what == "crash" else power_cut)(client, options.rounds)
    finally:
        client.close()
    print(json.dumps(result, indent=2))
    return 0


@contextlib.contextmanager
def _standing_rig(client: Any) -> Iterator[tuple[Rig, str]]:
    """A rig whose six groups prefer node1, and its name; gone afterwards."""
    text = TOPOLOGY + "".join(GROUP.format(number=number) for number in range(1, MACHINES + 1))
    name = f"bench-{secrets.token_hex(2)}"
    rig = Rig.up(read_topology(load(text, name="bench"), rig=name), say=_quiet, client=client)
    try:
        yield rig, name
    finally:
        rig.down(say=_quiet)


def _quiet(text: str) -> None:
    print(text, file=sys.stderr)


def crash(client: Any, rounds: int) -> dict[str, Any]:
    """Ours and the floor, alternating, on one rig."""
    ours, floor = [], []
    with _standing_rig(client) as (rig, name):
        events = Events(client, name)
        bare = _bare_machine(client, name)
        for _ in range(rounds):
            machine = next(one for one in rig.machines() if one.name == "vm1" and one.state == "running")
            ours.append(_crash_once(client, events, f"{name}-{machine.node}", machine.container))
            rig.wait_online(limit_s=REST_LIMIT_S, say=_quiet)
            floor.append(_floor_once(client, events, f"{name}-node2", bare))
        events.close()
    return _result("machine crash: die to start", ours, floor)


def power_cut(client: Any, rounds: int) -> dict[str, Any]:
    """Every round has a rig of its own, and cuts the node that owns all six machines."""
    ours, floor = [], []
    for _ in range(rounds):
        with _standing_rig(client) as (rig, name):
            owners = {one.node for one in rig.machines() if one.state == "running"}
            if len(owners) != 1:
                _quiet(f"the machines run on {', '.join(sorted(owners))}: this round does not count")
                continue
            ours.append(_cut_once(client, rig, f"{name}-{owners.pop()}", name))
            floor.append(rig.topology.settings.lease_us / 1e6 + FLOOR_PER_MACHINE_S * MACHINES)
    return _result("node power cut: kill to last of six starts", ours, floor)


def _cut_once(client: Any, rig: Rig, node: str, name: str) -> float:
    events = Events(client, name)
    box = client.containers.get(node).id
    rig.power_off(node.removeprefix(f"{name}-"), hold=True)
    cut_ns, _ = events.wait("the kill of the node", lambda action, of: action == "kill" and of == box)
    last_ns = cut_ns
    for number in range(MACHINES):
        what = f"machine {number + 1} of {MACHINES} to start"
        last_ns, _ = events.wait(what, lambda action, of: action == "start" and of != box)
    events.close()
    return (last_ns - cut_ns) / 1e9


def _crash_once(client: Any, events: Events, node: str, container: str) -> float:
    events.drop()
    found = run_inside(
        client, node, ["python3", "-I", "-c", SOURCE, container], user="0", limit_s=10
    )
    if found.exit_code != 0:
        raise SystemExit(f"the crash of {container[:12]} was not made: {found}")
    died_ns, _ = events.wait("its die event", lambda action, box: action == "die" and box == container)
    started_ns, _ = events.wait("its start event", lambda action, _: action == "start")
    return (started_ns - died_ns) / 1e9


def _bare_machine(client: Any, name: str) -> str:
    """A guest that no cluster knows, in the namespaces of a node and under a user that PID 1 takes for the node's
    own.
    """
    box = client.containers.create(
        "blackstart/hypervisor:latest",
        entrypoint=["sleep", "3600"],
        pid_mode=f"container:{name}-node2",
        network_mode=f"container:{name}-node2",
        user="909",
        cap_drop=["ALL"],
        labels={labels.RIG: name, labels.ROLE: labels.Role.CLIENT.value},
    )
    box.start()
    return str(box.id)


def _floor_once(client: Any, events: Events, node: str, container: str) -> float:
    """The event stream's reader starts it again at once."""
    events.drop()
    ready = threading.Thread(
        target=run_inside,
        args=(client, node, ["python3", "-I", "-c", SOURCE, container]),
        kwargs={"user": "0", "limit_s": 10},
    )
    ready.start()
    died_ns, _ = events.wait("the bare machine's die event", lambda action, box: action == "die" and box == container)
    client.api.start(container)
    started_ns, _ = events.wait("its start event", lambda action, box: action == "start" and box == container)
    ready.join()
    return (started_ns - died_ns) / 1e9


def _result(what: str, ours: list[float], floor: list[float]) -> dict[str, Any]:
    return {
        "what": what,
        "rounds": len(ours),
        "median_s": round(statistics.median(ours), 3),
        "worst_s": round(max(ours), 3),
        "floor_median_s": round(statistics.median(floor), 3),
        "ratio": round(statistics.median(ours) / statistics.median(floor), 2),
        "all_s": [round(value, 3) for value in ours],
        "floor_all_s": [round(value, 3) for value in floor],
    }


if __name__ == "__main__":
    sys.exit(main())
