"""What a proposer says to a voter, and what the voter answers.

Every call names rig, voter, incarnation, voter-set version, key and ballot; the voter refuses what is not its own,
and the answer repeats the names, so that an answer counts only for what it names (safety review, finding 11). These
records are what the live adapter turns into a script call and what the simulated voter takes as they are. Those of
which each beat makes many are tuples, which is cheaper.

`seen` in a call is the highest count of writes that this voter was ever heard to tell: a voter that has counted fewer
has lost some, and stops voting (finding 20).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from harness.database.subscription import EVERYTHING
from harness.model.voter_set import VoterSet

__all__ = [
    "NO_BALLOT",
    "Accept",
    "Accepted",
    "Address",
    "Admit",
    "Admitted",
    "Ballot",
    "Beat",
    "BeatAnswer",
    "Call",
    "Conflict",
    "Content",
    "Form",
    "Formed",
    "Hello",
    "HelloAnswer",
    "KeysAnswer",
    "LeaseSeen",
    "ListKeys",
    "Notice",
    "Prepare",
    "Promise",
    "Raise",
    "Raised",
    "Read",
    "ReadAnswer",
    "ReadMany",
    "ReadManyAnswer",
    "RefusalReason",
    "Refused",
    "Reply",
    "Retire",
    "Retired",
    "VoterSet",
    "WriteCounts",
]


class Ballot(NamedTuple):
    """Ordered by number, then by proposer. A ballot carries one value, ever; a proposer is unique per start of its
    process.
    """

    number: int
    proposer: str


NO_BALLOT = Ballot(0, "")


class Address(NamedTuple):
    """To whom a call is addressed, and under which version of the voter set."""

    rig: str
    voter: str
    incarnation: str
    set_version: int


class Prepare(NamedTuple):
    """Ask for a promise to refuse every ballot below this one."""

    to: Address
    key: str
    ballot: Ballot
    seen: int = 0


class Accept(NamedTuple):
    """Ask to accept `value` under `ballot`, and to promise `promise`, the ballot of this proposer's next change, at
    once. `owner` names the node that owns the register's subject, and `circle` the circle that it is of, for the
    notices.
    """

    to: Address
    key: str
    ballot: Ballot
    value: str
    promise: Ballot
    owner: str = ""
    circle: str = ""
    seen: int = 0


class Read(NamedTuple):
    """Ask what is accepted, without any promise."""

    to: Address
    key: str
    seen: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadMany:
    """Ask what is accepted in each of these registers, without any promise."""

    to: Address
    keys: tuple[str, ...]
    seen: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """Renew a session's lease, and learn of the others' and of registers accepted after `since` (the voter's own
    count), as far as they are of `interest` (`harness.database.subscription`).
    """

    to: Address
    session: str
    since: int
    seen: int = 0
    interest: str = EVERYTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Ask a voter who it is. An empty voter that has no birth name yet takes `birth`, which was never used before: the
    name of this empty life, under which alone it can be admitted.
    """

    rig: str
    voter: str
    birth: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Give an empty voter its incarnation and the first voter set. Sent by `up` alone."""

    to: Address
    members: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raise:
    """Adopt the set of version `to.set_version`, if that is newer. From then on rounds of older versions are refused.

    Sent only by who knows that this set was recorded in the cluster register.
    """

    to: Address
    members: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Let an empty voter vote: `to.incarnation` is its birth name, recorded as a member of the set of that version,
    which a majority of the set before has adopted.
    """

    to: Address
    members: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """Forget everything: this life of the voter is no member of the set of version `to.set_version`, which is settled.
    It is empty afterwards, under the birth name `birth`.
    """

    to: Address
    members: Mapping[str, str]
    birth: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListKeys:
    """Ask which registers there are, those that only hold a promise included."""

    to: Address


Call = Prepare | Accept | Read | ReadMany | Beat | Hello | Form | Raise | Admit | Retire | ListKeys


class Promise(NamedTuple):
    """Promised; with what was accepted last (NO_BALLOT and None if nothing). `writes` is the voter's count."""

    of: Address
    key: str
    ballot: Ballot
    accepted: Ballot
    value: str | None
    writes: int = 0


class Accepted(NamedTuple):
    """Accepted under this ballot, and `promise` promised. `writes` is the voter's count."""

    of: Address
    key: str
    ballot: Ballot
    writes: int = 0


class Conflict(NamedTuple):
    """Not promised or not accepted: a higher ballot was promised before."""

    of: Address
    key: str
    ballot: Ballot
    promised: Ballot


class ReadAnswer(NamedTuple):
    """What is accepted, and which ballot is promised."""

    of: Address
    key: str
    accepted: Ballot
    value: str | None


class Content(NamedTuple):
    """What is accepted in one register, and under which ballot; None if nothing is."""

    key: str
    accepted: Ballot
    value: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadManyAnswer:
    """What is accepted, in the order of the question."""

    of: Address
    contents: tuple[Content, ...]


class LeaseSeen(NamedTuple):
    """A session's lease at this voter: how often it was renewed, and when last by the voter's clock (microseconds)."""

    session: str
    renewals: int
    at_us: int


class Notice(NamedTuple):
    """A register that was accepted anew, under which ballot, and the node that owns its subject: a hint."""

    key: str
    ballot: Ballot
    owner: str = ""


class BeatAnswer(NamedTuple):
    """Renewed. `cluster` is the ballot under which this voter accepted the cluster register last.

    `changed` names the registers of interest accepted after `since`; `revision` is the voter's count of writes, and the
    next `since`. `clock_us` is what the voter's clock shows.
    """

    of: Address
    session: str
    revision: int
    cluster: Ballot
    clock_us: int
    leases: tuple[LeaseSeen, ...]
    changed: tuple[Notice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloAnswer:
    """Who the voter is: its incarnation is empty and its set None while it has not been formed or admitted; `birth` is
    the name of its empty life then. `behind` means that it has lost writes and does not vote.
    """

    rig: str
    voter: str
    incarnation: str
    voter_set: VoterSet | None
    birth: str = ""
    behind: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Formed:
    """The voter has this incarnation now, or had it before."""

    of: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """The voter has the set of that version now, or had it before."""

    of: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The voter votes under this incarnation now, or did so before."""

    of: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """The voter is empty; `birth` is the name of its empty life."""

    of: Address
    birth: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysAnswer:
    """Every register that this voter knows."""

    of: Address
    keys: tuple[str, ...]


class RefusalReason(StrEnum):
    """Why a voter refuses a call, whatever its ballot."""

    RIG = "rig"
    VOTER = "voter"
    EMPTY = "empty"
    INCARNATION = "incarnation"
    SET_VERSION = "set-version"
    BEHIND = "behind"
    MEMBER = "member"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The call was not for this voter as it is now; nothing was changed. `of` is what the voter really is, and
    `voter_set` the set that it has adopted, None while it is empty.
    """

    of: Address
    why: RefusalReason
    voter_set: VoterSet | None = None


Reply = (
    Promise
    | Accepted
    | Conflict
    | ReadAnswer
    | ReadManyAnswer
    | BeatAnswer
    | HelloAnswer
    | Formed
    | Raised
    | Admitted
    | Retired
    | KeysAnswer
    | Refused
)


class WriteCounts:
    """The highest count of writes that each life of each voter was heard to tell."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}

    def seen(self, voter: str, incarnation: str) -> int:
        """0 if that life never told any."""
        return self._counts.get((voter, incarnation), 0)

    def heard(self, reply: Reply) -> None:
        """Remember what a voter tells."""
        if isinstance(reply, BeatAnswer):
            count = reply.revision
        elif isinstance(reply, (Promise, Accepted)):
            count = reply.writes
        else:
            return
        life = (reply.of.voter, reply.of.incarnation)
        self._counts[life] = max(self._counts.get(life, 0), count)
