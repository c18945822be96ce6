"""The Database Manager: what it tells of a register while nobody knows whether a change of it was made."""

import pytest

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import (
    CallVoter,
    ChangeRegister,
    ChangeSettled,
    Event,
    ReadRegister,
    RegisterSeen,
    Tick,
    VoterAnswered,
    VoterFailed,
)
from harness.cluster_service.database import OPERATION_LIMIT_US, DatabaseManager
from harness.database.acceptor import Acceptor
from harness.database.proposer import Result
from harness.database.protocol import Accept, Address, Form, WriteCounts
from harness.database.register import JsonCodec
from harness.model.administrative_changes import RequestState
from harness.model.changes import CreateRegister
from harness.model.records import GroupRecord
from harness.model.session import Session
from harness.model.topology import GroupSpec, ResourceSpec

VOTERS = ("v1", "v2", "v3")
KEY = "group/web"


class Voters:
    """Three voters with one manager; accepts are kept back while `hold` says so, and reach the voters later."""

    def __init__(self) -> None:
        members = {name: f"{name}-1" for name in VOTERS}
        self.acceptors = {name: Acceptor() for name in VOTERS}
        for name, acceptor in self.acceptors.items():
            to = Address(rig="r", voter=name, incarnation=members[name], set_version=1)
            acceptor.handle(Form(to=to, members=members), clock_us=0)
        self.generation = 0
        self.accepts = 0
        self.numbers = Ids()
        self.now = 0
        self.renew_manager()
        self.hold = False
        self.late: list[CallVoter] = []
        self.told: list[Event] = []

    def renew_manager(self) -> None:
        """The managers of node1 are thrown away and built anew; what the old ones have sent may still arrive."""
        self.generation += 1
        self.manager = DatabaseManager(
            identity=f"me.{self.generation}",
            node="node1",
            rig="r",
            voters=VOTERS,
            codec=JsonCodec(),
            jitter=lambda: 0.0,
            numbers=self.numbers.next,
            writes=WriteCounts(),
        )

    def step(self, event: Event | None = None) -> None:
        """One fact, and everything that follows from it at this moment."""
        if event is not None:
            self.manager.handle(self.now, event)
        events, calls = self.manager.collect(self.now)
        self.told += events
        for call in calls:
            if isinstance(call, CallVoter):
                self.step(self._carry_out(call))

    def _carry_out(self, call: CallVoter) -> Event:
        if self.hold and isinstance(call.call, Accept):
            self.late.append(call)
            return VoterFailed(number=call.number, voter=call.voter)
        self.accepts += isinstance(call.call, Accept)
        reply = self.acceptors[call.voter].handle(call.call, clock_us=self.now)
        return VoterAnswered(number=call.number, voter=call.voter, reply=reply)

    def run(self, duration_us: int) -> None:
        end = self.now + duration_us
        while self.now < end:
            self.now += 50_000
            self.step(Tick())

    def run_until_converged(self) -> None:
        self.run(OPERATION_LIMIT_US - 200_000)
        while not any(isinstance(event, ChangeSettled) for event in self.told):
            self.now += 50_000
            self.step(Tick())

    def late_accepts_arrive(self) -> None:
        for call in self.late:
            self.acceptors[call.voter].handle(call.call, clock_us=self.now)
        self.late.clear()


def seen(voters: Voters) -> list[bool]:
    """The PersistentState in each content that was told."""
    return [
        event.record.persistent["vm"]
        for event in voters.told
        if isinstance(event, RegisterSeen) and isinstance(event.record, GroupRecord)
    ]


def settled(voters: Voters) -> list[Result]:
    return [event.result for event in voters.told if isinstance(event, ChangeSettled)]


def a_group(voters: Voters, owner: Session | None = None) -> GroupRecord:
    spec = GroupSpec(name="web", resources=(ResourceSpec(name="vm", type="virtual-machine"),))
    first = GroupRecord(spec=spec, owner=owner, epoch=0, persistent={"vm": True})
    voters.step()
    voters.manager.ask(0, ChangeRegister(id=1, key=KEY, change=CreateRegister(first=first)))
    voters.step()
    voters.told.clear()
    return first


def turn_off(group: GroupRecord) -> RequestState:
    return RequestState(owner=group.owner, epoch=0, resource=None, wanted=False)


def assert_nothing_told_was_overtaken(voters: Voters) -> None:
    """What was told is what the voters hold in the end."""
    told = seen(voters)
    voters.manager.ask(voters.now, ReadRegister(KEY))
    voters.step()
    assert set(told) == {seen(voters)[-1]}


def test_a_read_that_waited_behind_an_unknown_change_tells_nothing_that_may_be_overtaken() -> None:
    voters = Voters()
    group = a_group(voters)
    voters.hold = True
    voters.manager.ask(voters.now, ChangeRegister(id=2, key=KEY, change=turn_off(group)))
    voters.manager.ask(voters.now, ReadRegister(KEY))
    voters.step()
    voters.run_until_converged()
    told_before = seen(voters)

    voters.hold = False
    voters.late_accepts_arrive()
    voters.run(1_000_000)

    assert settled(voters) == [Result.UNKNOWN]
    assert told_before == []
    assert_nothing_told_was_overtaken(voters)


def test_a_refusal_while_a_change_is_in_doubt_is_told_after_the_doubt_has_ended() -> None:
    voters = Voters()
    group = a_group(voters)
    somebody = Session(node="node9", container="c", started="s")
    voters.hold = True
    voters.manager.ask(voters.now, ChangeRegister(id=2, key=KEY, change=turn_off(group)))
    refused = RequestState(owner=somebody, epoch=0, resource=None, wanted=False)
    voters.manager.ask(voters.now, ChangeRegister(id=3, key=KEY, change=refused))
    voters.step()
    voters.run_until_converged()
    voters.run(500_000)
    told_in_doubt = (settled(voters), seen(voters))

    voters.hold = False
    voters.late_accepts_arrive()
    voters.run(1_000_000)

    assert told_in_doubt == ([Result.UNKNOWN], [])
    assert settled(voters) == [Result.UNKNOWN, Result.REFUSED]
    assert_nothing_told_was_overtaken(voters)


def test_new_managers_tell_nothing_of_an_own_group_that_a_change_of_the_old_ones_may_overtake() -> None:
    voters = Voters()
    group = a_group(voters, owner=Session(node="node1", container="c", started="s"))
    voters.hold = True
    voters.manager.ask(voters.now, ChangeRegister(id=2, key=KEY, change=turn_off(group)))
    voters.step()

    voters.hold = False
    voters.renew_manager()
    voters.step()
    voters.manager.ask(voters.now, ReadRegister(KEY))
    voters.step()
    voters.late_accepts_arrive()
    voters.run(1_000_000)

    assert seen(voters) != []
    assert_nothing_told_was_overtaken(voters)


def test_new_managers_read_a_group_of_another_node_without_writing() -> None:
    voters = Voters()
    a_group(voters, owner=Session(node="node2", container="c", started="s"))
    voters.renew_manager()
    voters.step()
    accepted_before = voters.accepts

    voters.manager.ask(voters.now, ReadRegister(KEY))
    voters.step()

    assert seen(voters) == [True]
    assert voters.accepts == accepted_before


@pytest.mark.parametrize(("anew", "reads"), [(False, 1), (True, 2)])
def test_what_is_being_read_is_read_once_more_when_that_is_asked_for(anew: bool, reads: int) -> None:
    voters = Voters()
    voters.run(100_000)
    sent: list[CallVoter] = []
    voters.manager.ask(voters.now, ReadRegister(KEY))
    sent += voters.manager.collect(voters.now)[1]

    voters.manager.ask(voters.now, ReadRegister(KEY, anew=anew))
    for call in sent:
        voters.step(voters._carry_out(call))

    told = [event for event in voters.told if isinstance(event, RegisterSeen) and event.key == KEY]
    assert len(told) == reads
