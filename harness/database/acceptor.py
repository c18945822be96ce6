"""The acceptor: one voter's rules, as the Python twin of `voter.lua`.

One contract test holds both to the same answers. The twin is what the simulated world runs, so it must refuse
exactly what the script refuses. It keeps everything in plain dicts; `wipe` is what an empty disk does.
"""

from dataclasses import dataclass, field

from harness.database.protocol import (
    NO_BALLOT,
    Accept,
    Accepted,
    Address,
    Admit,
    Admitted,
    Ballot,
    Beat,
    BeatAnswer,
    Call,
    Conflict,
    Content,
    Form,
    Formed,
    Hello,
    HelloAnswer,
    KeysAnswer,
    LeaseSeen,
    ListKeys,
    Notice,
    Prepare,
    Promise,
    Raise,
    Raised,
    Read,
    ReadAnswer,
    ReadMany,
    ReadManyAnswer,
    RefusalReason,
    Refused,
    Reply,
    Retire,
    Retired,
)
from harness.database.subscription import EVERYTHING, NOTHING, Filed
from harness.model.register_keys import CLUSTER_KEY
from harness.model.voter_set import VoterSet

__all__ = ["LEASE_MEMORY_US", "Acceptor"]

LEASE_MEMORY_US = 3600 * 1_000_000
"""A lease that nobody renewed for an hour is forgotten, so that sessions of long ago do not fill the voter."""


@dataclass(slots=True)
class _Register:
    """`content` and `notice` are what it tells of itself, made once for all who ask."""

    content: Content
    notice: Notice
    promised: Ballot = NO_BALLOT
    owner: str = ""
    circle: str = ""
    revision: int = 0

    @property
    def accepted(self) -> Ballot:
        return self.content.accepted

    @property
    def value(self) -> str | None:
        return self.content.value


def _never_written(key: str) -> _Register:
    return _Register(Content(key, NO_BALLOT, None), Notice(key, NO_BALLOT))


@dataclass(slots=True)
class Acceptor:
    """One voter. Until it is formed or admitted it knows nothing but its birth name, and votes on nothing."""

    rig: str = ""
    voter: str = ""
    incarnation: str = ""
    birth: str = ""
    behind: bool = False
    voter_set: VoterSet | None = None
    revision: int = 0
    registers: dict[str, _Register] = field(default_factory=dict)
    leases: dict[str, LeaseSeen] = field(default_factory=dict)
    _filed: Filed | None = None
    _oldest_lease_us: int = 0
    _address: Address | None = None
    """Who a call must mean to be taken as it stands; kept until that changes."""

    def wipe(self) -> None:
        """What an empty disk leaves: nothing."""
        self.rig = self.voter = self.incarnation = self.birth = ""
        self.behind = False
        self.voter_set = self._address = None
        self.revision = 0
        self.registers.clear()
        self._filed = None
        self.leases.clear()

    def handle(self, call: Call, *, clock_us: int) -> Reply:
        """The answer to one call. `clock_us` is the voter's own clock, used for the ages of leases only."""
        if isinstance(call, Beat) and call.to == self._address and not self.behind and call.seen <= self.revision:
            return self._beat(call, clock_us)
        asked = call if isinstance(call, Hello) else call.to
        if self.rig and asked.rig != self.rig:
            return self._refuse(call, RefusalReason.RIG)
        if self.voter and asked.voter != self.voter:
            return self._refuse(call, RefusalReason.VOTER)
        if isinstance(call, (Hello, Form, Admit)):
            return self._introduce(call)
        if not self.incarnation:
            return self._refuse(call, RefusalReason.EMPTY)
        if call.to.incarnation != self.incarnation:
            return self._refuse(call, RefusalReason.INCARNATION)
        if isinstance(call, (Raise, Retire)):
            return self._change_set(call)
        return self._refusal(call) or self._vote(call, clock_us)

    @property
    def set_version(self) -> int:
        """The version of the voter set that it has, 0 for none."""
        return self.voter_set.version if self.voter_set is not None else 0

    def _mine(self, call: Call) -> Address:
        """Who this voter is; while it is nobody, whom the call takes it for."""
        asked = call if isinstance(call, Hello) else call.to
        return Address(
            rig=self.rig or asked.rig,
            voter=self.voter or asked.voter,
            incarnation=self.incarnation,
            set_version=self.set_version,
        )

    def _vote(self, call: Prepare | Accept | Read | ReadMany | Beat | ListKeys, clock_us: int) -> Reply:
        match call:
            case Beat():
                return self._beat(call, clock_us)
            case Prepare():
                return self._prepare(call)
            case Accept():
                return self._accept(call)
            case Read():
                register = self.registers.get(call.key) or _never_written(call.key)
                return ReadAnswer(of=call.to, key=call.key, accepted=register.accepted, value=register.value)
            case ReadMany():
                found = [self.registers.get(key) or _never_written(key) for key in call.keys]
                return ReadManyAnswer(of=call.to, contents=tuple([register.content for register in found]))
            case ListKeys():
                return KeysAnswer(of=call.to, keys=tuple(self.registers))

    def _refuse(self, call: Call, why: RefusalReason) -> Refused:
        return Refused(of=self._mine(call), why=why, voter_set=self.voter_set)

    def _refusal(self, call: Prepare | Accept | Read | ReadMany | Beat | ListKeys) -> Refused | None:
        """Why this formed voter does not take a call that names its incarnation."""
        if self.behind:
            return self._refuse(call, RefusalReason.BEHIND)
        if call.to.set_version != self.set_version:
            return self._refuse(call, RefusalReason.SET_VERSION)
        if not isinstance(call, ListKeys) and call.seen > self.revision:
            self.behind = True
            return self._refuse(call, RefusalReason.BEHIND)
        return None

    # Who this voter is

    def _introduce(self, call: Hello | Form | Admit) -> Reply:
        """The calls that an empty voter takes too."""
        match call:
            case Hello():
                return self._hello(call)
            case Form():
                return self._form(call)
            case Admit():
                return self._admit(call)

    def _hello(self, call: Hello) -> Reply:
        if not self.incarnation and not self.birth:
            self.birth = call.birth
        return HelloAnswer(
            rig=call.rig,
            voter=call.voter,
            incarnation=self.incarnation,
            voter_set=self.voter_set,
            birth=self.birth,
            behind=self.behind,
        )

    def _begin(self, call: Form | Admit) -> None:
        self.rig, self.voter, self.incarnation = call.to.rig, call.to.voter, call.to.incarnation
        self.birth = self.incarnation
        self._take_set(call)

    def _take_set(self, call: Form | Admit | Raise) -> None:
        self.voter_set = VoterSet(version=call.to.set_version, members=dict(call.members))
        self._address = call.to

    def _form(self, call: Form) -> Reply:
        if not self.incarnation:
            self._begin(call)
            return Formed(of=call.to)
        if call.to.incarnation != self.incarnation:
            return self._refuse(call, RefusalReason.INCARNATION)
        if call.to.set_version != self.set_version:
            return self._refuse(call, RefusalReason.SET_VERSION)
        return Formed(of=call.to)

    def _admit(self, call: Admit) -> Reply:
        if not self.incarnation and self.birth and self.birth == call.to.incarnation:
            self._begin(call)
            return Admitted(of=call.to)
        if call.to.incarnation != self.incarnation:
            return self._refuse(call, RefusalReason.INCARNATION)
        return Admitted(of=self._mine(call))

    def _change_set(self, call: Raise | Retire) -> Reply:
        if self.set_version > call.to.set_version:
            return self._refuse(call, RefusalReason.SET_VERSION)
        if isinstance(call, Raise):
            if self.set_version < call.to.set_version:
                self.revision += 1
                self._take_set(call)
            return Raised(of=call.to)
        if call.members.get(call.to.voter) == self.incarnation:
            return self._refuse(call, RefusalReason.MEMBER)
        self.wipe()
        self.birth = call.birth
        empty = Address(rig=call.to.rig, voter=call.to.voter, incarnation="", set_version=0)
        return Retired(of=empty, birth=call.birth)

    # Rounds

    def _register(self, key: str) -> _Register:
        """What it keeps under that key, from now on if there was nothing."""
        register = self.registers.get(key)
        if register is None:
            register = self.registers[key] = _never_written(key)
        return register

    def _prepare(self, call: Prepare) -> Reply:
        register = self._register(call.key)
        if call.ballot <= register.promised:
            return Conflict(of=call.to, key=call.key, ballot=call.ballot, promised=register.promised)
        self.revision += 1
        register.promised = call.ballot
        return Promise(
            of=call.to,
            key=call.key,
            ballot=call.ballot,
            accepted=register.accepted,
            value=register.value,
            writes=self.revision,
        )

    def _accept(self, call: Accept) -> Reply:
        register = self._register(call.key)
        if call.ballot < register.promised:
            return Conflict(of=call.to, key=call.key, ballot=call.ballot, promised=register.promised)
        self.revision += 1
        register.content = Content(call.key, call.ballot, call.value)
        register.notice = Notice(call.key, call.ballot, call.owner)
        register.owner, register.circle = call.owner, call.circle
        register.promised = max(call.ballot, call.promise)
        register.revision = self.revision
        self.registers[call.key] = self.registers.pop(call.key)  # what was accepted last stands last
        if self._filed is not None:
            self._filed.accepted(call.key, register)
        return Accepted(of=call.to, key=call.key, ballot=call.ballot, writes=self.revision)

    def _beat(self, call: Beat, clock_us: int) -> Reply:
        lease = self.leases.get(call.session)
        self.leases[call.session] = LeaseSeen(call.session, lease.renewals + 1 if lease else 1, clock_us)
        self._forget_leases(clock_us)
        cluster = self.registers.get(CLUSTER_KEY)
        return BeatAnswer(
            of=call.to,
            session=call.session,
            revision=self.revision,
            cluster=cluster.accepted if cluster else NO_BALLOT,
            clock_us=clock_us,
            leases=tuple(self.leases.values()),
            changed=self._changed(call.since, call.interest) if call.since < self.revision else (),
        )

    def _forget_leases(self, clock_us: int) -> None:
        """Those that nobody has renewed for very long; looked for when there may be one."""
        self._oldest_lease_us = min(self._oldest_lease_us, clock_us)
        if self._oldest_lease_us >= clock_us - LEASE_MEMORY_US:
            return
        self.leases = {
            name: lease for name, lease in self.leases.items() if lease.at_us >= clock_us - LEASE_MEMORY_US
        }
        self._oldest_lease_us = min(lease.at_us for lease in self.leases.values())

    def _changed(self, since: int, interest: str) -> tuple[Notice, ...]:
        if interest == NOTHING:
            return ()
        if interest != EVERYTHING:
            if self._filed is None:
                self._filed = Filed(self.registers)
            keys = self._filed.since(since, interest)
            return tuple([self.registers[key].notice for key in keys])
        found = []
        for register in reversed(self.registers.values()):
            if register.revision > since:
                found.append(register.notice)
            elif register.revision:
                break
        return tuple(reversed(found))
