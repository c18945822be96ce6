"""Looks at a node's processes from inside, and signals them. Runs in the node's container, as root.

    python3 -I -c SOURCE look '{"ask": ["service", "vmms", "voter"]}'
    python3 -I -c SOURCE program '{"pid": 12, "started": 345, "signal": 9}'
    python3 -I -c SOURCE VM '{"container": ID, "signal": 19}'
    python3 -I -c SOURCE wipe '{"pid": 12, "started": 345}'
    python3 -I -c SOURCE fill '{}'
    python3 -I -c SOURCE free '{}'

Root here may signal everybody and change its user, and nothing else: what belongs to the voter is touched as the voter.
A process is held by a descriptor from before the last look until the signal, so that a number that the kernel gives to
another process meanwhile is never hit. Prints one JSON line.
"""

import errno
import json
import os
import re
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

Entry = tuple[int, str, int, int, int]
"""A process: pid, state, parent, session, start."""

SERVICE_USER, VOTER_USER = 900, 901
NODE_GROUP = 910
PROGRAM_USERS = range(900, 904)
DATA = "/data"
FILLER = "/data/filler"
SOCKETS = {"service": "/run/blackstart/service.sock", "vmms": "/run/blackstart/vmms.sock"}
CALLS = {"service": "snapshot", "vmms": "alive"}
VOTER_PORT = 637
ANSWER_LIMIT_S = 0.5
"""A process that works answers within some milliseconds, on a loaded host within a tenth of a second."""
STOP_LIMIT_S = 2.0
CHUNKS = (1 << 20, 1 << 12, 1)
CONTAINER = re.compile(r"[0-9a-f]{64}")


def stat_of(pid: int) -> tuple[str, int, int, int]:
    """State, parent, session and start of a process; raises OSError when it has gone."""
    with open(f"/proc/{pid}/stat") as file:
        # The name in parentheses may hold anything, so fields are counted from its end.
        fields = file.read().rpartition(")")[2].split()
    return fields[0], int(fields[1]), int(fields[3]), int(fields[19])


def user_of(pid: int) -> int:
    """The real user of a process."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Uid:"))


def container_of(pid: int) -> str:
    """The id of the container that a process belongs to, empty for the node's own."""
    with open(f"/proc/{pid}/cgroup") as file:
        ids = CONTAINER.findall(file.read())
    return ids[-1] if ids else ""


def alive() -> list[Entry]:
    """Every process of the namespace that is no zombie."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                state, parent, session, started = stat_of(int(name))
            except OSError:
                continue
            if state not in "ZX":
                found.append((int(name), state, parent, session, started))
    return found


def send(pid: int, started: int, number: int) -> bool:
    """The signal, unless the process has gone."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if stat_of(pid)[3] != started:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def send_all(members: Callable[[], list[Entry]], number: int) -> int:
    """The signal to all that `members` finds, and for SIGSTOP until all of them stand still. How many it hit."""
    hit: set[int] = set()
    ends = time.monotonic() + STOP_LIMIT_S
    while True:
        found = members()
        left = [entry for entry in found if number != signal.SIGSTOP or entry[1] not in "Tt"]
        if hit and (number != signal.SIGSTOP or not left):
            return len(hit)
        if not found or time.monotonic() > ends:
            return len(hit)
        hit |= {pid for pid, _, _, _, started in left if send(pid, started, number)}
        if number == signal.SIGSTOP:
            time.sleep(0.005)


def look(ask: list[str]) -> dict[str, Any]:
    """What runs, in which state; who answers; the voter's disk."""
    programs: dict[int, dict[str, Any]] = {}
    vms: dict[str, str] = {}
    for pid, state, parent, _, started in alive():
        try:
            user, container = user_of(pid), container_of(pid)
        except (OSError, StopIteration):
            continue
        if user in PROGRAM_USERS and parent == 1:
            programs[user] = {"pid": pid, "started": started, "state": state}
        elif user >= 10000:
            vms[container] = vms.get(container, "") + state
    answers = {name: answers_ping() if name == "voter" else answers_frame(name) for name in ask}
    return {"programs": programs, "vms": vms, "answers": answers, "disk": disk()}


def answers_frame(name: str) -> bool:
    """Whether a program says anything on its socket."""
    text = json.dumps({"id": 1, "call": CALLS[name], "arguments": {}}).encode()
    # The sockets are the group's, and this root may not overlook that.
    os.setegid(NODE_GROUP)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(ANSWER_LIMIT_S)
            link.connect(SOCKETS[name])
            link.sendall(struct.pack(">I", len(text)) + text)
            return bool(link.recv(1))
    except OSError:
        return False
    finally:
        os.setegid(0)


def answers_ping() -> bool:
    """Whether the voter says anything to PING; that it wants a password first is an answer."""
    # The node's rules let nobody else connect.
    os.seteuid(SERVICE_USER)
    try:
        with socket.create_connection(("127.0.0.1", VOTER_PORT), timeout=ANSWER_LIMIT_S) as link:
            link.sendall(b"PING\r\n")
            return bool(link.recv(1))
    except OSError:
        return False
    finally:
        os.seteuid(0)


def disk() -> dict[str, Any] | None:
    """The voter's disk, or None where there is none."""
    with open("/proc/mounts") as file:
        kinds = {fields[1]: fields[2] for fields in map(str.split, file)}
    if DATA not in kinds:
        return None
    seen = os.statvfs(DATA)
    changes: list[int] = []
    for directory, _, names in os.walk(DATA):
        for name in names:
            try:
                changes.append(os.stat(os.path.join(directory, name)).st_mtime_ns)
            except OSError:
                continue
    return {
        "size": seen.f_frsize * seen.f_blocks,
        "free": seen.f_frsize * seen.f_bavail,
        "limited": kinds[DATA] == "tmpfs",
        "files": len(changes),
        "oldest_ns": min(changes, default=0),
    }


def signal_program(pid: int, started: int, number: int) -> int:
    """The signal to a program and to its children, which share its session."""
    if (pid, started) not in [(entry[0], entry[4]) for entry in alive()]:
        raise LookupError(f"process {pid} ended while it was looked for")
    return send_all(lambda: [entry for entry in alive() if entry[3] == pid], number)


def signal_vm(container: str, number: int) -> int:
    """The signal to every process of a container."""

    def members() -> list[Entry]:
        found = []
        for entry in alive():
            try:
                if container_of(entry[0]) == container:
                    found.append(entry)
            except OSError:
                continue
        return found

    hit = send_all(members, number)
    if not hit:
        raise LookupError("no process of that container in this PID namespace")
    return hit


def wipe(pid: int, started: int) -> int:
    """The voter stands still, loses its files and dies: at no moment does one run that could write them again."""
    signal_program(pid, started, signal.SIGSTOP)
    os.seteuid(VOTER_USER)
    try:
        removed = 0
        for entry in os.scandir(DATA):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
            removed += 1
    finally:
        os.seteuid(0)
        signal_program(pid, started, signal.SIGKILL)
    return removed


def fill() -> int:
    """A file that takes what is free, to the last byte. Only on a volume with a size of its own."""
    seen = disk()
    if seen is None or not seen["limited"]:
        raise LookupError(f"{DATA} has no size of its own: filling it would fill the engine's disk")
    os.seteuid(VOTER_USER)
    handle = os.open(FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        written = 0
        for size in CHUNKS:
            while True:
                try:
                    written += os.write(handle, b"\0" * size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
        return written
    finally:
        os.close(handle)
        os.seteuid(0)


def free() -> bool:
    """Whether the file was there."""
    os.seteuid(VOTER_USER)
    try:
        os.unlink(FILLER)
    except FileNotFoundError:
        return False
    finally:
        os.seteuid(0)
    return True


def main() -> int:
    """0: done; 3: what it was about is not there any more."""
    action, arguments = sys.argv[1], json.loads(sys.argv[2])
    at_ns = time.time_ns()
    try:
        if action == "look":
            told = look(arguments["ask"])
        elif action == "program":
            told = {"hit": signal_program(arguments["pid"], arguments["started"], arguments["signal"])}
        elif action == "vm":
            told = {"hit": signal_vm(arguments["container"], arguments["signal"])}
        elif action == "wipe":
            told = {"hit": wipe(arguments["pid"], arguments["started"])}
        else:
            told = {"hit": {"fill": fill, "free": free}[action]()}
    except LookupError as error:
        print(json.dumps({"error": str(error)}))
        return 3
    print(json.dumps({"at_ns": at_ns, **told}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
