"""PID 1 of a node: starts the node's processes and restarts them, reaps what is orphaned, and is the watchdog.

It is not a service manager for anything else, it does not talk to the engine, and it decides nothing about the
cluster. It uses the standard library only, because the node stands and falls with it: when it ends, the kernel
ends every process of the node, guests included.

This file is the shell: pipes, signals, starting. What it is told to do comes from `node_watchdog` and
`node_programs`, which do no I/O. Times are nanoseconds of CLOCK_BOOTTIME.

    init.py                 the programs of a node (or, with BLACKSTART_ROLE=witness, a voter alone)
    init.py PROGRAMS.json   others, for trials: {"boot_grace_s": 60, "programs": [{"name", "argv", "uid", "groups",
                            "capabilities", "pets", "serves_api", "talks_to_engine", "output_is_text"}]}

Exit status: 0 after SIGTERM, 2 for a file that cannot be used, 87 when the watchdog's second deadline passed.
"""

import contextlib
import dataclasses
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence

sys.path.insert(0, os.path.dirname(__file__))  # isolated mode leaves out the directory of the script itself

from node_firewall import API_PORT, ROUTES, close_to_guests, gateway_of, parts_of
from node_log import Lines, Log, LogWriter
from node_processes import count_vms, kill_group, kill_guests
from node_programs import (
    Keeper,
    Program,
    Start,
    command_line,
    programs_of_file,
    restarts_of,
    standard_programs,
)
from node_watchdog import (
    LOOK_INTERVAL,
    CountVms,
    Exit,
    Guests,
    KillGuests,
    Vms,
    Watchdog,
    Woke,
    pets_of,
)
from voter_disk import VoterDisk, free_bytes

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
NEVER = 2**63 - 1

BOOT_GRACE_S = 60.0
"""Until the first pet: a node whose service cannot even start tries again from the start."""
PET_FD = 20
"""Where the service finds the write end: higher than any descriptor that init itself opens."""
RESTART_FD = 21
"""Where it finds that of the pipe of restarts."""
API_FD = 22
"""Where it finds the node API's listening socket."""
DESCRIPTORS = {"pet_fd": PET_FD, "restart_fd": RESTART_FD, "api_fd": API_FD}
"""By the names that they have in a program's arguments."""
API_BACKLOG = 32
ENGINE_SOCKET = "/var/run/docker.sock"
VOTER = "voter"
VOTER_DISK = "/data"
VOTER_UID = 901
MAX_SLEEP = LOOK_INTERVAL
"""A sleep does not count the time for which the VM was suspended, so no deadline is left to one long sleep."""
REAP_BATCH = 256
FLUSH_LIMIT_S = 0.05
STATUS_STOPPED = 0
STATUS_UNUSABLE_FILE = 2


class Init:
    """The shell around watchdog and keeper. One thread, which never blocks but in its poll."""

    def __init__(self, *, programs: tuple[Program, ...], boot_grace_s: float, environment: Mapping[str, str]) -> None:
        """Takes over SIGCHLD and SIGTERM of the process."""
        self._environment = dict(environment)
        self._log_writer = LogWriter(node=environment.get("BLACKSTART_NODE", ""))
        self._keeper = Keeper(programs)
        self._voter_disk = VoterDisk(VOTER_DISK, free_bytes)
        self._has_guests = any(program.pets for program in programs)  # a witness has no service, and no guests to watch
        grace = int(boot_grace_s * SECOND)
        self._watchdog = Watchdog(node_ends_at=boottime() + grace if self._has_guests else NEVER)
        self._stop_asked = False
        self._more_to_reap = False
        self._wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        self._pet_read, self._pet_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._restart_read, self._restart_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._api_listener = listen_for_api() if any(program.serves_api for program in programs) else None
        # Errors, and all output of a program that does not write the cluster log's records, become records here.
        self._text_write: dict[str, int] = {}
        self._text_read: dict[int, tuple[str, Lines]] = {}
        for program in programs:
            read, self._text_write[program.name] = os.pipe2(os.O_CLOEXEC)
            self._text_read[read] = (program.name, Lines())
        self._poll = select.poll()
        for descriptor in (self._wake_read, self._pet_read, self._restart_read, *self._text_read):
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> None:
        """Never returns: the process ends in an `Exit`."""
        self._log(Log(event="node-boots", message="the node boots", fields={"uid": os.getuid()}))
        give_voter_its_disk()
        self._start_due_programs()
        if self._has_guests:
            for log in close_to_guests(self._environment, parts_of(self._environment, gateway=default_gateway())):
                self._log(log)
        while True:
            self._perform(self._watchdog.handle(boottime(), Woke()))
            if self._stop_asked:
                self._log(Log(event="node-stops", message="SIGTERM: the node stops", fields={}))
                self._perform([Exit(status=STATUS_STOPPED)])
            self._read_pets()
            self._read_restarts()
            self._reap()
            self._start_due_programs()
            self._wait()

    def _perform(self, actions: Sequence[Log | KillGuests | CountVms | Exit]) -> None:
        for action in actions:
            match action:
                case Log():
                    self._log(action)
                case KillGuests():
                    self._perform(self._watchdog.handle(boottime(), Guests(alive=kill_guests())))
                case CountVms():
                    seen = Vms(alive=count_vms())
                    self._read_pets()  # the pet that permits a VM is written before the VM is started
                    self._perform(self._watchdog.handle(boottime(), seen))
                case Exit(status=status):
                    self._log_writer.flush(limit_s=FLUSH_LIMIT_S)
                    os._exit(status)

    def _read_pets(self) -> None:
        try:
            data = os.read(self._pet_read, 65536)
        except BlockingIOError:
            return
        pets = pets_of(data)
        if pets is None:
            fields = {"bytes": len(data)}
            self._log(Log(event="pet-malformed", message="not whole pets of 16 bytes", fields=fields))
            return
        # The time is taken after the read and looked at before each pet: a freeze in between changes nothing.
        for pet in pets:
            self._perform(self._watchdog.handle(boottime(), pet))

    def _read_restarts(self) -> None:
        """Kill the programs that the service has given up. Their numbers are theirs until they are reaped."""
        try:
            data = os.read(self._restart_read, 65536)
        except BlockingIOError:
            return
        restarts = restarts_of(data)
        if restarts is None:
            fields: dict[str, object] = {"bytes": len(data)}
            self._log(Log(event="restart-malformed", message="not whole lines PROGRAM NANOSECONDS", fields=fields))
            return
        for restart in restarts:
            pid = self._keeper.hung(restart)
            fields = {"program": restart.name, "pid": pid, "silent_since": restart.silent_since}
            if pid is None:
                message = f"{restart.name} is not killed: no process of it is as old as its silence"
                self._log(Log(event="restart-refused", message=message, fields=fields))
            else:
                os.kill(pid, signal.SIGKILL)
                self._log(Log(event="program-killed", message=f"{restart.name} hangs: killed", fields=fields))

    def _reap(self) -> None:
        """Collect the dead, ours and the orphans of guests; in batches, or a fork bomb would hold the watchdog."""
        for _ in range(REAP_BATCH):
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                dead = None
            if dead is None:
                self._more_to_reap = False
                return
            pid = dead.si_pid
            if not self._keeper.runs(pid):
                os.waitpid(pid, 0)
                continue
            # What a program leaves behind must not work beside its successor. Its number is its own until reaped.
            kill_group(pid)
            _, status = os.waitpid(pid, 0)
            ended = self._keeper.died(boottime(), pid, os.waitstatus_to_exitcode(status))
            self._log(ended)
            if ended.fields["program"] == VOTER:
                self._empty_text_pipes()  # its last words are still in there
                self._log(self._voter_disk.ended())
        self._more_to_reap = True

    def _start_due_programs(self) -> None:
        for order in self._keeper.due(boottime()):
            self._start(order)

    def _start(self, order: Start) -> None:
        program = order.program
        text = self._text_write[program.name]
        if program.name == VOTER:
            argv, told = self._voter_disk.before_start(program.argv)
            program = dataclasses.replace(program, argv=argv)
            if told is not None:
                self._log(told)
        command = command_line(program, descriptors=DESCRIPTORS, engine_group=engine_group())
        descriptors = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, text, 2)]
        if program.output_is_text:
            descriptors.append((os.POSIX_SPAWN_DUP2, text, 1))
        if program.pets:
            descriptors.append((os.POSIX_SPAWN_DUP2, self._pet_write, PET_FD))
            descriptors.append((os.POSIX_SPAWN_DUP2, self._restart_write, RESTART_FD))
        if program.serves_api and self._api_listener is not None:
            descriptors.append((os.POSIX_SPAWN_DUP2, self._api_listener.fileno(), API_FD))
        try:
            pid = os.posix_spawnp(
                command[0],
                command,
                self._environment,
                file_actions=descriptors,
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores these two, and a child would inherit that
            )
        except OSError as error:
            reason = f"cannot start {command[0]}: {error.strerror}"
            self._log(self._keeper.not_started(boottime(), program.name, reason))
        else:
            self._log(self._keeper.started(boottime(), program.name, pid))

    def _wait(self) -> None:
        """Sleep until something happens or is due; empty every pipe but those of the service."""
        left = min(self._watchdog.next_wake(), self._keeper.next_wake()) - boottime()
        left = 0 if self._more_to_reap else max(0, min(left, MAX_SLEEP))
        for descriptor, _ in self._poll.poll(-(-left // MILLISECOND)):
            if descriptor == self._wake_read:
                os.read(descriptor, 4096)
            elif descriptor in self._text_read:
                self._read_text(descriptor)

    def _empty_text_pipes(self) -> None:
        for descriptor, _ in self._poll.poll(0):
            if descriptor in self._text_read:
                self._read_text(descriptor)

    def _read_text(self, descriptor: int) -> None:
        component, lines = self._text_read[descriptor]
        for line in lines.feed(os.read(descriptor, 65536)):
            self._log(Log(event="output", message=line, fields={}), component=component)
            if component == VOTER:
                self._voter_disk.heard(line)

    def _ask_to_stop(self, *_: object) -> None:
        self._stop_asked = True

    def _log(self, log: Log, *, component: str = "init") -> None:
        self._log_writer.put(component, log)


def boottime() -> int:
    """Now, in nanoseconds of the clock that goes on while the VM is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def engine_group() -> int | None:
    """The group that owns the engine's socket, or None where there is no socket."""
    try:
        return os.stat(ENGINE_SOCKET).st_gid
    except OSError:
        return None


def give_voter_its_disk() -> None:
    """Hand the voter its directory; a volume that was not made from the image belongs to root."""
    with contextlib.suppress(OSError):  # then the voter says itself that it cannot write there
        if os.stat(VOTER_DISK).st_uid != VOTER_UID:
            os.chown(VOTER_DISK, VOTER_UID, VOTER_UID)


def listen_for_api() -> socket.socket:
    """The node API's listening socket, opened before there can be guests and never closed while the node lives: a guest
    that took the port, which is no low one, would be shown the rig's token.
    """
    listener = socket.create_server(("0.0.0.0", API_PORT), backlog=API_BACKLOG)
    listener.setblocking(False)
    return listener


def default_gateway() -> str | None:
    """The engine's host as this node reaches it."""
    try:
        with open(ROUTES, encoding="ascii") as file:
            return gateway_of(file.read())
    except OSError:
        return None


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run as PID 1. `arguments` are those of the command line, without the program's name."""
    programs, boot_grace_s = standard_programs(environment), None
    if arguments:
        try:
            with open(arguments[0], encoding="utf-8") as file:
                programs, boot_grace_s = programs_of_file(file.read())
        except (OSError, ValueError, KeyError, TypeError) as error:
            sys.stderr.write(f"init: {arguments[0]} does not describe programs: {error!r}\n")
            sys.exit(STATUS_UNUSABLE_FILE)
    Init(
        programs=programs,
        boot_grace_s=BOOT_GRACE_S if boot_grace_s is None else boot_grace_s,
        environment=environment,
    ).run()


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
