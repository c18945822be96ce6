"""What goes into the managers and what comes out: events are facts, actions are wishes.

A list of actions may be cut anywhere by a crash, so a manager puts changes of the database before effects. Effects
carry session, epoch and the end of the lease, and whoever carries them out nearest to the engine checks them again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from harness.database.proposer import Result
from harness.database.protocol import NO_BALLOT, Ballot, Call, Reply
from harness.model.changes import Change, Record
from harness.model.host_messages import HostReport, HostRequest
from harness.model.session import Session
from harness.model.voter_set import VoterSet

__all__ = [
    "ROUTINE",
    "Action",
    "AdoptVoters",
    "AnswerCode",
    "CallHost",
    "CallVoter",
    "ChangeRegister",
    "ChangeSettled",
    "Event",
    "FenceEnded",
    "FenceNode",
    "HostConnected",
    "HostLost",
    "HostReported",
    "Log",
    "Manager",
    "PetWatchdog",
    "PingProgram",
    "PowerOnEnded",
    "PowerOnNode",
    "ProgramAnswered",
    "ReadRegister",
    "RegisterNoticed",
    "RegisterSeen",
    "RequestAnswered",
    "RequestReceived",
    "ResetNode",
    "RestartProgram",
    "RewriteRegister",
    "Tick",
    "VoterAnswered",
    "VoterFailed",
    "VotersKnown",
    "WatchedProgram",
]


class WatchedProgram(StrEnum):
    """The node's programs that the service watches, by their names in PID 1."""

    RESOURCE_HOST = "resource-host"
    VMMS = "vmms"


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; nothing else."""


class VoterAnswered(NamedTuple):
    """The answer to a CallVoter. `connection` counts the connections made to that voter for such calls: a new one means
    that it may have restarted.
    """

    number: int
    voter: str
    reply: Reply
    connection: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VoterFailed:
    """A CallVoter got no answer; what it asked for may still happen. `reason` is what was seen, for people."""

    number: int
    voter: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VotersKnown:
    """A majority of a voter set has told its members; later, that a newer set was adopted."""

    voter_set: VoterSet


class RegisterNoticed(NamedTuple):
    """A voter has accepted something for that register under that ballot. A hint: it decides nothing. `owner` is the
    node that owns the register's subject by what was accepted.
    """

    key: str
    ballot: Ballot
    owner: str = ""


class RegisterSeen(NamedTuple):
    """What a register held at some moment after it was asked for: committed, and never older than what was seen
    before.
    """

    key: str
    record: Record | None
    version: int
    ballot: Ballot = NO_BALLOT


class ChangeSettled(NamedTuple):
    """The one end of a ChangeRegister. On DONE and REFUSED the fresh record came before it."""

    id: int
    key: str
    result: Result
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HostConnected:
    """The resource host is there. What it has open is learned by opening it again, which adopts what runs."""


@dataclass(frozen=True, slots=True)
class HostLost:
    """The resource host is gone or unreachable; nobody knows what its resources do."""


class HostReported(NamedTuple):
    """The resource host reports one resource."""

    report: HostReport


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceEnded:
    """A Fence ended: with `error` None the node is off and none of the session's containers exists."""

    session: Session
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerOnEnded:
    """A PowerOnNode ended. `held` means that somebody keeps the node's power off on purpose."""

    node: str
    held: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReceived:
    """A person asks for something. `id` is the shell's own number; exactly one Answer with it follows, in bounded
    time.
    """

    id: int
    call: str
    arguments: Mapping[str, str | bool]


@dataclass(frozen=True, slots=True)
class ProgramAnswered:
    """A program of this node has answered an PingProgram: its main loop turns."""

    program: WatchedProgram


Event = (
    Tick
    | VoterAnswered
    | VoterFailed
    | VotersKnown
    | RegisterNoticed
    | RegisterSeen
    | ChangeSettled
    | HostConnected
    | HostLost
    | HostReported
    | FenceEnded
    | PowerOnEnded
    | RequestReceived
    | ProgramAnswered
)

ROUTINE = (VoterAnswered, Tick, RegisterNoticed, VoterFailed, HostReported)
"""What comes most, and concerns the managers that decide by all of their facts little or, of these, one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRegister:
    """Change a register; the Database Manager answers with one Settled."""

    id: int
    key: str
    change: Change


class ReadRegister(NamedTuple):
    """Read a register; the Database Manager answers with RegisterSeen, once it has a majority. `anew`: where a read is
    under way, read once more after it.
    """

    key: str
    anew: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteRegister:
    """Write what a register holds once more, under the voter set of now (an identity change). Ends with one Settled."""

    id: int
    key: str


@dataclass(frozen=True, slots=True)
class AdoptVoters:
    """Go on under this set: it is recorded, and a majority of the set before refuses older rounds."""

    voter_set: VoterSet


class CallVoter(NamedTuple):
    """Send one call to a voter. It ends with VoterAnswered or VoterFailed within `limit_us`."""

    number: int
    voter: str
    call: Call
    limit_us: int


class CallHost(NamedTuple):
    """Hand a request to the resource host."""

    request: HostRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceNode:
    """Cut the power of the session's node and remove its VMs. Ends with FenceEnded."""

    session: Session
    not_after_us: int


@dataclass(frozen=True, slots=True)
class PowerOnNode:
    """Switch a node on unless it is held off. Ends with PowerOnEnded."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PetWatchdog:
    """Tell PID 1 when the guests and when the node shall end, unless it hears again."""

    guests_end_us: int
    node_ends_us: int


@dataclass(frozen=True, slots=True)
class ResetNode:
    """End this session: PID 1 exits and everything of the node dies with it."""

    reason: str


class AnswerCode(StrEnum):
    """How a request ended. DONE: the wish is in the database, its effects follow. NOT_OWNER: ask the node that the
    result names. REFUSED: not as things stand. NO_SUCH: a name that nothing has. NO_QUORUM: nothing was changed.
    UNKNOWN: it may or may not be done.
    """

    DONE = "done"
    NOT_OWNER = "not-owner"
    REFUSED = "refused"
    NO_SUCH = "no-such"
    NO_QUORUM = "no-quorum"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAnswered:
    """The one answer to a Requested. `message` is a sentence for a person."""

    id: int
    code: AnswerCode
    message: str
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PingProgram:
    """Ask a program of this node whether it lives. Ends with ProgramAnswered, or with nothing."""

    program: WatchedProgram


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartProgram:
    """Have PID 1 kill a program that has been silent since then, unless it was started later, and start it again."""

    program: WatchedProgram
    silent_since_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One line of the cluster log. `id` is the published number of the event, if it has one.

    `lasting` marks a condition that is told again as long as it lasts; everything else is an event, and each counts.
    """

    component: str
    event: str
    message: str
    id: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    lasting: bool = False


Action = (
    ChangeRegister
    | ReadRegister
    | RewriteRegister
    | AdoptVoters
    | CallVoter
    | CallHost
    | FenceNode
    | PowerOnNode
    | PetWatchdog
    | ResetNode
    | RequestAnswered
    | PingProgram
    | RestartProgram
    | Log
)


class Manager(Protocol):
    """What the router asks of each manager that decides by all of its facts. `handle` does no I/O and never waits;
    times are microseconds. `next_wake` tells the next time after `now` at which it has something to look at: what was
    due before and was not done waits for a fact.
    """

    def handle(self, now: int, event: Event) -> list[Action]: ...
    def next_wake(self, now: int) -> int | None: ...
