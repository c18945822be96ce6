"""A rig on an overloaded host: where the time of its processes goes, and how the cluster fares.

`python -m bench.overload` makes a rig, loads the host with busy loops, cuts the power of two nodes, lets every lease
lapse at once, and prints phase by phase the kernel's counts for the nodes' processes and the events that the nodes
logged. It is no benchmark: it has no floor and no goal, and `docs/design/0013-overload.md` has its findings. The engine
must be on this host.
"""

import argparse
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from bench.rigs import say, standing_rig
from harness.errors import BlackstartError, HarnessError, WaitTimeout
from harness.model.object_names import node_container
from harness.rig.engine.connection import connect
from harness.rig.lifecycle.rig import Rig

__all__ = ["main"]

LOSE = ("node3", "node8")
PROGRAMS = {
    "harness.live.service": "service",
    "harness.live.vmms": "vmms",
    "harness.live.resource_host": "resource host",
    "redis-server": "voter",
    "init.py": "PID 1",
}
HOG = "import time; end = time.monotonic() + {limit_s}\nwhile time.monotonic() < end: pass"
LOGGED = ("lease-lapsed", "node-lease-expired", "node-declared-down", "claim-not-done", "group-claimed", "loop-late")
PING_INTERVAL_S = 0.5
ONLINE_LIMIT_S = 120.0
PAST_LEASE_S = 0.3
"""The grace of a node is a second: its VMs end, and it lives on."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What the kernel counted for a process so far: nanoseconds run, nanoseconds ready and waiting, and turns."""

    ran_ns: int
    waited_ns: int
    turns: int


@dataclass(slots=True)
class Pings:
    """How long the engine took to answer, in seconds, in the order of asking."""

    took_s: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the phases. Returns 0, or 4 when the rig could not be made or measured."""
    parser = argparse.ArgumentParser(prog="bench.overload", description="a rig under load, and where its time goes")
    parser.add_argument("--nodes", type=int, default=9)
    parser.add_argument("--groups", type=int, default=30)
    parser.add_argument("--hogs", type=int, default=24, help="busy loops")
    parser.add_argument("--sessions", type=int, default=6, help="that they are spread over: Linux weighs sessions")
    parser.add_argument("--seconds", type=int, default=20, help="of each phase; the last has three times as many")
    parser.add_argument("--logs", type=Path, help="a directory to write the nodes' logs into")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with contextlib.closing(connect()) as client:
            _measure(client, options)
    except BlackstartError as error:
        say(str(error))
        return 4
    return 0


def _terminated(_number: int, _frame: object) -> None:
    raise SystemExit(143)


def _measure(client: docker.DockerClient, options: argparse.Namespace) -> None:
    text = f"nodes: {options.nodes}\ngroups: {options.groups}\n"
    with standing_rig(client, text) as rig:
        _phase(client, rig, "at rest", options.seconds)
        with _hogs(options.hogs, options.sessions, options.seconds * 5 + 300):
            _phase(client, rig, "under load", options.seconds)
            lost = [node for node in LOSE if node in {known.name for known in rig.topology.nodes}]
            began_s = time.time()
            for node in lost:
                rig.power_off(node, hold=True)
            _phase(client, rig, f"under load, {' and '.join(lost)} off", options.seconds * 3, began_s=began_s)
            for node in lost:
                rig.power_on(node)
            _wait_online(rig, "both are back, everything is Online")
            began_s = time.time()
            _let_leases_lapse(client, rig)
            _wait_online(rig, "after every lease had lapsed, everything is Online")
            _print_logged(client, rig, began_s)
        if options.logs is not None:
            _keep_logs(client, rig, options.logs)


def _wait_online(rig: Rig, what: str) -> None:
    began = time.monotonic()
    try:
        rig.wait_online(limit_s=ONLINE_LIMIT_S, say=lambda _: None)
    except WaitTimeout as error:
        print(f"\n{what}: not within {ONLINE_LIMIT_S:g} s: {error.saw}", flush=True)
    else:
        print(f"\n{what} after {time.monotonic() - began:.1f} s", flush=True)


def _let_leases_lapse(client: docker.DockerClient, rig: Rig) -> None:
    """Stop every service for longer than a lease: PID 1 of each node ends its VMs, and all begin anew at once."""
    services = [pid for program, pid in _counted(client, rig) if program == "service"]
    for pid in services:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(rig.topology.settings.lease_us / 1e6 + PAST_LEASE_S)
    for pid in services:
        with contextlib.suppress(ProcessLookupError):  # its node was fenced, or reset itself
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _hogs(number: int, sessions: int, limit_s: float) -> Iterator[None]:
    """Busy loops that end with the block, and by themselves after `limit_s`."""
    command = f"{sys.executable} -I -c '{HOG.format(limit_s=int(limit_s))}' &"
    shares = [number // sessions + (index < number % sessions) for index in range(sessions)]
    leaders = [
        subprocess.Popen(["sh", "-c", "\n".join([command] * share) + "\nwait"], start_new_session=True)
        for share in shares
    ]
    try:
        yield
    finally:
        for leader in leaders:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader.pid, signal.SIGKILL)
            leader.wait()


def _phase(client: docker.DockerClient, rig: Rig, title: str, seconds: float, *, began_s: float | None = None) -> None:
    began_s = began_s if began_s is not None else time.time()
    before = _counted(client, rig)
    pings, end = Pings(), threading.Event()
    pinging = threading.Thread(target=_ping, args=(pings, end), daemon=True)
    pinging.start()
    time.sleep(seconds)
    after = _counted(client, rig)
    end.set()
    pinging.join()
    print(f"\n{title}: {seconds:g} s, load average {os.getloadavg()[0]:.1f}", flush=True)
    _print_processes(before, after, seconds)
    ordered = sorted(pings.took_s)
    print(f"  engine's answer: median {ordered[len(ordered) // 2] * 1e3:.0f} ms, longest {ordered[-1] * 1e3:.0f} ms")
    _print_logged(client, rig, began_s)


def _ping(pings: Pings, end: threading.Event) -> None:
    with contextlib.closing(connect()) as client:
        while not end.wait(PING_INTERVAL_S):
            began = time.monotonic()
            client.ping()
            pings.took_s.append(time.monotonic() - began)


def _counted(client: docker.DockerClient, rig: Rig) -> dict[tuple[str, int], Counted]:
    """By program and process, of every node that runs."""
    found = {}
    for node in rig.topology.nodes:
        with contextlib.suppress(docker.errors.APIError):  # it is off
            listed = client.api.top(node_container(rig.name, node.name), "-eo pid,args")
            for pid, command in listed["Processes"]:
                program = next((name for mark, name in PROGRAMS.items() if mark in command), None)
                counted = _of_process(int(pid)) if program else None
                if program and counted:
                    found[program, int(pid)] = counted
    if not found:
        raise HarnessError("the kernel here counts nothing of the nodes' processes: is the engine on this host?")
    return found


def _of_process(pid: int) -> Counted | None:
    """Of all of its threads that live."""
    numbers = [0, 0, 0]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for index, word in enumerate((task / "schedstat").read_text().split()):
                numbers[index] += int(word)
    except (OSError, ValueError):
        return None
    return Counted(*numbers)


def _print_processes(
    before: dict[tuple[str, int], Counted], after: dict[tuple[str, int], Counted], seconds: float
) -> None:
    by_program = collections.defaultdict(list)
    for key in before.keys() & after.keys():
        one, two = before[key], after[key]
        turns = two.turns - one.turns
        ran_ms, waited_ms = (two.ran_ns - one.ran_ns) / 1e6, (two.waited_ns - one.waited_ns) / 1e6
        by_program[key[0]].append((ran_ms / seconds, waited_ms / seconds, waited_ms / max(turns, 1)))
    print("  process         ran ms/s   waited ms/s   waited ms/turn   (median and most of the nodes)")
    for program in PROGRAMS.values():
        of_nodes = by_program.get(program)
        if of_nodes:
            cells = []
            for column in zip(*of_nodes, strict=True):
                values = sorted(column)
                cells.append(f"{values[len(values) // 2]:6.1f} {values[-1]:6.1f}")
            print(f"  {program:14} {'  '.join(cells)}")


def _print_logged(client: docker.DockerClient, rig: Rig, began_s: float) -> None:
    events: collections.Counter[str] = collections.Counter()
    claims, late = [], []
    for line in _lines(client, rig, began_s):
        events[line["event"]] += 1
        if line["event"] == "failover-decided":
            phases = line["fields"]["phases_us"]
            if phases["over"] is not None:
                claims.append((line["time"] - began_s, (phases["claimed"] - phases["over"]) / 1e6))
        elif line["event"] == "loop-late":
            late.append((line["fields"]["late_us"] / 1e6, (line["fields"]["waited_us"] or 0) / 1e6))
    counted = ", ".join(f"{name} {events[name]}" for name in LOGGED)
    print(f"  logged: {counted}; failed resources {events['resource-failed']}, boots {events['node-boots']}")
    if late:
        print(f"  loops: latest {max(late)[0]:.2f} s, longest wait {max(wait for _, wait in late):.2f} s in a window")
    if claims:
        took = sorted(seconds for _, seconds in claims)
        ended = sorted(at for at, _ in claims)
        print(
            f"  {len(claims)} claims, from fenced to claimed: median {took[len(took) // 2]:.2f} s, longest "
            f"{took[-1]:.2f} s; the last {ended[-1]:.1f} s after the power cut"
        )


def _keep_logs(client: docker.DockerClient, rig: Rig, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for node in rig.topology.nodes:
        (directory / f"{node.name}.log").write_bytes(client.api.logs(node_container(rig.name, node.name)))


def _lines(client: docker.DockerClient, rig: Rig, began_s: float) -> Iterator[dict[str, Any]]:
    for node in rig.topology.nodes:
        text = client.api.logs(node_container(rig.name, node.name), since=int(began_s))
        for raw in bytes(text).decode(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(raw)
                if line["time"] >= began_s:
                    yield line


if __name__ == "__main__":
    sys.exit(main())
