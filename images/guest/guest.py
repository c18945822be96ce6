"""A VM of the rig: answers who it is, and keeps a journal on its disk.

It is not part of the cluster and knows nothing of it. What it leaves behind is evidence that nobody else can
write: two boots whose lines interleave in one journal prove that the VM ran twice, whatever the cluster
believed.

    journal   BLACKSTART_DISK/journal.jsonl, every 100 ms one line {vm, boot, node, at, boottime, count}, the
              last one of an orderly stop with "stop": true; `at` is Unix time, `boottime` CLOCK_BOOTTIME, both
              in nanoseconds; `count` numbers the lines of a boot from 1. A file of 24 MiB, some five hours, becomes
              journal.old.jsonl and replaces the previous one: the disk has a size
    HTTP      any GET on BLACKSTART_ADDRESS:BLACKSTART_PORT: {vm, boot, node, count, uptime_s, disk}; without
              an address there is no HTTP; `disk` is "ok", "full", or the name of the error (EROFS, ENOENT)

Standard library only, one thread, no import that can be spared: a rig runs many of these. Needs no capability and
writes nowhere but to its disk. Exit status: 0 after SIGTERM, 2 for a wrong environment.
"""

import contextlib
import errno
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
BEAT_INTERVAL = 100 * MILLISECOND
REQUEST_LIMIT = 8192
REQUEST_TIME_LIMIT = 2 * SECOND
CLIENTS_LIMIT = 32
COMPLAINT_INTERVAL = 10 * SECOND
FULL = (errno.ENOSPC, errno.EDQUOT)
MAX_JOURNAL_BYTES = 24 << 20
LOOK_INTERVAL_LINES = 64
"""Between two looks at the journal's size and at the file of its name."""


class Journal:
    """One file, appended to, one write a line.

    Invariant: a line begins at the start of a line of the file, also after a write that a full disk cut short. Every
    instance that may run at one time writes to the file of that name, so that their lines interleave there: each looks
    whether another has renamed it.
    """

    def __init__(self, path: str, *, write: Callable[[int, bytes], int] = os.write) -> None:
        """`write` is os.write, or its twin with a disk that fills."""
        self.disk = "absent"
        self.count = 0
        self._path = path
        self._write = write
        self._file: int | None = None
        self._torn = False

    def append(self, record: Mapping[str, object]) -> bool:
        """Add `record` with the next count. False when the disk did not take all of it; `disk` says why."""
        line = json.dumps({**record, "count": self.count + 1}).encode() + b"\n"
        try:
            if self.count % LOOK_INTERVAL_LINES <= 1:  # the second line too: no boot is too short to look
                self._follow_name()
            file = self._open()
            whole = b"\n" + line if self._torn else line
            written = self._write(file, whole)
        except OSError as error:
            self.disk = "full" if error.errno in FULL else errno.errorcode.get(error.errno or 0, "failed")
            return False
        self.disk = "ok" if written == len(whole) else "full"
        # Of a torn line's newline and the new line, the newline alone may have found room.
        begun = written > len(whole) - len(line)
        self._torn = written < len(whole) and (begun or (self._torn and written == 0))
        if written < len(whole) - 1:
            return False
        self.count += 1  # also when nothing but its own newline is missing: the next write brings that
        return True

    def _follow_name(self) -> None:
        """Rename a file that has reached its size, and let go of one that is not the one of that name any more."""
        if self._file is None:
            return
        mine = os.fstat(self._file)
        named = self._named()
        if named is not None and os.path.samestat(mine, named):
            if mine.st_size < MAX_JOURNAL_BYTES:
                return
            os.replace(self._path, old_path(self._path))
        os.close(self._file)
        self._file = None

    def _named(self) -> os.stat_result | None:
        try:
            return os.stat(self._path)
        except FileNotFoundError:
            return None

    def _open(self) -> int:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            size = os.fstat(self._file).st_size
            self._torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        return self._file


def old_path(path: str) -> str:
    """Where the previous journal is kept."""
    return f"{path.removesuffix('.jsonl')}.old.jsonl"


def next_beat(due: int, now: int) -> int:
    """When to write after the beat that was due at `due`: on the grid, but after a freeze no line is made up for."""
    following = due + BEAT_INTERVAL
    return following if following > now else now + BEAT_INTERVAL


def answer(request: bytes, body: bytes) -> bytes:
    """The HTTP response to a request's head."""
    method = request.split(b" ", 1)[0]
    status = b"200 OK" if method in (b"GET", b"HEAD") else b"405 Method Not Allowed"
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, len(body)) + (b"" if method == b"HEAD" else body)


class Client:
    """One connection, until its request is whole or its time is up."""

    def __init__(self, connection: socket.socket, ends_at: int) -> None:
        self.connection = connection
        self.ends_at = ends_at
        self.request = b""


class Front:
    """The HTTP side: binds when the address is there, answers one request a connection."""

    def __init__(self, *, address: str, port: int, poll: "select.poll") -> None:
        self._address = address
        self._port = port
        self._poll = poll
        self._listener: socket.socket | None = None
        self._clients: dict[int, Client] = {}
        self._complain_at = 0

    def tend(self, now: int) -> None:
        """Try once to bind if that is still to be done; drop clients whose time is up. Never waits."""
        for descriptor, client in list(self._clients.items()):
            if now >= client.ends_at:
                self._drop(descriptor)
        if self._listener is not None or not self._address:
            return
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._address, self._port))
            listener.listen(CLIENTS_LIMIT)
        except OSError as error:
            listener.close()
            if now >= self._complain_at:
                self._complain_at = now + COMPLAINT_INTERVAL
                say(f"cannot listen on {self._address}:{self._port} yet: {error.strerror}")
            return
        self._listener = listener
        self._poll.register(listener, select.POLLIN)
        say(f"listening on {self._address}:{self._port}")

    def ready(self, descriptor: int, now: int, body: Callable[[], bytes]) -> None:
        """Handle a descriptor of the poll; those of others are left alone."""
        if self._listener is not None and descriptor == self._listener.fileno():
            self._accept(now)
        elif descriptor in self._clients:
            self._read(descriptor, body)

    def _accept(self, now: int) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # the peer has gone already
        if len(self._clients) >= CLIENTS_LIMIT:
            self._drop(next(iter(self._clients)))  # the oldest: held connections must not silence the VM
        connection.setblocking(False)
        self._clients[connection.fileno()] = Client(connection, now + REQUEST_TIME_LIMIT)
        self._poll.register(connection, select.POLLIN)

    def _read(self, descriptor: int, body: Callable[[], bytes]) -> None:
        client = self._clients[descriptor]
        try:
            data = client.connection.recv(REQUEST_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.request += data
        if b"\r\n\r\n" in client.request:
            with contextlib.suppress(OSError):  # the peer has gone: it gets no answer
                client.connection.send(answer(client.request, body()))
            self._drop(descriptor)
        elif not data or len(client.request) > REQUEST_LIMIT:
            self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._clients.pop(descriptor).connection.close()


class Vm:
    """The VM's one loop: beat, serve, stop."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Takes over SIGTERM of the process. Raises KeyError or ValueError for a wrong environment."""
        self._identity = {
            "vm": environment["BLACKSTART_VM"],
            "boot": os.urandom(8).hex(),
            "node": environment.get("BLACKSTART_NODE", ""),
        }
        self._started = boottime()
        self._journal = Journal(os.path.join(environment.get("BLACKSTART_DISK", "/disk"), "journal.jsonl"))
        self._poll = select.poll()
        port = int(environment.get("BLACKSTART_PORT", "8080"))
        self._front = Front(address=environment.get("BLACKSTART_ADDRESS", ""), port=port, poll=self._poll)
        self._stop_asked = False
        self._wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._wake, select.POLLIN)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._ask_to_stop)

    def run(self) -> None:
        """Returns after SIGTERM."""
        say(f"VM {self._identity['vm']} started, boot {self._identity['boot']}")
        due = boottime()
        while not self._stop_asked:
            now = boottime()
            if now >= due:
                self._journal.append(self._record())
                self._front.tend(now)
                due = next_beat(due, boottime())
            left = max(0, due - boottime())
            for descriptor, _ in self._poll.poll(-(-left // MILLISECOND)):
                if descriptor != self._wake:
                    self._front.ready(descriptor, boottime(), self._body)
        self._journal.append({**self._record(), "stop": True})
        say("stopped")

    def _record(self) -> dict[str, object]:
        return {**self._identity, "at": time.time_ns(), "boottime": boottime()}

    def _body(self) -> bytes:
        uptime_s = round((boottime() - self._started) / SECOND, 3)
        about = {**self._identity, "count": self._journal.count, "uptime_s": uptime_s, "disk": self._journal.disk}
        return json.dumps(about).encode() + b"\n"

    def _ask_to_stop(self, *_: object) -> None:
        self._stop_asked = True


def boottime() -> int:
    """Now, in nanoseconds of the clock that goes on while the VM is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def say(text: str) -> None:
    """One line for the container's log."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run one VM. Returns the exit status."""
    try:
        vm = Vm(os.environ)
    except (KeyError, ValueError) as error:
        say(f"guest: the environment needs BLACKSTART_VM and a number in BLACKSTART_PORT: {error!r}")
        return 2
    vm.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
