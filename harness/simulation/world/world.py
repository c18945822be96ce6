"""A seeded world: nodes, voters, engine and network on one virtual clock, formed like a rig, watched from outside.

One seed, one trace. The seed of the simulator arena: what is missing from that is width (more faults, experiment
files), not another design.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.database.acceptor import Acceptor
from harness.database.proposer import Proposer, Result
from harness.database.protocol import Address, Form
from harness.model import labels as label
from harness.model.changes import CreateRegister
from harness.model.initial_registers import first_registers
from harness.model.records import ClusterRecord, GroupRecord, SessionState
from harness.model.register_keys import CLUSTER_KEY, group_key
from harness.model.topology import Topology
from harness.model.voter_set import VoterSet
from harness.simulation.invariants.consensus import WatchedAdministrator
from harness.simulation.invariants.convergence import unconverged
from harness.simulation.invariants.reads import FreshReads, MadeOnce
from harness.simulation.invariants.registry import Watchers
from harness.simulation.invariants.starts import AtMostOneInstance, ChosenValueOracle
from harness.simulation.kernel.node_clock import DriftingClock
from harness.simulation.kernel.runtime import Clock, VirtualClock
from harness.simulation.twins.container import SimulatedContainer
from harness.simulation.twins.engine import SimulatedEngine
from harness.simulation.twins.network import SimulatedNetwork
from harness.simulation.twins.voters import SimulatedVoter
from harness.simulation.world.composition import Composition
from harness.simulation.world.fault_kinds import Planned
from harness.simulation.world.node import SimulatedNode

__all__ = ["Drift", "Struck", "TraceLine", "World"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How a node's clock differs from the world's: `rate_ppm` microseconds a second, and from the beginning."""

    rate_ppm: int
    ahead_us: int


Struck = tuple[str, str, str]
"""A kind of fault, what the cluster was at, and what its target was."""


class TraceLine(NamedTuple):
    """One thing that happened, in simulated microseconds."""

    at_us: int
    node: str
    component: str
    event: str
    fields: Mapping[str, Any]

    def __str__(self) -> str:
        told = " ".join(f"{key}={value}" for key, value in self.fields.items() if value is not None)
        return f"{self.at_us / 1e6:10.6f} {self.node:8} {self.component:24} {self.event:22} {told}"


class World:
    """A formed cluster whose nodes are switched on at time zero. `violations` holds what the watchers told."""

    def __init__(
        self,
        topology: Topology,
        *,
        seed: int,
        composition: Composition | None = None,
        clock: VirtualClock | None = None,
        drifts: Mapping[str, Drift] | None = None,
    ) -> None:
        """`clock` is the world's own unless somebody outside lives by it too; `drifts` are of nodes whose clocks differ
        from it.
        """
        self.topology = topology
        self.composition = composition or Composition()
        self.clock = clock or VirtualClock()
        self._clocks: dict[str, Clock] = {
            name: DriftingClock(self.clock, rate_ppm=drift.rate_ppm, ahead_us=drift.ahead_us)
            for name, drift in (drifts or {}).items()
        }
        self.listeners: list[Callable[[TraceLine], None]] = []
        self.on_fault: list[Callable[[Planned], None]] = []
        self.on_disturbed: list[Callable[[], None]] = []
        self.rng = random.Random(seed)
        self.trace: list[TraceLine] = []
        self.violations: list[str] = []
        self.coverage: Counter[Struck] = Counter()
        self.engine = SimulatedEngine(self.clock, self.rng)
        self.network = SimulatedNetwork(self.clock, self.rng)
        self.instances = AtMostOneInstance(told=self._violated)
        self.chosen = ChosenValueOracle(
            codec=self.composition.codec, now=lambda: self.clock.now_us, told=self._violated
        )
        self.reads = FreshReads(chosen=self.chosen, told=self._violated)
        self.made = MadeOnce(told=self._violated)
        self.composition.watchers = self.reads, self.made
        self.voters = self._make_voters()
        self._form()
        self.nodes = {spec.name: self._make_node(spec.name) for spec in topology.nodes}
        self.administrator = WatchedAdministrator(self.clock, topology=topology, nodes=self.nodes)
        self._hear()
        Watchers(self, one_clock=not drifts, told=self._violated)
        for spec in topology.nodes:
            self.engine.start_node(spec.name)
        if topology.witness is not None:
            self.voters[topology.witness.name].start()

    def situation(self) -> str:
        """What the cluster is at, in truth, most telling first: a session Down but not fenced, a group whose owner is
        gone, a VM about to run, a node away, or nothing.
        """
        cluster = self.chosen.newest(CLUSTER_KEY)
        if isinstance(cluster, ClusterRecord):
            if any(entry.state is SessionState.DOWN and not entry.fenced for entry in cluster.nodes):
                return "fencing"
            records = [self.chosen.newest(group_key(group.name)) for group in self.topology.groups]
            owners = [record.owner for record in records if isinstance(record, GroupRecord)]
            if any(owner is None or not cluster.is_up(owner) for owner in owners):
                return "failover"
        if any(box.starting for box in self.engine.boxes.values() if not box.is_node):
            return "start"
        if any(node.frozen or not self.engine.node(name).alive for name, node in self.nodes.items()):
            return "node away"
        return "rest"

    def role_of_node(self, name: str) -> str:
        """What a node is to the cluster, in truth: off or frozen, no member, first in turn, an owner, or idle."""
        node = self.nodes[name]
        if node.frozen or not self.engine.node(name).alive:
            return "off"
        cluster = self.chosen.newest(CLUSTER_KEY)
        entry = cluster.node(name) if isinstance(cluster, ClusterRecord) else None
        if not isinstance(cluster, ClusterRecord) or entry is None or entry.state is not SessionState.UP:
            return "no member"
        if cluster.up_nodes()[0] == entry:
            return "first in turn"
        owners = (self.chosen.newest(group_key(group.name)) for group in self.topology.groups)
        owns = any(isinstance(record, GroupRecord) and record.owner == entry.session for record in owners)
        return "owner" if owns else "idle"

    def role_of_vm(self, name: str) -> str:
        """The role of the node on which a VM runs, or that it runs nowhere."""
        running = self.instances.running(name)
        return self.role_of_node(running[0].node) if running else "not running"

    def run(self, duration_us: int) -> None:
        """Let time pass; stops early at the first violation."""
        end = self.clock.now_us + duration_us
        while self.clock.now_us < end and not self.violations:
            self.clock.run_until(min(end, self.clock.now_us + 100_000))

    def run_until_converged(self, limit_us: int) -> list[str]:
        """Let time pass until everything wanted is Online; returns what is still missing at the limit, nothing when
        all is well.
        """
        end = self.clock.now_us + limit_us
        while self.clock.now_us < end and not self.violations:
            self.run(250_000)
            if not self.unconverged():
                return []
        return self.unconverged()

    def unconverged(self) -> list[str]:
        """What keeps the world from rest; see `rest`."""
        running: dict[str, list[str]] = {}
        for box in self.engine.boxes.values():
            if box.alive and box.vm:
                running.setdefault(box.vm, []).append(box.node)
        return unconverged(
            self.topology,
            nodes=self.nodes,
            newest=self.chosen.newest,
            running=running,
            may_be_wanted=self.administrator.may_be_wanted,
            now=lambda node: self.clock_of(node).now_us,
        )

    # Voters

    def may_lose(self, name: str) -> bool:
        """Whether the cluster can live without that voter's disk: a majority of every set that may still count has
        its own without it.
        """
        whole = [
            voter
            for voter, there in self.voters.items()
            if voter != name and there.acceptor.incarnation and not there.acceptor.behind
        ]
        newest = max(self.chosen.sets)
        for version in (newest - 1, newest):
            voter_set = self.chosen.sets.get(version)
            if voter_set is None:
                continue
            left = [voter for voter in whole if voter_set.has(voter, self.voters[voter].acceptor.incarnation)]
            if len(left) < voter_set.majority:
                return False
        return True

    def wipe_voter(self, name: str) -> None:
        """The voter's disk is emptied, or its file no longer loads, which PID 1 puts aside: its next start is empty."""
        self.voters[name].wipe()
        if name in self.nodes:
            self.nodes[name].kill_process("voter")
        else:
            self.kill_witness(300_000)

    def kill_witness(self, duration_us: int) -> None:
        """The witness's container is gone, and started again after `duration_us`."""
        witness = self._witness()
        if witness is not None and witness.running:
            witness.stop()
            self.clock.after(duration_us, self.revive_witness)

    def revive_witness(self) -> None:
        """The witness runs, if there is one."""
        witness = self._witness()
        if witness is not None and not witness.running:
            witness.start()

    def _witness(self) -> SimulatedVoter | None:
        return self.voters[self.topology.witness.name] if self.topology.witness is not None else None

    def record(self, node: str, component: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write one line of the trace."""
        line = TraceLine(self.clock.now_us, node, component, event, dict(fields))
        self.trace.append(line)
        for listener in self.listeners:
            listener(line)

    # Making

    def _make_voters(self) -> dict[str, SimulatedVoter]:
        voters = {}
        for spec in self.topology.voters:
            voter = SimulatedVoter(
                self.clock_of(spec.name),
                self.composition.acceptor(),
                node=spec.name,
                admits_all=self.composition.voters_admit_all,
            )
            voter.watch(self.chosen.saw, ChosenValueOracle.HEARS)
            voter.on_proposed.append(self.chosen.proposed)
            voters[spec.name] = voter
        return voters

    def _form(self) -> None:
        """What `up` does: one explicit form, then the first registers, the cluster's last."""
        first = VoterSet(version=1, members={name: f"{name}-1" for name in self.voters})
        acceptors: dict[str, Acceptor] = {name: voter.acceptor for name, voter in self.voters.items()}
        for name, acceptor in acceptors.items():
            to = Address(rig=self.topology.rig, voter=name, incarnation=first.members[name], set_version=1)
            call = Form(to=to, members=first.members)
            self.chosen.saw(self.voters[name], call, acceptor.handle(call, clock_us=0))
        numbers = iter(range(1, 1_000_000))
        proposer = Proposer(
            identity="up",
            rig=self.topology.rig,
            voter_set=first,
            codec=self.composition.codec,
            jitter=lambda: 0.0,
            numbers=lambda: next(numbers),
        )
        for operation, (key, record) in enumerate(first_registers(self.topology, first)):
            proposer.change(0, operation=operation, key=key, change=CreateRegister(first=record), limit_us=10**6)
            while proposer.sends:
                send = proposer.sends.pop(0)
                reply = acceptors[send.voter].handle(send.call, clock_us=0)
                self.chosen.saw(self.voters[send.voter], send.call, reply)
                proposer.answered(0, send.number, reply)
            assert proposer.settlements.pop().result is Result.DONE, f"{key} was not created"

    def clock_of(self, name: str) -> Clock:
        """The clock of a node and its voter: the world's own, or one that drifts."""
        return self._clocks.get(name, self.clock)

    def _make_node(self, name: str) -> SimulatedNode:
        self.engine.add_node(name, {label.RIG: self.topology.rig})
        return SimulatedNode(
            self.clock_of(name),
            self.rng,
            name=name,
            topology=self.topology,
            engine=self.engine,
            network=self.network,
            voters=self.voters,
            composition=self.composition,
            record=self.record,
        )

    # Watching

    def disturbed(self) -> None:
        """Somebody else than a schedule does something to this world, or asks it for something."""
        for heard in self.on_disturbed:
            heard()

    def _hear(self) -> None:
        """Of what the engine does, and what somebody does past the cluster."""
        self.engine.on_node_up.append(lambda name: self._node_up(name))
        self.engine.on_node_dying.append(lambda name: self.nodes[name].died())
        self.engine.on_node_down.append(lambda name: self._node_down(name))
        self.engine.on_by_hand.append(self.administrator.by_hand)
        self.engine.on_started.append(self._started)
        self.engine.on_ended.append(self._ended)

    def _node_up(self, name: str) -> None:
        self.record(name, "engine", "node-up", {})
        self.nodes[name].booted()

    def _node_down(self, name: str) -> None:
        self.record(name, "engine", "node-down", {})

    def _started(self, box: SimulatedContainer, at_us: int) -> None:
        if not box.is_node:
            self.record(box.node, "engine", "vm-started", {"vm": box.vm})
        self.instances.started(box, at_us)

    def _ended(self, box: SimulatedContainer, at_us: int) -> None:
        if not box.is_node:
            self.record(box.node, "engine", "vm-ended", {"vm": box.vm})
        self.instances.ended(box, at_us)

    def _violated(self, text: str) -> None:
        self.record("", "watch", "violation", {"message": text})
        self.violations.append(text)
