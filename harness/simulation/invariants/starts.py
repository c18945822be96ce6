"""Watchers of a simulated world: fed with every event, never sampled; they know what nobody inside can know.

- One instance: among all containers of a VM, at most one main process is alive at any moment of the kernel's
  truth.
- Chosen values: a ballot carries one value; what a majority of the voter set of a version has accepted under that
  version is built upon by everything that is chosen later, so that no acknowledged change is lost.
- Owners: the epoch grows by one with each change of owner.
- Starts: none is ordered of a VM whose PersistentState is 0, nor on a node that has been Paused for longer than
  the node can have missed, nor before what the VM depends on is there, nor by a session whose lease has ended in
  truth, which is what a minority's has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from harness.database.protocol import (
    Accept,
    Accepted,
    Admit,
    Ballot,
    Beat,
    BeatAnswer,
    Call,
    Form,
    Raise,
    Refused,
    Reply,
)
from harness.database.register import Codec, Stored
from harness.model import labels as label
from harness.model.changes import Record
from harness.model.records import ClusterRecord, GroupRecord
from harness.model.register_keys import group_key
from harness.model.topology import Topology
from harness.model.voter_set import VoterSet
from harness.simulation.twins.container import SimulatedContainer
from harness.simulation.twins.voters import SimulatedVoter

__all__ = [
    "AtMostOneInstance",
    "ChosenValueOracle",
    "ClusterRegisterMonitor",
    "GroupRegisterMonitor",
    "LeaseOracle",
    "OrderedStarts",
    "PausedNodes",
    "ProvidersFirst",
    "Violation",
]


class Violation(AssertionError):
    """An invariant broke. The text says which, and what was seen."""


class AtMostOneInstance:
    """Hook its methods to the engine's starts and ends. `foreign` names containers that somebody starts by hand: what
    runs in them until its end is not the cluster's.
    """

    def __init__(self, *, told: Callable[[str], None]) -> None:
        self.foreign: set[str] = set()
        self._alive: dict[str, list[SimulatedContainer]] = {}
        self._told = told

    def started(self, box: SimulatedContainer, at_us: int) -> None:
        """A container's main process runs."""
        vm = box.vm
        if not vm or box.id in self.foreign:
            return
        alive = self._alive.setdefault(vm, [])
        alive.append(box)
        if len(alive) > 1:
            where = " and ".join(f"{one.node} ({one.name}, since {one.started_us / 1e6:.6f} s)" for one in alive)
            self._told(f"VM {vm} runs twice at {at_us / 1e6:.6f} s: on {where}")

    def ended(self, box: SimulatedContainer, at_us: int) -> None:
        """A container's main process is gone."""
        del at_us
        self.foreign.discard(box.id)
        alive = self._alive.get(box.vm, [])
        if box in alive:
            alive.remove(box)

    def vms_running(self) -> int:
        """How many VMs have something alive."""
        return sum(map(bool, self._alive.values()))

    def running(self, vm: str) -> list[SimulatedContainer]:
        """What is alive of a VM right now."""
        return list(self._alive.get(vm, []))


class GroupRegisterMonitor:
    """A watcher of changes of groups. Hook `chose` to the chosen values."""

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        before, after = older.record, newer.record
        if isinstance(before, GroupRecord) and isinstance(after, GroupRecord):
            self.changed(key, before, after)

    def changed(self, key: str, before: GroupRecord, after: GroupRecord) -> None:
        """A group's register has a newer content."""
        raise NotImplementedError


class ClusterRegisterMonitor:
    """A watcher of changes of the cluster's register. Hook `chose` to the chosen values."""

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        before, after = older.record, newer.record
        if isinstance(before, ClusterRecord) and isinstance(after, ClusterRecord):
            self.changed(key, before, after)

    def changed(self, key: str, before: ClusterRecord, after: ClusterRecord) -> None:
        """The cluster's register has a newer content."""
        raise NotImplementedError


PROPOSALS_KEPT = 64
"""Of each register, by their texts, that were proposed last."""


@dataclass(slots=True)
class _Register:
    proposed: dict[str, tuple[int, str]] = field(default_factory=dict)
    accepted_by: dict[tuple[Ballot, int], set[str]] = field(default_factory=dict)
    values: dict[Ballot, str] = field(default_factory=dict)
    chosen: dict[Ballot, Stored] = field(default_factory=dict)
    newest: Stored | None = None


_TELL_A_SET = (Form, Raise, Admit)


class ChosenValueOracle:
    """Hook `saw` to every voter, for what it `HEARS`, and `proposed` to what is sent to it. It learns the sets of
    voters from the calls that tell them. While `on_chosen` is told of a content, `proposed_us` and `proposed_by` are
    when that was proposed first, and by which node: it may be chosen long after, by whoever finds it.
    """

    HEARS: ClassVar[tuple[type[Call], ...]] = (Accept, *_TELL_A_SET)

    def __init__(self, *, codec: Codec, now: Callable[[], int], told: Callable[[str], None]) -> None:
        self.sets: dict[int, VoterSet] = {}
        self.proposed_us = 0
        self.proposed_by = ""
        self._now = now
        self._codec = codec
        self._told = told
        self._registers: dict[str, _Register] = {}
        self.on_chosen: list[Callable[[str, Stored, Stored], None]] = []

    def newest(self, key: str) -> Record | None:
        """What that register holds in truth."""
        register = self._registers.get(key)
        return register.newest.record if register is not None and register.newest is not None else None

    def newest_version(self, key: str) -> int:
        """The version of what that register holds in truth; 0 for nothing."""
        register = self._registers.get(key)
        return register.newest.version if register is not None and register.newest is not None else 0

    def saw(self, voter: SimulatedVoter, call: Call, reply: Reply) -> None:
        """A voter carried a call out."""
        if isinstance(call, _TELL_A_SET) and not isinstance(reply, Refused):
            self._learn_set(VoterSet(version=call.to.set_version, members=dict(call.members)))
        if not isinstance(call, Accept) or not isinstance(reply, Accepted):
            return
        register = self._register(call.key)
        known = register.values.setdefault(call.ballot, call.value)
        if known != call.value:
            self._told(f"register {call.key}: ballot {call.ballot} carries two values")
            return
        voter_set = self.sets.get(call.to.set_version)
        if voter_set is None or not voter_set.has(voter.node, call.to.incarnation):
            return
        round_of_set = (call.ballot, voter_set.version)
        voters = register.accepted_by.get(round_of_set)
        if voters is None:
            voters = register.accepted_by[round_of_set] = set()
        before = len(voters)
        voters.add(voter.node)
        if before < len(voters) == voter_set.majority:
            proposed = register.proposed.get(call.value) or (self._now(), call.ballot.proposer)
            self.proposed_us, self.proposed_by = proposed[0], proposed[1].partition(".")[0]
            self._choose(call.key, register, call.ballot, self._codec.decode(call.value))

    def proposed(self, call: Accept) -> None:
        """Somebody has sent that to a voter."""
        proposed = self._register(call.key).proposed
        if call.value not in proposed:
            proposed[call.value] = self._now(), call.ballot.proposer
            if len(proposed) > PROPOSALS_KEPT:
                del proposed[next(iter(proposed))]

    def _register(self, key: str) -> _Register:
        register = self._registers.get(key)
        if register is None:
            register = self._registers[key] = _Register()
        return register

    def _learn_set(self, voter_set: VoterSet) -> None:
        known = self.sets.setdefault(voter_set.version, voter_set)
        if known != voter_set:
            self._told(f"voter set {voter_set.version} has two memberships: {known.members} and {voter_set.members}")

    def _choose(self, key: str, register: _Register, ballot: Ballot, stored: Stored) -> None:
        newest = register.newest
        register.chosen[ballot] = stored
        if newest is None or newest.version < stored.version:
            register.newest = stored
        if newest is not None and newest.version < stored.version:
            for told in self.on_chosen:
                told(key, newest, stored)
        for other, theirs in register.chosen.items():
            if other == ballot:
                continue
            older, newer = (theirs, stored) if other < ballot else (stored, theirs)
            self._compare(key, older, newer)
        if len(register.chosen) > 64:
            for old in sorted(register.chosen)[:32]:
                del register.chosen[old]
                register.values.pop(old, None)
                for accepted in [entry for entry in register.accepted_by if entry[0] == old]:
                    del register.accepted_by[accepted]

    def _compare(self, key: str, older: Stored, newer: Stored) -> None:
        grown = newer.version - older.version
        if grown < 0 or (grown == 0 and newer != older):
            self._told(f"register {key}: version {older.version} was chosen, and later another version {newer.version}")
        elif 0 < grown < len(newer.ids) and older.ids and older.ids[-1] not in newer.ids:
            self._told(f"register {key}: the acknowledged change {older.ids[-1]} of version {older.version} is lost")
        before, after = older.record, newer.record
        if isinstance(before, GroupRecord) and isinstance(after, GroupRecord):
            changed = before.owner != after.owner
            if after.epoch < before.epoch or (changed and after.epoch == before.epoch):
                self._told(f"register {key}: owner {before.owner} became {after.owner} in epoch {after.epoch}")


class PausedNodes:
    """Hook `chose` to the chosen values. `seen_us` after a pause was chosen all know of it, or hold no lease."""

    def __init__(self, *, seen_us: int, now: Callable[[], int]) -> None:
        self._seen_us = seen_us
        self._now = now
        self._since_us: dict[str, int] = {}

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        del key, older
        if isinstance(newer.record, ClusterRecord):
            now_us, paused = self._now(), [entry.name for entry in newer.record.nodes if entry.paused]
            self._since_us = {name: self._since_us.get(name, now_us) for name in paused}

    def known_for_us(self, node: str, *, at_us: int | None = None) -> int:
        """How long a node had been Paused by then, or by now; 0 when it is not, or so lately that not everybody need
        know it.
        """
        then_us = self._now() if at_us is None else at_us
        paused_us = then_us - self._since_us.get(node, then_us)
        return paused_us if paused_us > self._seen_us else 0


class OrderedStarts:
    """Hook `ordered` to every node's way to its engine."""

    def __init__(self, *, chosen: ChosenValueOracle, paused: PausedNodes, told: Callable[[str], None]) -> None:
        self._chosen = chosen
        self._paused = paused
        self._told = told

    def ordered(self, box: SimulatedContainer, now_us: int) -> None:
        """Somebody orders that container to start: a VM, or a node that is switched on."""
        del now_us
        if box.is_node:
            return
        vm, group = box.vm, box.labels.get(label.GROUP)
        record = self._chosen.newest(group_key(group or ""))
        if isinstance(record, GroupRecord) and not record.persistent.get(vm, False):
            self._told(f"VM {vm} is ordered to start on {box.node} although its PersistentState is 0")
        paused_us = self._paused.known_for_us(box.node)
        if paused_us:
            self._told(f"VM {vm} is ordered to start on {box.node}, Paused for {paused_us / 1e6:.3f} s")


class ProvidersFirst:
    """Hook `ordered` to every node's way to its engine. `present` tells whether a node's interface has an address."""

    def __init__(
        self, topology: Topology, *, present: Callable[[str, str], bool], told: Callable[[str], None]
    ) -> None:
        self._present = present
        self._told = told
        self._needs: dict[str, list[tuple[str, ...]]] = {}
        for group in topology.groups:
            addresses = {
                resource.name: resource.properties.get("address", "")
                for resource in group.resources
                if resource.type == "ip-address"
            }
            for resource in group.resources:
                known = [names for names in resource.depends_on if all(addresses.get(name) for name in names)]
                self._needs[resource.name] = [tuple(addresses[name] for name in names) for names in known]

    def ordered(self, box: SimulatedContainer, now_us: int) -> None:
        """Somebody orders that container to start."""
        vm = box.vm
        for addresses in self._needs.get(vm, ()):
            if not any(self._present(box.node, address.partition("/")[0]) for address in addresses):
                missing, at_s = " and ".join(addresses), now_us / 1e6
                self._told(f"VM {vm} is ordered to start on {box.node} at {at_s:.6f} s without {missing}")


class LeaseOracle:
    """Hook `saw` to every voter, for what it `HEARS`, and `ordered` to every node's way to its engine.

    A session's lease is reckoned from when its beats were sent, so at any moment at which it holds one a majority of
    one set has renewed it, under that set's version, less than a lease ago by the time at which the voters did it.
    """

    HEARS: ClassVar[tuple[type[Call], ...]] = (Beat,)

    def __init__(
        self,
        *,
        sets: Mapping[int, VoterSet],
        lease_us: int,
        pause_us: int,
        now: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        """`pause_us` is the longest time between two beats of a session of which a voter hears all the time."""
        self._sets = sets
        self._lease_us = lease_us
        self.pause_us = pause_us
        self._now = now
        self._told = told
        self._beats: dict[str, dict[str, tuple[int, int]]] = {}
        self._renewed_us: dict[str, dict[int, dict[str, int]]] = {}
        self._sessions: dict[str, str] = {}
        self._ends_later_than_us: dict[str, int] = {}
        self._since_us: dict[str, int] = {}

    def saw(self, voter: SimulatedVoter, call: Call, reply: Reply) -> None:
        """A voter carried a call out."""
        if not isinstance(call, Beat) or not isinstance(reply, BeatAnswer):
            return
        session, now_us = call.session, self._now()
        beats = self._beats.get(session)
        if beats is None:
            beats, self._renewed_us[session] = self._beats.setdefault(session, {}), {}
            self._sessions[session.partition("@")[0]] = session
        if now_us >= self._ends_later_than_us.get(session, 0):
            self._reckon(session, now_us)
        since_us, last_us = beats.get(voter.node, (now_us, now_us))
        beats[voter.node] = since_us if now_us - last_us < self.pause_us else now_us, now_us
        version, renewed_us = call.to.set_version, self._renewed_us[session]
        if version not in renewed_us:
            for old in [old for old, times in renewed_us.items() if max(times.values()) <= now_us - self._lease_us]:
                del renewed_us[old]
            renewed_us[version] = {}
        renewed_us[version][voter.node] = now_us

    def _reckon(self, session: str, now_us: int) -> None:
        """What the lease was before a renewal of now: if it had ended, it begins with this one at the earliest."""
        ends_us = self._ends_later_than_us[session] = self.ends_us(session)
        if now_us >= ends_us:
            self._since_us[session] = now_us

    def newest_session(self, node: str) -> str:
        """That of a node which was heard of for the first time last; empty for none."""
        return self._sessions.get(node, "")

    def unbroken_us(self, session: str) -> int:
        """For how long that lease may have been unbroken, at most; nothing for a session that nobody has heard of."""
        now_us = self._now()
        return now_us - self._since_us.get(session, now_us)

    def heard(self, session: str) -> Mapping[str, tuple[int, int]]:
        """By voter: since when it has heard of that session without a pause, and when last."""
        return self._beats.get(session, {})

    def ordered(self, box: SimulatedContainer, now_us: int) -> None:
        """Somebody orders that container to start."""
        session = box.labels.get(label.SESSION)
        if not box.is_node and session is not None:
            self.acted(session, f"VM {box.vm} is ordered to start on {box.node}", now_us)

    def petted(self, session: str, lease_ends_us: int) -> None:
        """A session tells its PID 1 until when it holds a lease, in the time of the world."""
        if lease_ends_us > self.ends_us(session):
            now_s, ends_s = self._now() / 1e6, lease_ends_us / 1e6
            self._told(f"{session} believes at {now_s:.6f} s that its lease ends at {ends_s:.6f} s, later than it does")

    def acted(self, session: str, what: str, now_us: int) -> None:
        """A session does what only a live lease allows."""
        if now_us >= self.ends_us(session):
            beats = self._beats.get(session, {})
            fresh = sorted(voter for voter, (_, at_us) in beats.items() if at_us > now_us - self._lease_us)
            self._told(f"{what} without a lease: renewed by {', '.join(fresh) or 'nobody'}")

    def ends_us(self, session: str) -> int:
        """When a lease ends in truth, by what has been renewed so far: that long after the renewal with which a
        majority of a set was complete. Only what was renewed under the version of that set counts.
        """
        ends_us = 0
        for version, renewed_us in self._renewed_us.get(session, {}).items():
            voter_set = self._sets.get(version)
            if voter_set is None:
                continue
            times = sorted((at_us for voter, at_us in renewed_us.items() if voter in voter_set.members), reverse=True)
            if len(times) >= voter_set.majority:
                ends_us = max(ends_us, times[voter_set.majority - 1] + self._lease_us)
        return ends_us
