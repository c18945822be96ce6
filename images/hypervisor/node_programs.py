"""The programs of a node: which there are, under which identity each runs, and when one that died is due again.

It starts nothing itself. The identities are the wall between the node and its guests, which share its namespaces.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from node_log import Log

__all__ = [
    "Keeper",
    "Program",
    "Restart",
    "Start",
    "command_line",
    "programs_of_file",
    "restarts_of",
    "standard_programs",
]

SECOND = 1_000_000_000
NEVER = 2**63 - 1
NODE_GROUP = 910
LIVED_WELL = 1 * SECOND
BACKOFF_FIRST = SECOND // 5
BACKOFF_LAST = 5 * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One process of the node, with its identity.

    `{pet_fd}` and `{restart_fd}` in an argument stand for the descriptors of the two pipes to init, which a program
    that `pets` has; `{api_fd}` for that of the node API's listening socket.
    """

    name: str
    argv: tuple[str, ...]
    uid: int
    groups: tuple[int, ...] = (NODE_GROUP,)
    capabilities: tuple[str, ...] = ()
    pets: bool = False
    serves_api: bool = False
    talks_to_engine: bool = False
    output_is_text: bool = False
    """True when standard output is not the cluster log's JSON: init turns each line into a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start this program; answered by `Keeper.started` or `Keeper.not_started`."""

    program: Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """The service says: this program has been silent since then."""

    name: str
    silent_since: int


class Keeper:
    """The node's programs: each is running, or due at a time.

    A program that lived a second is due at once; one that dies young waits 0.2 s, then twice as long each time,
    up to 5 s.
    """

    def __init__(self, programs: tuple[Program, ...]) -> None:
        self._programs = {program.name: program for program in programs}
        self._due = {program.name: 0 for program in programs}
        self._backoff = {program.name: BACKOFF_FIRST for program in programs}
        self._running: dict[int, tuple[str, int]] = {}

    def due(self, now: int) -> list[Start]:
        """Orders to start what does not run and has waited long enough."""
        return [Start(program=self._programs[name]) for name in self._idle() if now >= self._due[name]]

    def started(self, now: int, name: str, pid: int) -> Log:
        """The program runs, under this process id."""
        self._running[pid] = (name, now)
        return Log(event="program-started", message=f"{name} started", fields={"program": name, "pid": pid})

    def runs(self, pid: int) -> bool:
        """True when `pid` is one of the programs, not something of theirs or of a guest."""
        return pid in self._running

    def hung(self, restart: Restart) -> int | None:
        """The process to kill so that the program starts again; None for one that does not run, or that was started
        after the silence began: it is a successor, and silent only because it is new.
        """
        for pid, (name, started_at) in self._running.items():
            if name == restart.name and started_at <= restart.silent_since:
                return pid
        return None

    def died(self, now: int, pid: int, status: int) -> Log:
        """The program with this process id was reaped; `status` is an exit status, a signal counts negative."""
        name, started_at = self._running.pop(pid)
        return self._ended(now, name, lived=now - started_at, reason=f"status {status}")

    def not_started(self, now: int, name: str, reason: str) -> Log:
        """The kernel refused to start the program."""
        return self._ended(now, name, lived=0, reason=reason)

    def next_wake(self) -> int:
        """When the next program is due; `NEVER` when all run."""
        return min((self._due[name] for name in self._idle()), default=NEVER)

    def _idle(self) -> list[str]:
        running = {name for name, _ in self._running.values()}
        return [name for name in self._programs if name not in running]

    def _ended(self, now: int, name: str, *, lived: int, reason: str) -> Log:
        if lived >= LIVED_WELL:
            pause, self._backoff[name] = 0, BACKOFF_FIRST
        else:
            pause = self._backoff[name]
            self._backoff[name] = min(2 * pause, BACKOFF_LAST)
        self._due[name] = now + pause
        fields = {"program": name, "lived_s": round(lived / SECOND, 3), "again_in_s": pause / SECOND, "reason": reason}
        return Log(event="program-ended", message=f"{name} ended: {reason}", fields=fields)


def standard_programs(environment: Mapping[str, str]) -> tuple[Program, ...]:
    """The programs of a node, or of a witness (`BLACKSTART_ROLE=witness`): only the voter."""
    node = environment.get("BLACKSTART_NODE", "")
    voters = {entry.partition("=")[0].strip() for entry in environment.get("BLACKSTART_VOTERS", "").split(",")}
    programs = []
    appendfsync = environment.get("BLACKSTART_APPENDFSYNC", "always")
    if node and node in voters:
        programs.append(
            Program(
                name="voter",
                # Each voter knows one user, of its own name: an empty one knows by nothing else who it is.
                argv=(
                    *("redis-server", "/etc/blackstart/voter.conf", "--appendfsync", appendfsync),
                    *("--aclfile", f"/run/secrets/voter-{node}.acl"),
                ),
                uid=901,
                groups=(),
                capabilities=("net_bind_service",),
                output_is_text=True,
            )
        )
    if environment.get("BLACKSTART_ROLE", "node") == "witness":
        return tuple(programs)
    module = ("python3", "-I", "-m")
    return (
        *programs,
        Program(name="vmms", argv=(*module, "harness.live.vmms"), uid=902, talks_to_engine=True),
        Program(
            name="resource-host",
            argv=(*module, "harness.live.resource_host"),
            uid=903,
            capabilities=("net_admin", "net_raw"),
        ),
        Program(
            name="service",
            argv=(
                *(*module, "harness.live.service", "--pet-fd", "{pet_fd}"),
                *("--restart-fd", "{restart_fd}", "--api-fd", "{api_fd}"),
            ),
            uid=900,
            pets=True,
            serves_api=True,
        ),
    )


def programs_of_file(text: str) -> tuple[tuple[Program, ...], float | None]:
    """The programs of a PROGRAMS.json, and its boot grace in seconds if it gives one.

    Raises ValueError, KeyError or TypeError for a text that is something else.
    """
    document = json.loads(text)
    programs = []
    for entry in document["programs"]:
        for key in ("argv", "groups", "capabilities"):
            if key in entry:
                entry[key] = tuple(entry[key])
        programs.append(Program(**entry))
    return tuple(programs), document.get("boot_grace_s")


def restarts_of(data: bytes) -> list[Restart] | None:
    """What the pipe of restarts held, lines `PROGRAM NANOSECONDS`, in order; None when it is not whole lines of that
    form.
    """
    restarts = []
    for line in data.decode("ascii", errors="replace").splitlines(keepends=True):
        name, _, since = line.removesuffix("\n").partition(" ")
        if not line.endswith("\n") or not name or not since.isdigit():
            return None
        restarts.append(Restart(name=name, silent_since=int(since)))
    return restarts


def command_line(program: Program, *, descriptors: Mapping[str, int], engine_group: int | None) -> list[str]:
    """`setpriv` and its arguments: exactly the identity and capabilities of the program, nothing else of init's."""
    capabilities = ",".join(["-all", *(f"+{name}" for name in program.capabilities)])
    groups = list(program.groups)
    if program.talks_to_engine and engine_group is not None:
        groups.append(engine_group)
    return [
        "setpriv",
        *("--reuid", str(program.uid), "--regid", str(program.uid)),
        *(("--groups", ",".join(map(str, groups))) if groups else ("--clear-groups",)),
        *("--inh-caps", capabilities, "--ambient-caps", capabilities, "--bounding-set", capabilities),
        "--no-new-privs",
        *(_filled_in(argument, descriptors) for argument in program.argv),
    ]


def _filled_in(argument: str, descriptors: Mapping[str, int]) -> str:
    for name, number in descriptors.items():
        argument = argument.replace(f"{{{name}}}", str(number))
    return argument
