"""Watchers of recovery and of ownership, fed like those of `watch` with every event.

- Judges: a session is declared Down only by one whose own lease was unbroken in truth for a whole lease before.
- Switches: no kill of a node is sent when the lease has ended under which that was ordered, nor when a newer session of
  the node has been a member for so long that whoever fences must know; and a fenced node that nobody holds off is not
  left off.
- Turns: whoever has held a lease ever since a session was declared Down has ordered its fence when its own turn must
  have come.
- Writers: while the owner of a group is Up, nobody else changes a PersistentState of the group.
- Adoption: what runs and is wanted is kept by a service that starts, if its session owns it.
"""

from collections.abc import Callable
from functools import partial

from harness.database.protocol import Accept
from harness.database.register import Codec, Stored
from harness.model import labels as label
from harness.model.host_messages import EntryPoint, HostRequest
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry, SessionState
from harness.model.register_keys import CLUSTER_KEY, group_key
from harness.model.session import Session
from harness.model.topology import Fencing, Settings
from harness.simulation.invariants.starts import (
    AtMostOneInstance,
    ChosenValueOracle,
    ClusterRegisterMonitor,
    LeaseOracle,
)
from harness.simulation.kernel.runtime import Clock
from harness.simulation.twins.container import SimulatedContainer
from harness.simulation.twins.engine import SimulatedEngine
from harness.simulation.twins.engine_client import SimulatedEngineClient

__all__ = [
    "AdoptsItsOwn",
    "FenceOrdersRespected",
    "OnlyLeaseholdersDeclareDown",
    "OwnLeases",
    "OwnersWrite",
    "TurnsPass",
    "newly_down",
]


class OnlyLeaseholdersDeclareDown:
    """Hook `proposed` to what is sent to voters, and `chose` to the chosen values.

    What counts is when a change was sent first: its proposer had a lease then, for with the lease it would have lost
    its managers.
    """

    SLOWEST = 0.98
    """What a clock may make of a lease."""

    def __init__(self, *, codec: Codec, leases: LeaseOracle, lease_us: int, told: Callable[[str], None]) -> None:
        """`lease_us` is how long a lease must have been unbroken, by the clock of who holds it."""
        self._codec = codec
        self._leases = leases
        self._unbroken_us = int(lease_us * self.SLOWEST)
        self._told = told
        self._sent: dict[str, tuple[str, int]] = {}

    def proposed(self, call: Accept) -> None:
        """Somebody has sent that to a voter."""
        if call.key != CLUSTER_KEY:
            return
        change = self._codec.decode(call.value).ids[-1]
        if change in self._sent or not change.startswith(f"{call.ballot.proposer}:"):
            return
        session = self._leases.newest_session(change.partition(".")[0])
        self._sent[change] = session, self._leases.unbroken_us(session)

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        del key
        before, after = older.record, newer.record
        if not isinstance(before, ClusterRecord) or not isinstance(after, ClusterRecord):
            return
        sent = self._sent.get(newer.ids[-1])
        if sent is None or newer.version != older.version + 1 or sent[1] >= self._unbroken_us:
            return
        for entry in before.up_nodes():
            now = after.node(entry.name)
            if now is not None and now.session == entry.session and now.state is SessionState.DOWN:
                judge, for_s = sent[0], sent[1] / 1e6
                self._told(f"{entry.session} is declared Down by {judge}, whose lease was unbroken for {for_s:.6f} s")


class FenceOrdersRespected(ClusterRegisterMonitor):
    """Hook `ordered` to every node's fences, `listen` to its way to the engine, `chose` to the chosen values, and
    `down` to nodes that go off. A kill that the engine carries out late cannot be taken back: what counts is when it is
    sent.
    """

    LEFT_OFF_US = 20_000_000
    """Much longer than every time-out on the way to the switch."""

    def __init__(
        self,
        *,
        engine: SimulatedEngine,
        chosen: ChosenValueOracle,
        leases: LeaseOracle,
        rig: str,
        clock: Clock,
        lease_us: int,
        told: Callable[[str], None],
    ) -> None:
        """`lease_us` after a session has joined everybody who holds a lease knows of it."""
        self._engine = engine
        self._chosen = chosen
        self._leases = leases
        self._rig = rig
        self._clock = clock
        self._lease_us = lease_us
        self._told = told
        self._good_until_us: dict[tuple[str, str], int] = {}
        self._joined_us: dict[Session, int] = {}
        self._off_us: dict[str, int] = {}
        self._disturbed = False

    def disturbed(self) -> None:
        """Something else than a schedule happens: how long a way to an engine is blocked then nobody tells, and so what
        is left off is no longer said here.
        """
        self._disturbed = True

    def ordered(self, by: Session, whom: Session) -> None:
        """A session orders the end of another, for as long as it knows that it has a lease."""
        self._good_until_us[by.node, whom.node] = self._leases.ends_us(str(by))

    def listen(self, node: str, client: SimulatedEngineClient) -> None:
        """From now on every kill that is sent on that way is heard of."""
        send = client.kill

        async def kill(container: str, *, signal: int = 9) -> None:
            box = self._engine.boxes.get(container)
            if box is not None and box.is_node:
                self._killed(node, box)
            await send(container, signal=signal)

        client.kill = kill  # type: ignore[method-assign]

    def down(self, node: str) -> None:
        """A node has gone off."""
        self._off_us[node] = self._clock.now_us

    def changed(self, key: str, before: ClusterRecord, after: ClusterRecord) -> None:
        """The cluster's register has a newer content."""
        del key
        now_us = self._clock.now_us
        for entry in after.nodes:
            known = before.node(entry.name)
            if entry.session is None or entry == known:
                continue
            if known is None or known.session != entry.session:
                self._joined_us[entry.session] = now_us
            if entry.state is SessionState.DOWN and entry.fenced:
                self._look_at(now_us + self.LEFT_OFF_US, entry.session)

    def _killed(self, by: str, box: SimulatedContainer) -> None:
        entry, late_us = self._entry(box.node), self._clock.now_us - self._good_until_us.get((by, box.node), 0)
        if late_us > 0:
            self._told(f"{by} switches {box.node} off {late_us / 1e6:.6f} s after the end of the lease of its order")
        if entry is None or entry.session is None or entry.state is not SessionState.UP:
            return
        if (entry.session.container, entry.session.started) != (box.id[:12], box.started):
            return
        member_us = self._clock.now_us - self._joined_us.get(entry.session, self._clock.now_us)
        if member_us > self._lease_us:
            for_s = member_us / 1e6
            self._told(f"{by} switches {box.node} off, where {entry.session} has been a member for {for_s:.6f} s")

    def _look_at(self, when_us: int, session: Session) -> None:
        self._clock.at(when_us, partial(self._look, session))

    def _look(self, session: Session) -> None:
        """Whether the node of that fenced session is still off, and was so all the time."""
        name, now_us = session.node, self._clock.now_us
        entry, box = self._entry(name), self._engine.node(name)
        away = not (box.running or box.starting or box.restarting)
        if self._disturbed or not away or entry is None or entry.session != session:
            return
        off_us = now_us - self._off_us.get(name, 0)
        if off_us < self.LEFT_OFF_US:
            self._look_at(now_us + self.LEFT_OFF_US - off_us, session)
        elif name not in self._engine.held.get(self._rig, set()):
            self._told(f"{session} is fenced, and {name} has been off for {off_us / 1e6:.6f} s")

    def _entry(self, node: str) -> NodeEntry | None:
        cluster = self._chosen.newest(CLUSTER_KEY)
        return cluster.node(node) if isinstance(cluster, ClusterRecord) else None


class OwnLeases:
    """Hook `petted` to what nodes tell their PID 1: what sessions themselves believe of their leases. `since` tells
    when the service of a node was started last.
    """

    def __init__(self, settings: Settings, *, since: Callable[[str], int], now: Callable[[], int]) -> None:
        self._pause_us = settings.lease_us // 2
        self._since = since
        self._now = now
        self._ends_us: dict[Session, int] = {}
        self._petted_us: dict[Session, int] = {}
        self._unbroken_us: dict[Session, int] = {}

    def petted(self, session: Session, lease_left_us: int) -> None:
        """A session tells its PID 1 for how long it holds a lease."""
        now_us = self._now()
        if now_us >= min(self._ends_us.get(session, 0), self._petted_us.get(session, 0) + self._pause_us):
            self._unbroken_us[session] = now_us
        self._petted_us[session] = now_us
        self._ends_us[session] = now_us + lease_left_us

    def held_for_us(self, session: Session) -> int:
        """For how long that session has held its lease without a break, held up for no longer than its pets were; 0
        for one that holds none now.
        """
        now_us = self._now()
        if now_us >= min(self._ends_us.get(session, 0), self._petted_us.get(session, 0) + self._pause_us):
            return 0
        return now_us - max(self._unbroken_us[session], self._since(session.node))


class TurnsPass(ClusterRegisterMonitor):
    """Hook `ordered` to every node's fences and `chose` to the chosen values.

    Who holds a lease, as it believes itself, a lease after a session was declared Down has read that. From then on its
    turn takes half a lease for each of the others, and it was held up for no longer than its pets were.
    """

    SLACK_US = 300_000

    def __init__(
        self,
        settings: Settings,
        *,
        chosen: ChosenValueOracle,
        own: OwnLeases,
        clock: Clock,
        told: Callable[[str], None],
    ) -> None:
        self._by_power = settings.fencing is Fencing.POWER
        self._lease_us = settings.lease_us
        self._chosen = chosen
        self._own = own
        self._clock = clock
        self._told = told
        self._ordered: set[tuple[Session, Session]] = set()

    def ordered(self, by: Session, whom: Session) -> None:
        """A session orders the end of another."""
        self._ordered.add((by, whom))

    def changed(self, key: str, before: ClusterRecord, after: ClusterRecord) -> None:
        """The cluster's register has a newer content."""
        del key
        if not self._by_power:
            return
        wait_us = self._lease_us + (len(after.nodes) - 1) * self._lease_us // 2 + self.SLACK_US
        for session in newly_down(before, after):
            self._clock.after(wait_us, partial(self._look, session, self._clock.now_us))

    def _look(self, lost: Session, down_us: int) -> None:
        """Whether somebody has let its turn pass who was there all the time."""
        cluster, down_for_us = self._chosen.newest(CLUSTER_KEY), self._clock.now_us - down_us
        entry = cluster.node(lost.node) if isinstance(cluster, ClusterRecord) else None
        if not isinstance(cluster, ClusterRecord) or entry is None or entry.session != lost or entry.fenced:
            return
        for other in cluster.up_nodes():
            session = other.session
            if session is None or (session, lost) in self._ordered:
                continue
            if self._own.held_for_us(session) >= down_for_us:
                for_s = down_for_us / 1e6
                self._told(f"{lost} is Down for {for_s:.6f} s and not fenced, and {session} has not taken its turn")


def newly_down(before: ClusterRecord, after: ClusterRecord) -> list[Session]:
    """The sessions that were Up, and are declared Down."""
    return [
        entry.session
        for entry in after.nodes
        if entry.session is not None and entry.state is SessionState.DOWN and before.is_up(entry.session)
    ]


class OwnersWrite:
    """Hook `chose` to the chosen values."""

    def __init__(self, *, chosen: ChosenValueOracle, told: Callable[[str], None]) -> None:
        self._chosen = chosen
        self._told = told

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        before, after = older.record, newer.record
        if not isinstance(before, GroupRecord) or not isinstance(after, GroupRecord):
            return
        if before.persistent == after.persistent or newer.version != older.version + 1 or before.owner is None:
            return
        writer, cluster = newer.ids[-1].partition(".")[0], self._chosen.newest(CLUSTER_KEY)
        # Whoever writes for the next owner knows that this one is over, and that is final.
        if writer != before.owner.node and isinstance(cluster, ClusterRecord) and cluster.is_up(before.owner):
            changed = sorted(name for name, wanted in after.persistent.items() if before.persistent.get(name) != wanted)
            what = " and ".join(changed)
            self._told(f"register {key}: {writer} changes the PersistentState of {what}, and {before.owner} owns it")


class AdoptsItsOwn:
    """Hook `asked` to every node's calls of its resource host."""

    def __init__(self, *, chosen: ChosenValueOracle, instances: AtMostOneInstance, told: Callable[[str], None]) -> None:
        self._chosen = chosen
        self._instances = instances
        self._told = told

    def asked(self, node: str, request: HostRequest) -> None:
        """A service asks something of its resource host."""
        if request.entry_point is not EntryPoint.OPEN or request.adopt:
            return
        record, vm = self._chosen.newest(group_key(request.group)), request.resource
        if not isinstance(record, GroupRecord) or not record.persistent.get(vm, False):
            return
        if (record.owner, record.epoch) != (request.session, request.epoch):
            return
        for box in self._instances.running(vm):
            if box.node == node and box.labels.get(label.SESSION) == str(request.session):
                self._told(f"VM {vm} runs on {node}, owned by {request.session}, and is not adopted")
