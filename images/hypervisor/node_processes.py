"""Processes as /proc shows them: which are guests, and killing them.

It does not know when guests must die; the watchdog does. The engine is never asked: a guest must die while the
engine hangs.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Process", "count_vms", "is_guest", "kill_group", "kill_guests", "parse_status"]

NODE_UIDS = range(899, 910)
"""The node's own identities. Every other process of the namespace is a guest."""
VM_UIDS_START = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What /proc says of one process."""

    pid: int
    uid: int
    alive: bool


def parse_status(pid: int, text: str) -> Process:
    """A /proc/PID/status. The real user id counts: the owner of /proc/PID is root while a process is not dumpable.

    A zombie with threads left is alive: its first thread has ended, its others run on.
    """
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    dead = fields["State"].split()[0] in "ZX" and int(fields.get("Threads", "1")) <= 1
    return Process(pid=pid, uid=int(fields["Uid"].split()[0]), alive=not dead)


def processes() -> Iterator[Process]:
    """Every process of the namespace that did not end while it was looked at."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as file:
                    yield parse_status(int(name), file.read())
            except (FileNotFoundError, ProcessLookupError):
                continue


def is_guest(process: Process) -> bool:
    """True for all but PID 1 and the node's own identities: a root shell of the engine's `exec` is a guest."""
    return process.alive and process.pid != 1 and process.uid not in NODE_UIDS


def kill_guests() -> int:
    """Kill each guest process once, by signal, without the engine. Returns how many were alive."""
    alive = 0
    for process in processes():
        if is_guest(process):
            alive += 1
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                alive -= 1
    return alive


def count_vms() -> int:
    """How many processes run under a VM's identity; shells of `exec` are none: faults are healed through them."""
    return sum(process.alive and process.uid >= VM_UIDS_START for process in processes())


def kill_group(pid: int) -> None:
    """Kill every process of the group that `pid` led."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
