"""What the registers of the cluster database hold: one record for the cluster, one for each group.

Whatever must outlive a crash is here. Whether a node answers right now is not: that is derived from leases. That a
session was declared Down is: it never comes back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.model.session import Session
from harness.model.states import DrainState
from harness.model.topology import GroupSpec, Settings
from harness.model.voter_set import VoterSet

__all__ = [
    "ClusterRecord",
    "Drained",
    "GroupRecord",
    "Move",
    "MoveCause",
    "NodeEntry",
    "Restart",
    "ResumeFailback",
    "SessionState",
]


class SessionState(StrEnum):
    """What the database says of a node's latest session."""

    NEVER = "Never"
    UP = "Up"
    DOWN = "Down"


class ResumeFailback(StrEnum):
    """What a resumed node gets back of what its drain has moved away: nothing, all of it at once, or what the groups'
    own failback policy says.
    """

    NONE = "none"
    IMMEDIATE = "immediate"
    POLICY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    """A member of the cluster.

    `session` is its latest; `fenced` means that nothing of that session runs or can ever start. `earlier` are the
    sessions that later ones replaced when they joined, the newest last.

    `paused` outlives the session. `drains` counts the drains that were ever begun; `drain` is the state of the last
    one, and `failback` what the resume after it asked for.
    """

    name: str
    address: str
    session: Session | None = None
    state: SessionState = SessionState.NEVER
    fenced: bool = False
    paused: bool = False
    earlier: tuple[Session, ...] = ()
    drain: DrainState = DrainState.NOT_INITIATED
    drains: int = 0
    failback: ResumeFailback = ResumeFailback.POLICY


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRecord:
    """The cluster register. `nodes` is ordered; `groups` names the groups, each of which has a register of its own.

    `votes` names the voters that there should be, in order: nodes, and the witness. `voter_set` is the set under which
    every register has been written; `pending_set` the next one while the change to it is carried through.
    """

    rig: str
    nodes: tuple[NodeEntry, ...]
    groups: tuple[str, ...]
    settings: Settings
    votes: tuple[str, ...] = ()
    voter_set: VoterSet | None = None
    pending_set: VoterSet | None = None

    def node(self, name: str) -> NodeEntry | None:
        """The member of that name."""
        for entry in self.nodes:
            if entry.name == name:
                return entry
        return None

    def is_up(self, session: Session) -> bool:
        """Whether that very session is a member in good standing."""
        entry = self.node(session.node)
        return entry is not None and entry.session == session and entry.state is SessionState.UP

    def is_over(self, session: Session) -> bool:
        """Whether nothing of that session runs or can ever start: it was declared Down and fenced, or a newer
        session has joined.

        A node removes the VM containers of all its earlier sessions before it joins, so a newer session that
        joined is proof. That the record shows another session is not: this copy may be older than the session in
        question.
        """
        entry = self.node(session.node)
        if entry is None:
            return False
        if entry.session == session:
            return entry.state is SessionState.DOWN and entry.fenced
        return session in entry.earlier

    def up_nodes(self) -> tuple[NodeEntry, ...]:
        """The members whose session is Up, in order."""
        return tuple(entry for entry in self.nodes if entry.state is SessionState.UP)

    def with_node(self, changed: NodeEntry) -> "ClusterRecord":
        """The record with that member's entry replaced."""
        nodes = tuple(changed if entry.name == changed.name else entry for entry in self.nodes)
        return replace(self, nodes=nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """One restart in place, written before it is made. `at_us` is the boot-time clock of the session's engine."""

    resource: str
    session: Session
    at_us: int
    failure: str


class MoveCause(StrEnum):
    """Why a group leaves its owner."""

    FAILURE = "failure"
    REQUEST = "request"
    DRAIN = "drain"
    PAUSED = "paused"
    FAILBACK = "failback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A move under way: a stage of the group, not a plan in somebody's memory. `drain` is the number of the drain that
    is the cause.
    """

    target: str
    reason: str
    cause: MoveCause = MoveCause.FAILURE
    drain: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """Where a group was drained away from, and by the how-manieth drain of that node."""

    node: str
    drain: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRecord:
    """A group's register.

    Invariant: `epoch` grows by exactly one whenever `owner` changes or a move is given up, and `owner` changes only
    by the owning session itself or after that session is over.
    `persistent` is the PersistentState of each resource. `failovers` are the times at which the group was moved
    because of a failure. `drained` is set while the group is where a drain has put it. `left` are the sessions that it
    left because it failed there or an administrator moved it away: it does not fail back to them.
    """

    spec: GroupSpec
    owner: Session | None
    epoch: int
    persistent: Mapping[str, bool]
    move: Move | None = None
    restarts: tuple[Restart, ...] = ()
    failovers: tuple[int, ...] = ()
    drained: Drained | None = None
    left: tuple[Session, ...] = ()

    @property
    def wanted(self) -> bool:
        """Whether any resource of the group shall be Online."""
        return any(self.persistent.values())
