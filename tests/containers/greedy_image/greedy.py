"""A VM that takes as much as it gets of one thing, prints one JSON line about it, and goes on running.

    greedy.py fill | log | flows | reach | journal-fifo | journal-sparse | journal-deep

`log` prints lines without an end instead.
"""

import errno
import json
import os
import signal
import socket
import sys
import time

JOURNAL = "/disk/journal.jsonl"
MIB = 1 << 20
ENOUGH_MIB = 256
ENOUGH_FILES = 100_000
FLOWS = 20_000
CONNECT_LIMIT_S = 1.0
CLOSED_PORT = 9


def fill() -> dict[str, object]:
    """Each place until it is full: its bytes, and the files that it takes after that."""
    return {
        "disk": [room(f"/disk/{name}") for name in ("first", "second")],
        "temporary": room("/tmp/fill"),
        "files": files("/disk"),
        "elsewhere": [path for path in ("/greedy", "/var/tmp/greedy", "/run/greedy", "/root/greedy") if writable(path)],
    }


def room(path: str) -> float:
    """The mebibytes that a new file takes."""
    written = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while written < ENOUGH_MIB * MIB:
            written += os.write(descriptor, bytes(MIB))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(descriptor)
    return written / MIB


def files(directory: str) -> int:
    """How many empty files it takes."""
    for number in range(ENOUGH_FILES):
        try:
            os.close(os.open(f"{directory}/{number}", os.O_WRONLY | os.O_CREAT, 0o600))
        except OSError:
            return number
    return ENOUGH_FILES


def writable(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError:
        return False
    return True


def log() -> dict[str, object]:
    """Lines without an end."""
    line = b"\x1b[2Jx" * 40 + b"\n"
    while True:
        os.write(1, line * 100)


def flows() -> dict[str, object]:
    """Packets to as many ports, and connections to a port that refuses them, each of which the kernel tracks."""
    sent = opened = 0
    peer = other_in_network(gateway())
    for number in range(FLOWS):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
            try:
                sent += flow.sendto(b"x", (peer, 1024 + number % 60_000))
            except OSError:
                continue  # the firewall has dropped it
    for _ in range(FLOWS // 10):
        with socket.socket() as connection:
            connection.setblocking(False)
            connection.connect_ex((peer, CLOSED_PORT))
            opened += 1
    return {"sent": sent, "opened": opened}


def reach() -> dict[str, object]:
    """The addresses to which a connection was made or refused by their own host, and not by a rule."""
    places = {"gateway": gateway(), "elsewhere": "192.0.2.1", "resolver": "127.0.0.11"}
    reached = [name for name, address in places.items() if sends_to(address)]
    return {"reached": reached, "peer": sends_to(other_in_network(gateway()))}


def gateway() -> str:
    with open("/proc/net/route", encoding="ascii") as table:
        routes = [line.split() for line in table]
    return next(socket.inet_ntoa(bytes.fromhex(route[2])[::-1]) for route in routes if route[1] == "00000000")


def other_in_network(address: str) -> str:
    """An address that nothing has."""
    return f"{address.rpartition('.')[0]}.250"


def sends_to(address: str) -> bool:
    """A datagram's first packet is refused by a rule with EPERM, or with ECONNREFUSED before any other can answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        try:
            flow.connect((address, 53_000))
            flow.send(b"x")
        except OSError as error:
            return error.errno not in (errno.EPERM, errno.ECONNREFUSED)
    return True


def journal_fifo() -> dict[str, object]:
    os.mkfifo(JOURNAL)
    return {}


def journal_sparse() -> dict[str, object]:
    """Larger than anything that is read, and than the disk, without a byte in it."""
    with open(JOURNAL, "wb") as file:
        file.truncate(300 * MIB)
    return {}


def journal_deep() -> dict[str, object]:
    with open(JOURNAL, "wb") as file:
        file.write(b"[" * 100_000 + b"\n" + b'{"boot":' * 50_000 + b'\n{"boot": "\\ud800\x1b[2J", "boottime": 1}\n')
    return {}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for name in ("journal.jsonl", "journal.old.jsonl"):
        if os.path.lexists(f"/disk/{name}"):
            os.unlink(f"/disk/{name}")  # of an earlier run of this VM
    mode = {mode.__name__.replace("_", "-"): mode for mode in MODES}[sys.argv[1]]
    print(json.dumps(mode()), flush=True)
    while True:
        time.sleep(3600)


MODES = (fill, log, flows, reach, journal_fifo, journal_sparse, journal_deep)

if __name__ == "__main__":
    main()
