"""Every change of the database, as a frozen record with a pure `apply`.

`apply` is re-run on the freshest record at each attempt, so it must read everything it needs from that record, and
touches its own fields only. It returns the new record, or a Refusal that says why the change no longer makes sense.
That a change already took effect is recognised by its id, before `apply` is asked.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

from harness.model.records import ClusterRecord, Drained, GroupRecord, Move, MoveCause, Restart, SessionState
from harness.model.serialization import from_json_value, to_json_value
from harness.model.session import Session
from harness.model.voter_set import VoterSet

__all__ = [
    "BeginMove",
    "CancelMove",
    "Change",
    "Claim",
    "CreateRegister",
    "DeclareDown",
    "ForgetRestarts",
    "JoinSession",
    "MarkFenced",
    "ProposeVoterSet",
    "Record",
    "RecordRestart",
    "Refusal",
    "Release",
    "SetPersistentState",
    "SettleVoterSet",
    "record_from_plain",
    "record_to_plain",
]

Record = ClusterRecord | GroupRecord

RESTARTS_KEPT = 64
LEFT_KEPT = 16

EARLIER_KEPT = 64
"""Sessions of one node that are remembered as over. Every group of one that is over is claimed within a lease or so,
wanted or not, so no register can name one that was forgotten."""


def record_to_plain(record: Record) -> dict[str, Any]:
    """The record with its kind, as plain JSON values."""
    return {"kind": type(record).__name__, **to_json_value(record)}


def record_from_plain(plain: dict[str, Any]) -> Record:
    """The record that `record_to_plain` wrote. Raises ValueError on an unknown kind."""
    fields = dict(plain)
    kind = fields.pop("kind", None)
    if kind == "ClusterRecord":
        return from_json_value(ClusterRecord, fields)
    if kind == "GroupRecord":
        return from_json_value(GroupRecord, fields)
    raise ValueError(f"a register holds a {kind!r}, which this version does not know")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a change does not apply to the record as it is now."""

    reason: str


class Change(Protocol):
    """A named, pure function from a record to a record or a refusal. None stands for a register never written."""

    def apply(self, record: Record | None) -> Record | Refusal: ...


def _not_owned(record: Record | None, session: Session, epoch: int) -> Refusal | None:
    if not isinstance(record, GroupRecord):
        return Refusal("there is no such group")
    if record.owner != session or record.epoch != epoch:
        return Refusal(f"the owner is {record.owner} under epoch {record.epoch}, not {session} under {epoch}")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRegister:
    """Write the first record of a register; used when the cluster is formed."""

    first: Record

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused when the register was written before."""
        return self.first if record is None else Refusal("the register exists")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinSession:
    """A node's new session becomes a member. Its process has removed the containers of all earlier sessions before."""

    session: Session

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused for a node that is no member, and for a session that was declared Down: it never comes back."""
        if not isinstance(record, ClusterRecord):
            return Refusal("no cluster was formed")
        entry = record.node(self.session.node)
        if entry is None:
            return Refusal(f"{self.session.node} is no member of rig {record.rig}")
        if entry.session == self.session and entry.state is SessionState.DOWN:
            return Refusal(f"{self.session} was declared Down")
        if self.session in entry.earlier:
            return Refusal(f"{self.session} was replaced by {entry.session}")
        earlier = entry.earlier
        if entry.session is not None and entry.session != self.session:
            earlier = (*earlier, entry.session)[-EARLIER_KEPT:]
        joined = replace(entry, session=self.session, state=SessionState.UP, fenced=False, earlier=earlier)
        return record.with_node(joined)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclareDown:
    """A survivor records that a session is lost, before anybody fences it."""

    session: Session

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused unless that session is Up."""
        if not isinstance(record, ClusterRecord) or not record.is_up(self.session):
            return Refusal(f"{self.session} is not Up")
        entry = record.node(self.session.node)
        assert entry is not None
        return record.with_node(replace(entry, state=SessionState.DOWN, fenced=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkFenced:
    """A survivor records that nothing of a Down session runs or can ever start."""

    session: Session

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused unless that session is the node's latest, and Down."""
        entry = record.node(self.session.node) if isinstance(record, ClusterRecord) else None
        if entry is None or entry.session != self.session or entry.state is not SessionState.DOWN:
            return Refusal(f"{self.session} is not recorded Down")
        assert isinstance(record, ClusterRecord)
        return record.with_node(replace(entry, fenced=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeVoterSet:
    """The next set of voters is written down, before any voter hears of it. It is never taken back: whoever reads it
    carries it on.
    """

    voter_set: VoterSet

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused while another change is under way, and unless exactly one voter differs and two are left."""
        if not isinstance(record, ClusterRecord) or record.voter_set is None:
            return Refusal("no cluster was formed")
        if record.pending_set is not None:
            return Refusal(f"voter set {record.pending_set.version} is pending")
        if not self.voter_set.follows(record.voter_set):
            return Refusal(f"voter set {self.voter_set.version} does not follow {record.voter_set.version}")
        return replace(record, pending_set=self.voter_set)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleVoterSet:
    """Every register was rewritten on a majority of the pending set: it is the set now."""

    version: int

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused unless that version is pending."""
        if not isinstance(record, ClusterRecord) or record.pending_set is None:
            return Refusal("no voter set is pending")
        if record.pending_set.version != self.version:
            return Refusal(f"voter set {record.pending_set.version} is pending, not {self.version}")
        return replace(record, voter_set=record.pending_set, pending_set=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A survivor, or a rebooted node, takes a group whose owning session is over (or that nobody ever owned).

    The claimant has seen that session recorded as over; being over is final, so it need not be checked under the
    same ballot. The owner and the epoch are.
    """

    claimant: Session
    owner: Session | None
    epoch: int

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused unless the register holds exactly the owner and epoch that were fenced."""
        if not isinstance(record, GroupRecord):
            return Refusal("there is no such group")
        if record.owner != self.owner or record.epoch != self.epoch:
            return Refusal(f"the owner is {record.owner} under epoch {record.epoch}, another than was fenced")
        home = record.drained is not None and record.drained.node == self.claimant.node
        return replace(
            record,
            owner=self.claimant,
            epoch=record.epoch + 1,
            move=None,
            restarts=(),
            drained=None if home else record.drained,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRestart:
    """The owner writes a restart in place down before it makes it. `failure` names the failure that is answered."""

    session: Session
    epoch: int
    resource: str
    failure: str
    at_us: int
    period_us: int

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused unless session and epoch still own the group. Entries older than the period are dropped."""
        refusal = _not_owned(record, self.session, self.epoch)
        if refusal is not None:
            return refusal
        assert isinstance(record, GroupRecord)
        recent = [
            entry
            for entry in record.restarts
            if entry.session == self.session and self.at_us - entry.at_us <= self.period_us
        ]
        if any(entry.failure == self.failure and entry.resource == self.resource for entry in recent):
            return record
        entry = Restart(resource=self.resource, session=self.session, at_us=self.at_us, failure=self.failure)
        return replace(record, restarts=(*recent, entry)[-RESTARTS_KEPT:])


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetRestarts:
    """The owner tries a resource once more whose restarts are used up: its retry period is over."""

    session: Session
    epoch: int
    resource: str

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused unless session and epoch still own the group."""
        refusal = _not_owned(record, self.session, self.epoch)
        if refusal is not None:
            return refusal
        assert isinstance(record, GroupRecord)
        left = tuple(entry for entry in record.restarts if entry.resource != self.resource)
        return replace(record, restarts=left)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginMove:
    """The owner starts to move the group. `failed_at_us` is given when a failure is the reason, and then counts as a
    failover.
    """

    session: Session
    epoch: int
    target: str
    reason: str
    cause: MoveCause = MoveCause.FAILURE
    drain: int = 0
    failed_at_us: int | None = None

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused unless session and epoch still own the group and no other move is under way."""
        refusal = _not_owned(record, self.session, self.epoch)
        if refusal is not None:
            return refusal
        assert isinstance(record, GroupRecord)
        if record.move is not None:
            return Refusal(f"the group is being moved to {record.move.target}")
        failovers = record.failovers
        if self.failed_at_us is not None:
            failovers = (*failovers, self.failed_at_us)[-RESTARTS_KEPT:]
        move = Move(target=self.target, reason=self.reason, cause=self.cause, drain=self.drain)
        return replace(record, move=move, failovers=failovers)


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelMove:
    """The owner keeps the group, because the target of its move is gone.

    It takes the group anew, under the next epoch: closing its resources has ended the right of the old one to start
    anything.
    """

    session: Session
    epoch: int

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused unless session and epoch still own the group."""
        refusal = _not_owned(record, self.session, self.epoch)
        if refusal is not None:
            return refusal
        assert isinstance(record, GroupRecord)
        return replace(record, epoch=record.epoch + 1, move=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The owner hands the group over, after proof that nothing of it runs or can still start."""

    session: Session
    epoch: int
    new_owner: Session

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused unless session and epoch still own the group and it is being moved."""
        refusal = _not_owned(record, self.session, self.epoch)
        if refusal is not None:
            return refusal
        assert isinstance(record, GroupRecord)
        if record.move is None:
            return Refusal("the group is not being moved")
        cause, drained, left = record.move.cause, record.drained, record.left
        if cause is MoveCause.DRAIN:
            drained = Drained(node=self.session.node, drain=record.move.drain)
        elif cause is MoveCause.REQUEST or (drained is not None and drained.node == self.new_owner.node):
            drained = None
        if cause in (MoveCause.FAILURE, MoveCause.REQUEST):
            left = (*left, self.session)[-LEFT_KEPT:]
        return replace(
            record,
            owner=self.new_owner,
            epoch=record.epoch + 1,
            move=None,
            restarts=(),
            drained=drained,
            left=tuple(session for session in left if session != self.new_owner),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPersistentState:
    """The wanted state of one resource, by an administrator's request or a clean stop or start by hand that the
    owner saw.
    """

    session: Session
    epoch: int
    resource: str
    wanted: bool

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused unless session and epoch still own the group and it has that resource."""
        refusal = _not_owned(record, self.session, self.epoch)
        if refusal is not None:
            return refusal
        assert isinstance(record, GroupRecord)
        if self.resource not in record.persistent:
            return Refusal(f"group {record.spec.name} has no resource {self.resource}")
        return replace(record, persistent={**record.persistent, self.resource: self.wanted})
