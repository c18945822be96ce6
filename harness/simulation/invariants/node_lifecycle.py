"""Watchers of what a node does to itself, and of what may be done to its power, fed like those of `watch` with every
event.

- Deadlines: when a lease has ended its PID 1 has ended the guests, and a grace later the node, whatever it is told
  afterwards.
- Down: a session whose service reads that it is Down ends at once.
- Joining: nothing is left by then of what was there before this life of the node.
- Proof: an owner that cannot get the proof that a resource has ended asks for it no longer than a pending-timeout.
- Held: a node that is held off is switched on by nobody who can know that.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from harness.model.host_messages import EntryPoint, HostReport, HostRequest
from harness.model.records import ClusterRecord, GroupRecord
from harness.model.register_keys import group_key
from harness.model.session import Session
from harness.model.topology import SECOND_US
from harness.simulation.invariants.entry_points import OfStandstills
from harness.simulation.invariants.starts import ChosenValueOracle, ClusterRegisterMonitor
from harness.simulation.kernel.runtime import Clock
from harness.simulation.twins.container import SimulatedContainer
from harness.simulation.twins.engine import SimulatedEngine
from harness.simulation.twins.engine_client import CALL_LIMIT_US, SimulatedEngineClient
from harness.simulation.world.fault_kinds import FaultKind

__all__ = ["ClearedBeforeItJoins", "DeadlinesHold", "DownResets", "EndsAreProved", "HeldNodesStayOff"]

AT_ONCE_US = 1_000


def _goes_on(box: SimulatedContainer, life: int) -> bool:
    """Whether that life of a node has not ended, and nothing but a frozen guest keeps it from ending."""
    return box.alive and box.lives == life and box.doomed is None


@dataclass(slots=True, eq=False)
class _Pet:
    """What PID 1 was told last, in which life of its node: until when by the node's clock its guests may run.
    `guests_ended_us` is when that time had come.
    """

    session: Session
    life: int
    ends_us: int
    guests_ended_us: int | None = None
    node_ended: bool = False


class DeadlinesHold:
    """Hook `petted` to what nodes tell their PID 1. `clock_of` is a node's clock, and `frozen` tells whether PID 1
    stands still with it: it is looked at again when it is told the next time.
    """

    def __init__(
        self,
        *,
        engine: SimulatedEngine,
        clock_of: Callable[[str], Clock],
        frozen: Callable[[str], bool],
        grace_us: int,
        told: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._clock_of = clock_of
        self._frozen = frozen
        self._grace_us = grace_us
        self._told = told
        self._last: dict[str, _Pet] = {}
        self._armed: set[str] = set()

    def petted(self, session: Session, lease_left_us: int) -> None:
        """A session has told its PID 1 for how long it holds a lease."""
        last = self._last.get(session.node)
        if last is not None:
            self._look(last)
        ends_us = self._clock_of(session.node).now_us + lease_left_us
        self._last[session.node] = _Pet(session, self._engine.node(session.node).lives, ends_us)
        if session.node not in self._armed:
            self._armed.add(session.node)
            self._clock_of(session.node).at(ends_us, partial(self._guests_end, session.node))

    def _guests_end(self, node: str) -> None:
        """The time has come that was told first: most often it was put off since."""
        pet, clock = self._last[node], self._clock_of(node)
        if clock.now_us < pet.ends_us:
            clock.at(pet.ends_us, partial(self._guests_end, node))
            return
        self._armed.discard(node)
        pet.guests_ended_us = self._engine.clock.now_us
        self._engine.clock.after(AT_ONCE_US, partial(self._look_again, pet))
        clock.after(self._grace_us, partial(self._node_ends, pet))

    def _node_ends(self, pet: _Pet) -> None:
        if self._last[pet.session.node] is pet:
            pet.node_ended = True
            self._engine.clock.after(AT_ONCE_US, partial(self._look_again, pet))

    def _look_again(self, pet: _Pet) -> None:
        if self._last[pet.session.node] is pet:
            self._look(pet)

    def _look(self, pet: _Pet) -> None:
        session, ended_us = pet.session, pet.guests_ended_us
        if ended_us is None or self._frozen(session.node) or not _goes_on(self._engine.node(session.node), pet.life):
            return
        late_s = (self._engine.clock.now_us - ended_us) / 1e6
        if pet.node_ended:
            self._told(f"{session} goes on {late_s:.6f} s after the end of its lease, a grace and more")
        for box in self._engine.guests(session.node):
            if box.alive and box.started_us < ended_us and not (box.paused or box.ending):
                self._told(f"VM {box.vm} runs on {late_s:.6f} s after the lease of {session} has ended")


class DownResets:
    """Hook `seen` to what services read. `since` tells when the service of a node was started last, and `frozen`
    whether the node stands still.
    """

    def __init__(
        self,
        *,
        engine: SimulatedEngine,
        since: Callable[[str], int],
        frozen: Callable[[str], bool],
        told: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._since = since
        self._frozen = frozen
        self._told = told

    def seen(self, node: str, record: ClusterRecord) -> None:
        """The service of a node is about to hear that this is in the cluster's register."""
        entry, box = record.node(node), self._engine.node(node)
        if entry is None or entry.session is None or record.is_up(entry.session):
            return
        if (entry.session.container, entry.session.started) == (box.id[:12], box.started):
            look = partial(self._look, entry.session, box.lives, self._since(node))
            self._engine.clock.after(AT_ONCE_US, look)

    def _look(self, session: Session, life: int, since_us: int) -> None:
        node = session.node
        if self._since(node) == since_us and not self._frozen(node) and _goes_on(self._engine.node(node), life):
            self._told(f"{session} has read that it is Down, and goes on")


class ClearedBeforeItJoins(ClusterRegisterMonitor):
    """Hook `up` to nodes that are switched on, and `chose` to the chosen values."""

    def __init__(self, *, engine: SimulatedEngine, told: Callable[[str], None]) -> None:
        self._engine = engine
        self._told = told
        self._before: dict[str, list[SimulatedContainer]] = {}

    def up(self, node: str) -> None:
        """A life of a node begins."""
        self._before[node] = self._engine.guests(node)

    def changed(self, key: str, before: ClusterRecord, after: ClusterRecord) -> None:
        """The cluster's register has a newer content."""
        del key
        for entry in after.nodes:
            known, session = before.node(entry.name), entry.session
            if session is None or (known is not None and known.session == session):
                continue
            box = self._engine.node(entry.name)
            if (session.container, session.started) != (box.id[:12], box.started):
                continue
            left = [guest.name for guest in self._before.pop(entry.name, []) if guest.id in self._engine.boxes]
            if left:
                self._told(f"{session} has joined, and of an earlier session there is still {' and '.join(left)}")


_ENDS = (EntryPoint.OFFLINE, EntryPoint.TERMINATE, EntryPoint.CLOSE)


@dataclass(slots=True)
class _Stuck:
    """Under which right, and by which processes, an end was asked for that failed; `since_us` is the first time at
    which whoever asks can have known that.
    """

    right: tuple[Session, int]
    processes: tuple[int, object]
    since_us: int | None = None


class EndsAreProved:
    """Hook `asked` to every node's calls of its resource host, `answered` to the reports, and `lapsed` to the ends of
    leases. `since` tells when the service of a node was started last, `host_of` what is the same as long as a node's
    resource host is.
    """

    def __init__(
        self,
        *,
        chosen: ChosenValueOracle,
        since: Callable[[str], int],
        host_of: Callable[[str], object | None],
        now: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._chosen = chosen
        self._since = since
        self._host_of = host_of
        self._now = now
        self._told = told
        self._asked: dict[tuple[str, str], HostRequest] = {}
        self._stuck: dict[tuple[str, str], _Stuck] = {}

    def lapsed(self, node: str) -> None:
        """The lease of that node has ended, and it learns everything afresh."""
        for about in [about for about in self._stuck if about[0] == node]:
            del self._stuck[about]

    def answered(self, node: str, report: HostReport) -> None:
        """A resource host says something."""
        about = node, report.resource
        asked = self._asked.get(about)
        if asked is None or report.number != asked.number:
            return
        del self._asked[about]
        if report.error is None:
            self._stuck.pop(about, None)
        elif about not in self._stuck:
            self._stuck[about] = _Stuck((asked.session, asked.epoch), self._processes(node))

    def asked(self, node: str, request: HostRequest) -> None:
        """A service asks something of its resource host."""
        about, now_us = (node, request.resource), self._now()
        if request.entry_point in _ENDS:
            self._asked[about] = request
        else:
            self._asked.pop(about, None)
        stuck = self._stuck.get(about)
        if stuck is None:
            return
        if (stuck.right, stuck.processes) != ((request.session, request.epoch), self._processes(node)):
            del self._stuck[about]
            return
        if stuck.since_us is None:
            stuck.since_us = now_us
        record = self._chosen.newest(group_key(request.group))
        if not isinstance(record, GroupRecord) or (record.owner, record.epoch) != stuck.right:
            return
        limit_us = record.spec.resource(request.resource).policy.pending_timeout_us
        if now_us - stuck.since_us > limit_us + limit_us // 50 + SECOND_US // 2:
            for_s = (now_us - stuck.since_us) / 1e6
            self._told(f"{request.session} has no proof for {for_s:.6f} s that {request.resource} has ended")

    def _processes(self, node: str) -> tuple[int, object]:
        return self._since(node), self._host_of(node)


class HeldNodesStayOff(OfStandstills):
    """Hook `listen` to every node's way to the engine, and `struck` to the faults; once `disturbed` otherwise nothing
    more is said here: how long a VMMS stands still then nobody tells.

    Who switches a node on has heard that nobody holds it off two calls before at most.
    """

    KNOWN_US = 2 * CALL_LIMIT_US + SECOND_US
    ANSWERS_KEPT = 1000
    STOPS = frozenset({FaultKind.FREEZE, FaultKind.PAUSE, FaultKind.VMMS_HANG})
    LEFT_US = KNOWN_US

    def __init__(self, *, engine: SimulatedEngine, told: Callable[[str], None]) -> None:
        self._engine = engine
        self._told = told
        self._disturbed = False

    def disturbed(self) -> None:
        """Something else happens."""
        self._disturbed = True

    def listen(self, node: str, client: SimulatedEngineClient) -> None:
        """From now on every answer about marks, and every order to start, is heard on that way."""
        ask = client.holds
        answers: deque[tuple[int, frozenset[str]]] = deque(maxlen=self.ANSWERS_KEPT)

        async def holds(rig: str) -> frozenset[str]:
            held = await ask(rig)
            answers.append((self._engine.clock.now_us, held))
            return held

        def ordered(container: str) -> None:
            box = self._engine.boxes.get(container)
            if box is not None and box.is_node:
                self._switched_on(node, box.node, answers)

        client.holds = holds  # type: ignore[method-assign]
        client.on_start_ordered.append(ordered)

    def _switched_on(self, by: str, node: str, answers: Iterable[tuple[int, frozenset[str]]]) -> None:
        now_us = self._engine.clock.now_us
        if self._disturbed or now_us <= self.stopped_until_us:
            return
        held = any(node in names for names in self._engine.held.values())
        if held and all(node in names for at_us, names in answers if now_us - at_us <= self.KNOWN_US):
            self._told(f"{by} switches {node} on, which is held off")
