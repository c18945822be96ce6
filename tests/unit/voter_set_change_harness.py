"""Proposers, voters and one who carries changes of the voter set through, with every message at the mercy of a seed.

A thousand times cheaper than a seeded world, and nearer to the rules: no leases, no nodes, one register. A message is
carried when it is drawn, however late, or lost; a driver may begin anew at any moment; a voter may lose its disk.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from harness.database.acceptor import Acceptor
from harness.database.proposer import Proposer, Result, Send
from harness.database.protocol import Address, Call, Form, Hello, HelloAnswer, Refused, Reply
from harness.database.register import JsonCodec
from harness.database.voter_set_change import VoterSetChange
from harness.model.changes import CreateRegister, RecordRestart
from harness.model.records import GroupRecord
from harness.model.session import Session
from harness.model.topology import GroupSpec, ResourceSpec
from harness.model.voter_set import VoterSet
from harness.simulation.invariants.starts import ChosenValueOracle

__all__ = ["RIG", "Run", "SetBench"]

RIG = "rig"
KEY = "group/web"
OWNER = Session("node1", "c0ffee", "1")
STEPS = 600
CHANGES = 10
WEATHER_STEPS = 40
"""How long a cut lasts."""
PAUSES_US = (*(0,) * 15, 500, 1_000, 30_000)
"""Mostly nothing: what is late is late by other messages, and few rounds end by their limit."""


def first_record() -> GroupRecord:
    spec = GroupSpec(name="web", resources=(ResourceSpec(name="vm", type="virtual-machine"),))
    return GroupRecord(spec=spec, owner=OWNER, epoch=1, persistent={"vm": True})


def append(name: str) -> RecordRestart:
    return RecordRestart(session=OWNER, epoch=1, resource="vm", failure=name, at_us=0, period_us=10**12)


@dataclass(frozen=True)
class Run:
    """What came of one seed: what was acknowledged, what the register holds at last, what the watcher told."""

    acknowledged: frozenset[str]
    final: tuple[str, ...]
    violations: tuple[str, ...]
    version: int

    @property
    def broken(self) -> bool:
        return bool(self.violations) or not self.acknowledged <= set(self.final)


@dataclass
class SetBench:
    """`path` gives the next set from the one that is settled, None when there is nothing to change. `wipes` names the
    voters that may lose their disk, once each, while the others are whole.
    """

    rng: random.Random
    members: dict[str, str]
    path: Callable[["SetBench", VoterSet], VoterSet | None]
    wipes: tuple[str, ...] = ()
    acceptor: Callable[[], Acceptor] = Acceptor
    change: type[VoterSetChange] = VoterSetChange
    after_wipe: Callable[["SetBench", str], None] = field(default=lambda _bench, _voter: None)
    now: int = 0

    def __post_init__(self) -> None:
        self.violations: list[str] = []
        self.chosen = ChosenValueOracle(codec=JsonCodec(), now=lambda: 0, told=self.violations.append)
        self.voters: dict[str, Acceptor] = {}
        self.settled = VoterSet(version=1, members=self.members)
        self.pending: VoterSet | None = None
        self._driving: VoterSetChange | None = None
        self._numbers = iter(range(1, 10**9))
        self._pool: list[tuple[Any, ...]] = []
        self._hurt: list[str] = list(self.wipes)
        self._loss = self.rng.choice((0.0, 0.03, 0.15))
        self._cut = self.rng.choice((0.0, 0.2, 0.35))
        self._cuts: dict[tuple[object, str], bool] = {}
        self._steps = self._weather = 0
        for name, incarnation in self.members.items():
            to = Address(rig=RIG, voter=name, incarnation=incarnation, set_version=1)
            self.carry(name, Form(to=to, members=self.members))

    def carry(self, voter: str, call: Call) -> Reply:
        """The voter takes the call now."""
        acceptor = self.voters.setdefault(voter, self.acceptor())
        reply = acceptor.handle(call, clock_us=self.now)
        self.chosen.saw(SimpleNamespace(node=voter), call, reply)  # type: ignore[arg-type]
        return reply

    def proposer(self, identity: str, voter_set: VoterSet | None = None) -> Proposer:
        return Proposer(
            identity=identity,
            rig=RIG,
            voter_set=voter_set or self.settled,
            codec=JsonCodec(),
            jitter=lambda: 0.5,
            numbers=lambda: next(self._numbers),
        )

    def birth_of(self, voter: str) -> str:
        """The name of that voter's empty life; empty when it has a disk."""
        answer = self.carry(voter, Hello(rig=RIG, voter=voter, birth=f"b{next(self._numbers)}"))
        assert isinstance(answer, HelloAnswer)
        return answer.birth if not answer.incarnation else ""

    def lost(self, voter_set: VoterSet) -> str:
        """A member that has lost its disk; empty when there is none."""
        gone = (name for name, life in voter_set.members.items() if self.voters[name].incarnation != life)
        return next(gone, "")

    # One seed

    def run(self) -> Run:
        init = self.proposer("init")
        init.change(0, operation=1, key=KEY, change=CreateRegister(first=first_record()), limit_us=10**6)
        self._carry_all(init)
        driver = self.proposer("driver")
        workers = [self.proposer("a"), self.proposer("b")]
        for worker in workers:
            worker._highest[KEY] = self.rng.choice((0, 0, 30))  # one may have tried in vain for long
        acknowledged: set[str] = set()
        issued = 0
        for _ in range(STEPS):
            self._steps += 1
            self.now += self.rng.choice(PAUSES_US)
            worker = self.rng.choice(workers)
            if issued < CHANGES and not worker.busy(KEY) and self.rng.random() < 0.3:
                issued += 1
                worker.change(self.now, operation=issued, key=KEY, change=append(f"f{issued}"), limit_us=400_000)
            self._wipe_sometimes()
            self._drive(driver)
            self._carry_one()
            for one in (*workers, driver):
                one.tick(self.now)
                self._pool += [("call", one, send) for send in one.sends]
                one.sends.clear()
            for one in workers:
                acknowledged |= {f"f{end.operation}" for end in one.settlements if end.result is Result.DONE}
                one.settlements.clear()
        return Run(frozenset(acknowledged), self._final(), tuple(self.violations), self.settled.version)

    def _wipe_sometimes(self) -> None:
        if not self._hurt or self.rng.random() > 0.02:
            return
        voter = self._hurt[0]
        sets = [self.settled] if self.pending is None else [self.settled, self.pending]
        for voter_set in sets:
            whole = [
                name for name, life in voter_set.members.items() if name != voter and self._has_disk(name, life)
            ]
            if len(whole) < voter_set.majority:
                return
        self._hurt.pop(0)
        self.voters[voter].wipe()
        self.after_wipe(self, voter)

    def _has_disk(self, name: str, life: str) -> bool:
        return name in self.voters and self.voters[name].incarnation == life

    def _drive(self, driver: Proposer) -> None:
        """What the Voter Set Manager does, with the register's part of it left out."""
        if self.pending is None:
            self.pending = self.path(self, self.settled)
            self._driving = None
        if self.pending is None:
            return
        if self._driving is None or self.rng.random() < 0.01:
            self._driving = self.change(
                rig=RIG, old=self.settled, new=self.pending, keys=(KEY,), numbers=lambda: next(self._numbers)
            )
        for send in self._driving.due(self.now):
            self._pool.append(("drive", self._driving, send))
        if self._driving.raised:
            driver.adopt(self.now, self.pending)
        if driver.voter_set == self.pending and self._driving.unwritten and not driver.busy(KEY):
            driver.read(self.now, operation=next(self._numbers), key=KEY, limit_us=400_000, identity=True)
        for end in driver.settlements:
            if end.result is Result.DONE and driver.voter_set == self.pending:
                self._driving.rewritten(end.key)
        driver.settlements.clear()
        if self._driving.complete:
            self.settled, self.pending = self.pending, None

    def _carry_one(self) -> None:
        if not self._pool:
            return
        # Mostly what is new: what is left behind comes very late, which is what rules are for.
        first = max(0, len(self._pool) - 6) if self.rng.random() < 0.8 else 0
        kind, who, thing = self._pool.pop(self.rng.randrange(first, len(self._pool)))
        if kind in ("call", "drive"):
            send: Send = thing
            if self._cut_off(who if kind == "call" else "driver", send.voter):
                self._pool.insert(0, (kind, who, thing))
                return
            if self.rng.random() > self._loss:
                reply = self.carry(send.voter, send.call)
                if self.rng.random() > self._loss:
                    self._pool.append((f"{kind} reply", who, (send, reply)))
                    return
            who.failed(send.number) if kind == "drive" else who.failed(self.now, send.number, send.voter)
            return
        send, reply = thing
        if kind == "drive reply":
            who.answered(send.number, reply)
            return
        told = reply.voter_set if isinstance(reply, Refused) else None
        if told is not None and told.version > who.voter_set.version:
            who.adopt(self.now, told)
        who.answered(self.now, send.number, reply)

    def _cut_off(self, who: object, voter: str) -> bool:
        """Whether that voter is out of that sender's reach just now: so the senders see different majorities."""
        weather = self._steps // WEATHER_STEPS
        if weather != self._weather:
            self._weather = weather
            self._cuts.clear()
        key = ("driver" if who == "driver" else id(who), voter)
        if key not in self._cuts:
            self._cuts[key] = self.rng.random() < self._cut
        return self._cuts[key]

    # The end

    def _final(self) -> tuple[str, ...]:
        """What the register holds once everything that was under way is lost and every change was carried through."""
        self._pool.clear()
        newest = max((voter.voter_set for voter in self.voters.values() if voter.voter_set is not None), key=_version)
        for name, life in newest.members.items():
            if self._has_disk(name, life):
                self.voters[name].voter_set = newest
        last = self.proposer("last", newest)
        last.read(self.now, operation=1, key=KEY, limit_us=10**7)
        self._carry_all(last)
        stored = last.settlements[0].stored
        if stored is None:
            return ()
        assert isinstance(stored.record, GroupRecord)
        return tuple(entry.failure for entry in stored.record.restarts)

    def _carry_all(self, proposer: Proposer) -> None:
        for _ in range(200):
            while proposer.sends:
                send = proposer.sends.pop(0)
                proposer.answered(self.now, send.number, self.carry(send.voter, send.call))
            if proposer.settlements:
                return
            self.now = max(self.now, proposer.next_wake() or self.now)
            proposer.tick(self.now)
        raise AssertionError("the operation did not end")


def _version(voter_set: VoterSet) -> int:
    return voter_set.version
