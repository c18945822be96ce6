"""Broken clusters, continued: rules of the managers, of the lease and of the database, each weakened alone.

Like those of `plants`, they exist only as compositions of a simulated world.
"""

from dataclasses import replace
from typing import Any

from harness.cluster_service.core.messages import Action, ChangeRegister, Event, PetWatchdog
from harness.cluster_service.membership.lease import LeaseView
from harness.cluster_service.membership.node import NodeManager
from harness.cluster_service.placement.failover import FailoverManager
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.cluster_service.resources.resource_facts import GroupFacts
from harness.database.acceptor import Acceptor
from harness.database.protocol import Accept, Admit, Call, Form, Hello, Prepare, Read, Reply
from harness.model.changes import Claim, Record, Refusal
from harness.model.records import GroupRecord
from harness.model.session import Session
from harness.model.topology import Fencing, ResourceSpec
from harness.model.voter_set import VoterSet
from harness.ports import Hypervisor
from harness.simulation.plants import Plant, service_of

__all__ = ["PLANTS_OF_RULES", "RemembersItsSet"]

# Fencing and owners


class NothingIsFenced(Plant):
    """A Down session is said to be fenced, and nothing was done to it (design, section 4)."""

    async def fence(self, hypervisor: Hypervisor, session: Session, not_after_us: int) -> None:
        del hypervisor, session, not_after_us


class _ClaimsWhatever(Claim):
    def apply(self, record: Record | None) -> Record | Refusal:
        if isinstance(record, GroupRecord) and record.owner != self.claimant:
            return super().apply(replace(record, owner=self.owner, epoch=self.epoch))
        return super().apply(record)


class _ClaimsAnyOwner(FailoverManager):
    def _claim_orphans(self, now: int) -> list[Action]:
        return [
            replace(action, change=_ClaimsWhatever(**_fields(action.change)))
            if isinstance(action, ChangeRegister) and isinstance(action.change, Claim)
            else action
            for action in super()._claim_orphans(now)
        ]


def _fields(claim: Claim) -> dict[str, Any]:
    return {"claimant": claim.claimant, "owner": claim.owner, "epoch": claim.epoch}


class ClaimWithoutTheEpoch(Plant):
    """A claim succeeds whoever owns the group by then, and under whichever epoch (finding 1)."""

    service = service_of("failover", _ClaimsAnyOwner)


# Resource control


class _StartsDependentsFirst(ResourceControlManager):
    def _next_for(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        return super()._next_for(now, facts, replace(spec, depends_on=()))


class DependentsFirst(Plant):
    """A VM is started although nothing that it depends on is Online (the rules of the cluster, section 4)."""

    service = service_of("resource_control", _StartsDependentsFirst)


class _WantsAll(ResourceControlManager):
    def seen(self, record: GroupRecord) -> list[Action]:
        return super().seen(replace(record, persistent=dict.fromkeys(record.persistent, True)))


class PersistentStateIsIgnored(Plant):
    """Whatever a group has is brought Online on its new owner, wanted or not (the rules of the cluster, section 5)."""

    service = service_of("resource_control", _WantsAll)


# Leases


class _OneVoterIsEnough(LeaseView):
    def _reckon_end(self) -> int | None:
        counted = [voter.counted_us for voter in self._voters.values() if voter.counted_us is not None]
        return max(counted) + self.lease_us if counted else None


class _LeaseOfOneVoter(NodeManager):
    def handle(self, now: int, event: Event) -> list[Action]:
        actions = super().handle(now, event)
        if self._leases is not None:
            self._leases.__class__ = _OneVoterIsEnough
        return actions


class MinorityKeepsItsLease(Plant):
    """A lease lives as long as any one voter renews it, so a minority goes on (design, section 4)."""

    fencing = Fencing.SELF
    service = service_of("node", _LeaseOfOneVoter)


class _PetsLate(NodeManager):
    def handle(self, now: int, event: Event) -> list[Action]:
        return [
            self._later(action) if isinstance(action, PetWatchdog) else action for action in super().handle(now, event)
        ]

    def _later(self, pet: PetWatchdog) -> PetWatchdog:
        late_us = self._settings.beat_us
        if not pet.guests_end_us:
            return pet
        return replace(pet, guests_end_us=pet.guests_end_us + late_us, node_ends_us=pet.node_ends_us + late_us)


class SelfFencingIsLate(Plant):
    """PID 1 is told to end the guests one beat after the lease (finding 12 d)."""

    fencing = Fencing.SELF
    service = service_of("node", _PetsLate)


# The database


class RemembersItsSet(Acceptor):
    """Takes on its old name with certain calls although it has lost its disk, as a server without a script would."""

    _members: dict[str, str] = {}

    def takes_on(self, call: Call) -> bool:
        """Whether, empty, it takes on its name with that call."""
        return not isinstance(call, Hello | Form | Admit)

    def handle(self, call: Call, *, clock_us: int) -> Reply:
        if not self.incarnation and self._members and not isinstance(call, Hello) and self.takes_on(call):
            self.rig, self.voter, self.incarnation = call.to.rig, call.to.voter, call.to.incarnation
            self.birth = self.incarnation
            self.voter_set = VoterSet(version=call.to.set_version, members=dict(self._members))
        reply = super().handle(call, clock_us=clock_us)
        if self.voter_set is not None:
            self._members = dict(self.voter_set.members)
        return reply


class AnEmptyVoterVotes(Plant):
    """A voter that has lost its disk votes on under its old name (finding 5)."""

    def acceptor(self) -> Acceptor:
        return RemembersItsSet()


class _PromisesNothing(Acceptor):
    """Forgets its promises: an accept of an older round is taken as well."""

    def handle(self, call: Call, *, clock_us: int) -> Reply:
        if isinstance(call, Accept | Prepare | Read):
            for register in self.registers.values():
                register.promised = register.accepted
        return super().handle(call, clock_us=clock_us)


class PromisesAreForgotten(Plant):
    """A voter accepts a round although it has promised a later one (CASPaxos; design, section 3)."""

    def acceptor(self) -> Acceptor:
        return _PromisesNothing()


PLANTS_OF_RULES: tuple[type[Plant], ...] = (
    NothingIsFenced,
    ClaimWithoutTheEpoch,
    DependentsFirst,
    PersistentStateIsIgnored,
    MinorityKeepsItsLease,
    SelfFencingIsLate,
    AnEmptyVoterVotes,
    PromisesAreForgotten,
)
