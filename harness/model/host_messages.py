"""What the service and the resource host say to each other.

The service asks for an entry point of a resource's driver; the host runs it and reports states. The host never
decides: it compares nothing with PersistentState and restarts nothing.
"""

from dataclasses import dataclass
from enum import StrEnum

from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import ResourceSpec
from harness.model.vm import Ending, Proof

__all__ = ["CallReason", "EntryPoint", "HostReport", "HostRequest"]


class EntryPoint(StrEnum):
    """The driver's functions that the service asks for. Polls are the host's own schedule."""

    OPEN = "open"
    CLOSE = "close"
    ONLINE = "online"
    OFFLINE = "offline"
    TERMINATE = "terminate"


class CallReason(StrEnum):
    """The reason that every call carries."""

    START = "start"
    RESTART = "restart"
    MOVE = "move"
    FAILOVER = "failover"
    FAILED_MOVE = "failed-move"
    REQUEST = "request"
    SHUTDOWN = "shutdown"
    RUNDOWN = "rundown"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRequest:
    """One call of an entry point. `number` is unique within the service's process; `spec` comes with OPEN only.

    `session`, `epoch` and `not_after_us` (boot-time clock) are the right under which the call is made; for OPEN
    `adopt` says that the session owns the resource and that what runs shall be kept. A higher epoch than the one
    under which a resource was opened is raised by a new OPEN.
    """

    number: int
    entry_point: EntryPoint
    resource: str
    group: str
    session: Session
    epoch: int
    not_after_us: int
    why: CallReason
    wanted: bool = True
    adopt: bool = False
    spec: ResourceSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """The state of one resource, after every change and in answer to every request.

    `sequence` grows with every report of the host's process. `number` is the request that this report settles (None:
    the host's own observation): then `error` is None on success, else a sentence. CLOSE, and TERMINATE when it
    succeeded, carry a `proof`. `ending` and `evidence` say how a VM's run ended; `run` names the run. `live` is
    False when the state was learned by listing, not from an event.
    """

    sequence: int
    resource: str
    group: str
    epoch: int
    state: ResourceState
    at_us: int
    number: int | None = None
    error: str | None = None
    proof: Proof | None = None
    ending: Ending | None = None
    evidence: str = ""
    run: str = ""
    checkpoint: int = 0
    live: bool = True
