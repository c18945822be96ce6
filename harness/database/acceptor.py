"""The acceptor: one voter's rules, as the Python twin of `voter.lua`.

One contract test holds both to the same answers. The twin is what the simulated world runs, so it must refuse
exactly what the script refuses. It keeps everything in plain dicts; `wipe` is what an empty disk does.
"""

from dataclasses import dataclass, field

from harness.database.protocol import (
    CLUSTER_KEY,
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
    Refused,
    Reply,
    Retire,
    Retired,
    Why,
)
from harness.model.voter_set import VoterSet

__all__ = ["LEASE_MEMORY_US", "Acceptor"]

LEASE_MEMORY_US = 3600 * 1_000_000
"""A lease that nobody renewed for an hour is forgotten, so that sessions of long ago do not fill the voter."""


@dataclass(slots=True)
class _Register:
    promised: Ballot = NO_BALLOT
    accepted: Ballot = NO_BALLOT
    value: str | None = None
    owner: str = ""
    revision: int = 0


@dataclass(slots=True)
class _Lease:
    renewals: int
    at_us: int


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
    leases: dict[str, _Lease] = field(default_factory=dict)

    def wipe(self) -> None:
        """What an empty disk leaves: nothing."""
        self.rig = self.voter = self.incarnation = self.birth = ""
        self.behind = False
        self.voter_set = None
        self.revision = 0
        self.registers.clear()
        self.leases.clear()

    def handle(self, call: Call, *, clock_us: int) -> Reply:
        """The answer to one call. `clock_us` is the voter's own clock, used for the ages of leases only."""
        asked = call if isinstance(call, Hello) else call.to
        if self.rig and asked.rig != self.rig:
            return self._refuse(call, Why.RIG)
        if self.voter and asked.voter != self.voter:
            return self._refuse(call, Why.VOTER)
        if isinstance(call, (Hello, Form, Admit)):
            return self._introduce(call)
        if not self.incarnation:
            return self._refuse(call, Why.EMPTY)
        if call.to.incarnation != self.incarnation:
            return self._refuse(call, Why.INCARNATION)
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
                register = self.registers.get(call.key, _Register())
                return ReadAnswer(of=call.to, key=call.key, accepted=register.accepted, value=register.value)
            case ReadMany():
                found = ((key, self.registers.get(key, _Register())) for key in call.keys)
                contents = (Content(key=key, accepted=one.accepted, value=one.value) for key, one in found)
                return ReadManyAnswer(of=call.to, contents=tuple(contents))
            case ListKeys():
                return KeysAnswer(of=call.to, keys=tuple(self.registers))

    def _refuse(self, call: Call, why: Why) -> Refused:
        return Refused(of=self._mine(call), why=why, voter_set=self.voter_set)

    def _refusal(self, call: Prepare | Accept | Read | ReadMany | Beat | ListKeys) -> Refused | None:
        """Why this formed voter does not take a call that names its incarnation."""
        if self.behind:
            return self._refuse(call, Why.BEHIND)
        if call.to.set_version != self.set_version:
            return self._refuse(call, Why.SET_VERSION)
        if not isinstance(call, ListKeys) and call.seen > self.revision:
            self.behind = True
            return self._refuse(call, Why.BEHIND)
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
        self.voter_set = VoterSet(version=call.to.set_version, members=dict(call.members))

    def _form(self, call: Form) -> Reply:
        if not self.incarnation:
            self._begin(call)
            return Formed(of=call.to)
        if call.to.incarnation != self.incarnation:
            return self._refuse(call, Why.INCARNATION)
        if call.to.set_version != self.set_version:
            return self._refuse(call, Why.SET_VERSION)
        return Formed(of=call.to)

    def _admit(self, call: Admit) -> Reply:
        if not self.incarnation and self.birth and self.birth == call.to.incarnation:
            self._begin(call)
            return Admitted(of=call.to)
        if call.to.incarnation != self.incarnation:
            return self._refuse(call, Why.INCARNATION)
        return Admitted(of=self._mine(call))

    def _change_set(self, call: Raise | Retire) -> Reply:
        if self.set_version > call.to.set_version:
            return self._refuse(call, Why.SET_VERSION)
        if isinstance(call, Raise):
            if self.set_version < call.to.set_version:
                self.revision += 1
                self.voter_set = VoterSet(version=call.to.set_version, members=dict(call.members))
            return Raised(of=call.to)
        if call.members.get(call.to.voter) == self.incarnation:
            return self._refuse(call, Why.MEMBER)
        self.wipe()
        self.birth = call.birth
        empty = Address(rig=call.to.rig, voter=call.to.voter, incarnation="", set_version=0)
        return Retired(of=empty, birth=call.birth)

    # Rounds

    def _prepare(self, call: Prepare) -> Reply:
        register = self.registers.setdefault(call.key, _Register())
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
        register = self.registers.setdefault(call.key, _Register())
        if call.ballot < register.promised:
            return Conflict(of=call.to, key=call.key, ballot=call.ballot, promised=register.promised)
        self.revision += 1
        register.accepted = call.ballot
        register.value = call.value
        register.owner = call.owner
        register.promised = max(call.ballot, call.promise)
        register.revision = self.revision
        self.registers[call.key] = self.registers.pop(call.key)  # what was accepted last stands last
        return Accepted(of=call.to, key=call.key, ballot=call.ballot, writes=self.revision)

    def _beat(self, call: Beat, clock_us: int) -> Reply:
        lease = self.leases.get(call.session)
        if lease is None:
            lease = self.leases[call.session] = _Lease(0, clock_us)
        lease.renewals += 1
        lease.at_us = clock_us
        oldest_us = clock_us - LEASE_MEMORY_US
        seen = [
            LeaseSeen(name, lease.renewals, clock_us - lease.at_us)
            for name, lease in self.leases.items()
            if lease.at_us >= oldest_us
        ]
        if len(seen) < len(self.leases):
            self.leases = {lease.session: self.leases[lease.session] for lease in seen}
        cluster = self.registers.get(CLUSTER_KEY)
        return BeatAnswer(
            of=call.to,
            session=call.session,
            revision=self.revision,
            cluster=cluster.accepted if cluster else NO_BALLOT,
            leases=tuple(seen),
            changed=self._changed(call.since) if call.since < self.revision else (),
        )

    def _changed(self, since: int) -> tuple[Notice, ...]:
        found = []
        for key, register in reversed(self.registers.items()):
            if register.revision > since:
                found.append(Notice(key, register.accepted, register.owner))
            elif register.revision:
                break
        return tuple(reversed(found))
