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
    Ballot,
    Beat,
    BeatAnswer,
    Call,
    Conflict,
    Form,
    Formed,
    Hello,
    HelloAnswer,
    LeaseSeen,
    Prepare,
    Promise,
    Read,
    ReadAnswer,
    Refused,
    Reply,
    VoterSet,
    Why,
)

__all__ = ["LEASE_MEMORY_US", "Acceptor"]

LEASE_MEMORY_US = 3600 * 1_000_000
"""A lease that nobody renewed for an hour is forgotten, so that sessions of long ago do not fill the voter."""


@dataclass(slots=True)
class _Register:
    promised: Ballot = NO_BALLOT
    accepted: Ballot = NO_BALLOT
    value: str | None = None
    revision: int = 0


@dataclass(slots=True)
class _Lease:
    renewals: int
    at_us: int


@dataclass(slots=True)
class Acceptor:
    """One voter. Until it is formed it knows nothing, not even its own name, and votes on nothing."""

    rig: str = ""
    voter: str = ""
    incarnation: str = ""
    voter_set: VoterSet | None = None
    revision: int = 0
    registers: dict[str, _Register] = field(default_factory=dict)
    leases: dict[str, _Lease] = field(default_factory=dict)

    def wipe(self) -> None:
        """What an empty disk leaves: nothing."""
        self.rig = self.voter = self.incarnation = ""
        self.voter_set = None
        self.revision = 0
        self.registers.clear()
        self.leases.clear()

    def handle(self, call: Call, *, clock_us: int) -> Reply:
        """The answer to one call. `clock_us` is the voter's own clock, used for the ages of leases only."""
        rig, voter = (call.rig, call.voter) if isinstance(call, Hello) else (call.to.rig, call.to.voter)
        mine = Address(
            rig=self.rig or rig,
            voter=self.voter or voter,
            incarnation=self.incarnation,
            set_version=self.voter_set.version if self.voter_set else 0,
        )
        if rig != mine.rig:
            return Refused(of=mine, why=Why.RIG)
        if voter != mine.voter:
            return Refused(of=mine, why=Why.VOTER)
        if isinstance(call, Hello):
            incarnation, voter_set = self.incarnation, self.voter_set
            return HelloAnswer(rig=rig, voter=voter, incarnation=incarnation, voter_set=voter_set)
        refusal = self._refusal(call.to, mine, forming=isinstance(call, Form))
        if refusal is not None:
            return refusal
        match call:
            case Prepare():
                return self._prepare(call)
            case Accept():
                return self._accept(call)
            case Read():
                register = self.registers.get(call.key, _Register())
                return ReadAnswer(of=call.to, key=call.key, accepted=register.accepted, value=register.value)
            case Beat():
                return self._beat(call, clock_us)
            case Form():
                return self._form(call)

    def _refusal(self, to: Address, mine: Address, *, forming: bool) -> Refused | None:
        if not self.incarnation:
            return None if forming else Refused(of=mine, why=Why.EMPTY)
        if to.incarnation != self.incarnation:
            return Refused(of=mine, why=Why.INCARNATION)
        if to.set_version != mine.set_version:
            return Refused(of=mine, why=Why.SET_VERSION)
        return None

    def _form(self, call: Form) -> Reply:
        if not self.incarnation:
            self.rig, self.voter, self.incarnation = call.to.rig, call.to.voter, call.to.incarnation
            self.voter_set = VoterSet(version=call.to.set_version, members=dict(call.members))
        return Formed(of=call.to)

    def _prepare(self, call: Prepare) -> Reply:
        register = self.registers.setdefault(call.key, _Register())
        if call.ballot <= register.promised:
            return Conflict(of=call.to, key=call.key, ballot=call.ballot, promised=register.promised)
        register.promised = call.ballot
        return Promise(
            of=call.to, key=call.key, ballot=call.ballot, accepted=register.accepted, value=register.value
        )

    def _accept(self, call: Accept) -> Reply:
        register = self.registers.setdefault(call.key, _Register())
        if call.ballot < register.promised:
            return Conflict(of=call.to, key=call.key, ballot=call.ballot, promised=register.promised)
        self.revision += 1
        register.accepted = call.ballot
        register.value = call.value
        register.promised = max(call.ballot, call.promise)
        register.revision = self.revision
        return Accepted(of=call.to, key=call.key, ballot=call.ballot)

    def _beat(self, call: Beat, clock_us: int) -> Reply:
        old = self.leases.get(call.session)
        self.leases[call.session] = _Lease(old.renewals + 1 if old else 1, clock_us)
        for session in [name for name, lease in self.leases.items() if clock_us - lease.at_us > LEASE_MEMORY_US]:
            del self.leases[session]
        cluster = self.registers.get(CLUSTER_KEY)
        return BeatAnswer(
            of=call.to,
            session=call.session,
            revision=self.revision,
            cluster=cluster.accepted if cluster else NO_BALLOT,
            leases=tuple(
                LeaseSeen(session=name, renewals=lease.renewals, age_us=clock_us - lease.at_us)
                for name, lease in self.leases.items()
            ),
            changed=tuple(
                (key, register.accepted)
                for key, register in self.registers.items()
                if register.revision > call.since
            ),
        )
