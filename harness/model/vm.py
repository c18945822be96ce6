"""A VM as VMMS and the drivers speak of it: what to create, what was seen, how a run ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.model.disk import DISK_BYTES
from harness.model.session import Session

__all__ = ["Ending", "Order", "Proof", "VmNotice", "VmSpec", "VmState", "VmView"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """What a VM's container is made from. `user` is the forced uid; empty `command` means the image's own;
    `volumes` are further disks of the VM, by name, and where it sees them.

    Limits: `memory_bytes`, with no swap beyond; `disk_bytes` for each disk; `processes`, threads counted;
    `processors_milli`, thousandths of one. With `writable_root` it can change its image's files, without a limit.
    """

    name: str
    group: str
    image: str
    address: str | None
    user: int
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 128 << 20
    disk_bytes: int = DISK_BYTES
    writable_root: bool = False
    processes: int = 64
    processors_milli: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The right to start something: checked by VMMS just before the engine's call, and dropped when it no longer holds.

    `not_after_us` is on this node's boot-time clock, in microseconds: the end of the lease under which the order was
    given.
    """

    session: Session
    epoch: int
    not_after_us: int


class VmState(StrEnum):
    """What the engine says of a VM on this node."""

    ABSENT = "absent"
    STOPPED = "stopped"
    RUNNING = "running"
    PAUSED = "paused"


class Ending(StrEnum):
    """How a run of a VM ended, as far as the engine's events show.

    CRASHED: its main process ended by itself with an error or by a signal that no engine call sent. KILLED:
    somebody's `kill` went through the engine. STOPPED: an administrator's `stop`, the only clean one besides
    SHUT_DOWN, exit code 0 without any signal. ASKED: this node's own graceful stop or terminate. UNKNOWN: no
    evidence (an event gap); counts as a failure.
    """

    CRASHED = "crashed"
    KILLED = "killed"
    STOPPED = "stopped"
    SHUT_DOWN = "shut-down"
    ASKED = "asked"
    UNKNOWN = "unknown"


class Proof(StrEnum):
    """What a conclusive end rests on: no start is unanswered and the VM was seen stopped, or its container is
    gone.
    """

    STOPPED = "stopped"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmView:
    """One VM of this node's session as VMMS sees it. `run` is the engine's StartedAt of the run in question,
    empty if none.

    A VM that is STOPPED, has a `run` and no `ending` ended a moment ago: the evidence of how is still awaited,
    and a notice will tell.
    """

    name: str
    group: str
    state: VmState
    run: str = ""
    exit_code: int | None = None
    ending: Ending | None = None
    evidence: str = ""

    @property
    def awaits_evidence(self) -> bool:
        """Whether the run has ended and nobody can say yet how."""
        return self.state is VmState.STOPPED and bool(self.run) and self.ending is None


@dataclass(frozen=True, slots=True, kw_only=True)
class VmNotice:
    """VMMS tells its subscribers that a VM changed. `live` is False when it was learned by listing and not from
    the stream.
    """

    view: VmView
    live: bool
    at_us: int
