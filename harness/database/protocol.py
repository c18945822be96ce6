"""What a proposer says to a voter, and what the voter answers.

Every call names rig, voter, incarnation, voter-set version, key and ballot; the voter refuses what is not its own,
and the answer repeats the names, so that an answer counts only for what it names (safety review, finding 11). These
records are what the live adapter turns into a script call and what the simulated voter takes as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "CLUSTER_KEY",
    "NO_BALLOT",
    "Accept",
    "Accepted",
    "Address",
    "Ballot",
    "Beat",
    "BeatAnswer",
    "Call",
    "Conflict",
    "Form",
    "Formed",
    "Hello",
    "HelloAnswer",
    "LeaseSeen",
    "Prepare",
    "Promise",
    "Read",
    "ReadAnswer",
    "Refused",
    "Reply",
    "VoterSet",
    "Why",
]

CLUSTER_KEY = "cluster"


@dataclass(frozen=True, slots=True, order=True)
class Ballot:
    """Ordered by number, then by proposer. A ballot carries one value, ever; a proposer is unique per start of its
    process.
    """

    number: int
    proposer: str


NO_BALLOT = Ballot(0, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class VoterSet:
    """The voters that count, by name with their incarnations, and the version of that set."""

    version: int
    members: Mapping[str, str]

    @property
    def majority(self) -> int:
        """How many of them are a strict majority."""
        return len(self.members) // 2 + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """To whom a call is addressed, and under which version of the voter set."""

    rig: str
    voter: str
    incarnation: str
    set_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Ask for a promise to refuse every ballot below this one."""

    to: Address
    key: str
    ballot: Ballot


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """Ask to accept `value` under `ballot`, and to promise `promise`, the ballot of this proposer's next change, at
    once.
    """

    to: Address
    key: str
    ballot: Ballot
    value: str
    promise: Ballot


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Ask what is accepted, without any promise."""

    to: Address
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """Renew a session's lease, and learn of the others' and of registers accepted after `since` (the voter's own
    count).
    """

    to: Address
    session: str
    since: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Ask a voter who it is. The only call but Form that names no incarnation."""

    rig: str
    voter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Give an empty voter its incarnation and the first voter set. Sent by `up` alone."""

    to: Address
    members: Mapping[str, str] = field(default_factory=dict)


Call = Prepare | Accept | Read | Beat | Hello | Form


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Promised; with what was accepted last (NO_BALLOT and None if nothing)."""

    of: Address
    key: str
    ballot: Ballot
    accepted: Ballot
    value: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Accepted under this ballot, and `promise` promised."""

    of: Address
    key: str
    ballot: Ballot


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Not promised or not accepted: a higher ballot was promised before."""

    of: Address
    key: str
    ballot: Ballot
    promised: Ballot


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAnswer:
    """What is accepted, and which ballot is promised."""

    of: Address
    key: str
    accepted: Ballot
    value: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSeen:
    """A session's lease at this voter: how often it was renewed, and how long ago by the voter's clock, in
    microseconds.
    """

    session: str
    renewals: int
    age_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatAnswer:
    """Renewed. `cluster` is the ballot under which this voter accepted the cluster register last.

    `changed` names the registers accepted after `since` with their ballots; `revision` is the voter's count for the
    next `since`.
    """

    of: Address
    session: str
    revision: int
    cluster: Ballot
    leases: tuple[LeaseSeen, ...]
    changed: tuple[tuple[str, Ballot], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloAnswer:
    """Who the voter is: its incarnation is empty and its set None while it has not been formed."""

    rig: str
    voter: str
    incarnation: str
    voter_set: VoterSet | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Formed:
    """The voter has this incarnation now, or had it before."""

    of: Address


class Why(StrEnum):
    """Why a voter refuses a call, whatever its ballot."""

    RIG = "rig"
    VOTER = "voter"
    EMPTY = "empty"
    INCARNATION = "incarnation"
    SET_VERSION = "set-version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The call was not for this voter as it is now; nothing was changed. `of` is what the voter really is."""

    of: Address
    why: Why


Reply = Promise | Accepted | Conflict | ReadAnswer | BeatAnswer | HelloAnswer | Formed | Refused
