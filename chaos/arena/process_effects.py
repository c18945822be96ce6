"""What faults do to VMs and to a node's processes, and what a look inside a node shows of them. Records only.

A program is one of the node's own four: it is known by its user and by being started by PID 1, so that a command which
somebody runs in the node under the same user is never hit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "DiskSeen",
    "FillVoterDisk",
    "FreeVoterDisk",
    "Freezing",
    "HangVm",
    "KillVm",
    "NodeInside",
    "NodeProgram",
    "ProcessEffect",
    "ProgramSeen",
    "ProgramSignal",
    "SignalProgram",
    "StartVm",
    "StopVm",
    "ThawVm",
    "WipeVoter",
]


class NodeProgram(StrEnum):
    """A program of a node, by its name in PID 1."""

    SERVICE = "service"
    VOTER = "voter"
    VMMS = "vmms"
    RESOURCE_HOST = "resource-host"

    @property
    def user(self) -> int:
        """The user under which it runs (docs/design/0001-seams.md)."""
        return _USERS[self]

    @property
    def answers(self) -> bool:
        """Whether it can be asked over a socket of its own. The resource host listens nowhere."""
        return self is not NodeProgram.RESOURCE_HOST


_USERS = {
    NodeProgram.SERVICE: 900,
    NodeProgram.VOTER: 901,
    NodeProgram.VMMS: 902,
    NodeProgram.RESOURCE_HOST: 903,
}


class ProgramSignal(StrEnum):
    """What is sent to a program."""

    KILL = "kill"
    STOP = "stop"
    CONTINUE = "continue"


class Freezing(StrEnum):
    """How a VM is made to hang.

    A paused VM also keeps its node from dying (cgroup v1), and the engine knows of it; a stopped one does neither.
    """

    PAUSE = "pause"
    SIGSTOP = "sigstop"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSeen:
    """The main process of a program. `state` is the letter of /proc, `started` in ticks since the VM's boot."""

    pid: int
    started: int
    state: str

    @property
    def hangs(self) -> bool:
        """Whether it was stopped by a signal."""
        return self.state in "Tt"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSeen:
    """The voter's disk, in bytes. `limited`: a volume of a size of its own. `oldest_ns` is the oldest file's last
    change, 0 without any file.
    """

    size: int
    free: int
    limited: bool
    files: int
    oldest_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInside:
    """A node's processes as they are now.

    `answers` has the programs that were asked; `vms` the states of each container's processes, by its id.
    """

    programs: Mapping[NodeProgram, ProgramSeen] = field(default_factory=dict)
    answers: Mapping[NodeProgram, bool] = field(default_factory=dict)
    vms: Mapping[str, str] = field(default_factory=dict)
    disk: DiskSeen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KillVm:
    """SIGKILL to a VM through the engine."""

    vm: str
    node: str
    container: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopVm:
    """A clean stop of a VM through the engine, as an administrator does it."""

    vm: str
    node: str
    container: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartVm:
    """A start of a VM through the engine, as an administrator does it."""

    vm: str
    node: str
    container: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HangVm:
    """All processes of a VM stand still."""

    vm: str
    node: str
    container: str
    how: Freezing = Freezing.PAUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class ThawVm:
    """The processes of a VM go on, however they were made to stand still."""

    vm: str
    node: str
    container: str
    how: Freezing = Freezing.PAUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalProgram:
    """A signal to a program of a node with all its children, past the engine and past PID 1. Only to that process."""

    node: str
    program: NodeProgram
    signal: ProgramSignal
    pid: int
    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WipeVoter:
    """A node's voter ends and its files are gone, in one go: PID 1 starts an empty one."""

    node: str
    pid: int
    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FillVoterDisk:
    """A file takes all that is free on the disk of a node's voter, which is that process before."""

    node: str
    pid: int
    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeVoterDisk:
    """That file goes."""

    node: str


ProcessEffect = (
    KillVm
    | StopVm
    | StartVm
    | HangVm
    | ThawVm
    | SignalProgram
    | WipeVoter
    | FillVoterDisk
    | FreeVoterDisk
)
