"""How long a change of the cluster database takes, and for how long it takes none when a voter dies. The client is
`database_client.py`, which runs inside of a node.
"""

import inspect
import json
import statistics
import threading
from collections.abc import Callable
from typing import Any

import docker

import bench.database_client
from bench.figure import Figure, Goal, GoalKind, Series, alternate
from bench.rigs import say, standing_rig
from harness.errors import HarnessError, WaitTimeout
from harness.model.object_names import node_container
from harness.rig.engine.exec import Finished, run_inside
from harness.rig.lifecycle.rig import Rig

__all__ = ["database_latency", "write_gap"]

CLIENT_USER = "900:900"
"""The service's: only it can read the voters' password."""
CLIENT_NODE = "node1"
VICTIMS = ("node2", "node3")
CALLS = 100
LATENCY_LIMIT_S = 300.0
WRITE_S = 2.0
WRITE_LIMIT_S = 30.0
FAULT_AFTER_S = 0.5
REST_LIMIT_S = 60.0

TOPOLOGY = f"""
nodes: 3
voters: 3
groups:
  - name: ledger
    priority: no-auto-start
    preferred-owners: [{CLIENT_NODE}]
    resources:
      - {{name: ledger-ip, type: ip-address}}
      - {{name: ledger-vm, type: virtual-machine, depends-on: "[ledger-ip]"}}
"""

KILL_VOTER = """
import os, signal
parents = {}
for name in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{name}/stat") as file:
            command, fields = file.read().partition("(")[2].rsplit(")", 1)
            if command == "redis-server" and os.stat(f"/proc/{name}").st_uid == 901:
                parents[int(name)] = int(fields.split()[1])
    except OSError:
        continue
voters = [pid for pid, parent in parents.items() if parent not in parents]
for pid in voters:
    os.kill(pid, signal.SIGKILL)
raise SystemExit(0 if len(voters) == 1 else f"killed {len(voters)} voters, expected one")
"""
"""A voter that rewrites its file has a child of its own name."""


def database_latency(client: docker.DockerClient, rounds: int) -> list[Figure]:
    """One and two round trips against a fsynced SET, in turn, each value the median of a hundred calls."""
    with standing_rig(client, TOPOLOGY) as rig:
        found = _run_client(client, rig, ["latency", str(rounds), str(CALLS)], limit_s=LATENCY_LIMIT_S)
    told = [json.loads(line) for line in found.stdout.splitlines()]
    floor = _medians_ms(told, "set_us")
    size = told[0]["bytes"]
    others = sum(entry["others"] for entry in told)
    calls = (
        f"Each value is the median of {CALLS} calls, one after the other, by one client in a node against three "
        f"voters; the register's text has {size} bytes"
    )
    figures = []
    for key, trips, limit in (("one_us", "one round trip", 2.5), ("two_us", "two round trips", 5.0)):
        figures.append(
            Figure(
                title=f"change of a register, {trips}",
                unit="ms",
                measured=_medians_ms(told, key),
                floor=floor,
                goal=Goal(kind=GoalKind.RATIO, limit=limit),
                how=f"From the wish to the settlement, accepted on a majority with fsync. {calls}. "
                f"{others} of all changes took more round trips than meant and are left out.",
                floor_is="a fsynced SET of the same size by the same client over the same connection code, on the "
                "voter of its own node.",
            )
        )
    return figures


def _medians_ms(told: list[dict[str, Any]], key: str) -> Series:
    return Series(values=tuple(statistics.median(entry[key]) / 1000 for entry in told))


def write_gap(client: docker.DockerClient, rounds: int) -> list[Figure]:
    """The longest gap between two acknowledged writes of a client that writes all the time: undisturbed, with a
    voter's process killed, with a voter's whole node killed; in turn on one rig.
    """
    with standing_rig(client, TOPOLOGY) as rig:

        def voter_killed(number: int) -> float:
            node = VICTIMS[number % len(VICTIMS)]
            gap_ms = _longest_gap_ms(client, rig, lambda: _kill_voter(client, rig, node))
            rig.wait_online(limit_s=REST_LIMIT_S, say=say)
            return gap_ms

        def node_killed(number: int) -> float:
            node = VICTIMS[number % len(VICTIMS)]
            gap_ms = _longest_gap_ms(client, rig, lambda: rig.power_off(node, hold=True))
            rig.power_on(node)
            rig.wait_online(limit_s=REST_LIMIT_S, say=say)
            return gap_ms

        found = alternate(
            rounds,
            {
                "undisturbed": lambda _: _longest_gap_ms(client, rig, lambda: None),
                "voter": voter_killed,
                "node": node_killed,
            },
        )
    how = (
        f"The longest gap between two acknowledged changes of one client that writes without a pause for {WRITE_S:g} s "
        f"from a survivor; {FAULT_AFTER_S:g} s after its first change {{}}."
    )
    titles = {
        "voter": ("write gap when a voter's process is killed", how.format("a voter of another node dies of SIGKILL")),
        "node": ("write gap when a voter's node is killed", how.format("another node, its voter with it, is killed")),
    }
    return [
        Figure(
            title=title,
            unit="ms",
            measured=found[key],
            floor=found["undisturbed"],
            goal=Goal(kind=GoalKind.MEDIAN, limit=50.0),
            how=text,
            floor_is="the longest gap of an undisturbed run of the same length.",
        )
        for key, (title, text) in titles.items()
    ]


def _longest_gap_ms(client: docker.DockerClient, rig: Rig, fault: Callable[[], None]) -> float:
    writing = threading.Event()
    ended: list[Finished | Exception] = []

    def write() -> None:
        try:
            arguments = ["write", str(WRITE_S)]
            ended.append(
                _run_client(client, rig, arguments, limit_s=WRITE_LIMIT_S, on_line=lambda _: writing.set())
            )
        except Exception as error:  # noqa: BLE001 - the root of a thread: raised again by whoever waits for it
            ended.append(error)
        writing.set()

    writer = threading.Thread(target=write)
    writer.start()
    if not writing.wait(WRITE_LIMIT_S):
        raise WaitTimeout(waited_for="the client to write", saw="nothing from it", limit_s=WRITE_LIMIT_S)
    threading.Event().wait(FAULT_AFTER_S)
    fault()
    writer.join()
    if isinstance(ended[0], Exception):
        raise ended[0]
    told = json.loads(ended[0].stdout.splitlines()[-1])
    longest = told["gaps"][0]
    say(
        f"changes: {told['changes']}; the longest gap: {longest['gap_us'] / 1000:.1f} ms, round trips: "
        f"{longest['round_trips']}, {longest['began_us'] / 1000:.0f} ms after the first change"
    )
    return float(longest["gap_us"]) / 1000


def _kill_voter(client: docker.DockerClient, rig: Rig, node: str) -> None:
    command = ["python3", "-I", "-c", KILL_VOTER]
    found = run_inside(client, node_container(rig.name, node), command, user="0", limit_s=WRITE_LIMIT_S)
    if found.exit_code != 0:
        raise HarnessError(f"the voter of {node} was not killed: {found.stderr}")


def _run_client(
    client: docker.DockerClient,
    rig: Rig,
    arguments: list[str],
    *,
    limit_s: float,
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    found = run_inside(
        client,
        node_container(rig.name, CLIENT_NODE),
        ["python3", "-I", "-", *arguments],
        user=CLIENT_USER,
        limit_s=limit_s,
        stdin=inspect.getsource(bench.database_client).encode(),
        on_line=on_line,
    )
    if found.exit_code != 0:
        raise HarnessError(f"the client in {CLIENT_NODE} ended with {found.exit_code}: {found.stderr[-500:]}")
    return found
