"""Kills a VM's main process from inside its node's PID namespace. Runs in the node's container, as root.

    python3 -I -c SOURCE CONTAINER-ID

The engine has no part in it, so its events show a death that nobody asked for. The process is found by its cgroup,
which names the container; the main process is the eldest in it, because whatever was started by it or by `docker exec`
came later. Held by a descriptor from before the last look until the kill, so that a number that the kernel gives to
another process meanwhile is never hit. Prints one JSON line: when the signal was sent, and to what.
"""

import json
import os
import signal
import sys
import time


def age(pid: int) -> int:
    """The start of a process in ticks since boot; raises OSError when it has gone."""
    with open(f"/proc/{pid}/stat") as file:
        # The name in parentheses may hold anything, so fields are counted from its end.
        return int(file.read().rpartition(")")[2].split()[19])


def belongs(pid: int, container: str) -> bool:
    """Whether the process is in that container's cgroup."""
    with open(f"/proc/{pid}/cgroup") as file:
        return container in file.read()


def processes(container: str) -> list[tuple[int, int]]:
    """The processes of a container as (start, pid), eldest first."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if belongs(int(name), container):
                    found.append((age(int(name)), int(name)))
            except OSError:
                continue
    return sorted(found)


def main() -> int:
    """0: the signal was sent; 3: the container has no process here."""
    container = sys.argv[1]
    found = processes(container)
    if not found:
        print(json.dumps({"error": "no process of that container in this PID namespace"}))
        return 3
    started, pid = found[0]
    handle = os.pidfd_open(pid)
    if not belongs(pid, container) or age(pid) != started:
        print(json.dumps({"error": "its main process ended while it was looked for"}))
        return 3
    at_ns = time.time_ns()
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    print(json.dumps({"at_ns": at_ns, "pid": pid, "processes": len(found)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
