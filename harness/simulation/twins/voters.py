"""Simulated voters, and one node's way to them: the twin of the Redis adapter.

A call ends with VoterAnswered or with VoterFailed within its limit. After a limit the connection is closed: a late
answer is dropped and later answers carry another connection number; the late request itself may still reach the
voter and have its effect.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import get_args

from harness.cluster_service.core.messages import CallVoter, Event, VoterAnswered, VoterFailed
from harness.database.acceptor import Acceptor
from harness.database.protocol import Accept, Beat, Call, Hello, ListKeys, Read, ReadMany, Reply
from harness.simulation.kernel.runtime import Clock
from harness.simulation.twins.network import SimulatedNetwork

__all__ = ["SimulatedVoter", "VoterConnections"]


class SimulatedVoter:
    """One voter process and its disk. Its disk outlives it."""

    def __init__(self, clock: Clock, acceptor: Acceptor, *, node: str, admits_all: bool = False) -> None:
        self.acceptor = acceptor
        self.node = node
        self.running = False
        self.held = False
        self.runs = 0
        self.started_us = 0
        self.disk_since_us = 0
        self.disk_full = False
        self._admits_all = admits_all
        self.on_disk_refused: list[Callable[[], None]] = []
        self.on_proposed: list[Callable[[Accept], None]] = []
        self._watchers: dict[type[Call], list[Watcher]] = {kind: [] for kind in get_args(Call)}
        self._clock = clock
        self._waiting: list[Callable[[], None]] = []
        self._unsynced: list[Call] | None = None
        self._stepped_us = 0

    def watch(self, watcher: "Watcher", kinds: tuple[type[Call], ...] = get_args(Call)) -> None:
        """From now on `watcher` hears of every call of these kinds that this voter carries out."""
        for kind in kinds:
            self._watchers[kind].append(watcher)

    def step(self, by_us: int) -> None:
        """Its wall clock steps, forward or back."""
        self._stepped_us += by_us

    def start(self) -> None:
        """The process starts and has loaded its disk."""
        self.running = True
        self.held = False
        self.runs += 1
        self.started_us = self._clock.now_us
        self._waiting.clear()
        self._unsynced = None

    def wipe(self) -> None:
        """Its files are gone, and with them who it was."""
        self.acceptor.wipe()
        self.disk_since_us = self._clock.now_us

    def stop(self) -> None:
        """The process ends; what waited in its sockets is gone."""
        self.running = False
        self._waiting.clear()

    def cut_off_before_the_sync(self) -> None:
        """From now on what is asked is written and not synced, so that nothing is answered, until `lose_the_tail`."""
        self._unsynced = []

    def lose_the_tail(self, kept: int) -> None:
        """The power is cut: of what was written since then the first `kept` are on the disk, and the rest never was."""
        written, self._unsynced = self._unsynced, None
        if written is None or not self.running:
            return
        for call in written[:kept]:
            self._carry_out(call)
        self.stop()

    def hold(self) -> None:
        """The process is frozen: calls wait."""
        self.held = True

    def release(self) -> None:
        """The process goes on, with all that waited."""
        self.held = False
        waiting, self._waiting = self._waiting, []
        for carry_out in waiting:
            carry_out()

    def admits(self, name: str) -> bool:
        """Whether it is the one whom somebody wants to talk to by that name. It knows that without its disk."""
        return name == self.node or self._admits_all

    def take(self, calls: Sequence[Call], run: int, answer: Callable[[list[Reply]], None]) -> None:
        """Calls of a connection that was made to that run of the process arrive together."""
        if not self.running or run != self.runs:
            return
        if self.held:
            self._waiting.append(lambda: self.take(calls, run, answer))
            return
        replies = []
        for call in calls:
            if self.disk_full and not isinstance(call, (Read, ReadMany, Hello, ListKeys)):
                # The server writes before it answers, and ends at the first write that the disk refuses.
                self.stop()
                for told in self.on_disk_refused:
                    told()
                return
            if self._unsynced is not None:
                self._unsynced.append(call)
            else:
                replies.append(self._carry_out(call))
        if replies:
            answer(replies)

    def _carry_out(self, call: Call) -> Reply:
        reply = self.acceptor.handle(call, clock_us=self._clock.now_us + self._stepped_us)
        for watcher in self._watchers[type(call)]:
            watcher(self, call, reply)
        return reply


Watcher = Callable[[SimulatedVoter, Call, Reply], None]


class VoterConnections:
    """One node's connections to all voters. What is asked of one voter before `flush` travels together, and is answered
    together, as what is written to one socket in one go is.
    """

    def __init__(
        self,
        clock: Clock,
        network: SimulatedNetwork,
        *,
        node: str,
        voters: Mapping[str, SimulatedVoter],
        deliver: Callable[[list[Event]], None],
    ) -> None:
        self.network = network
        self.node = node
        self.deliver = deliver
        self.numbers = dict.fromkeys(voters, 0)
        self.open = True
        self._clock = clock
        self._voters = voters
        self._runs = {name: voter.runs for name, voter in voters.items()}
        self._asked: dict[tuple[str, int], list[CallVoter]] = {}
        self._waiting: dict[int, deque[tuple[int, _UnderWay]]] = {}
        self._late: tuple[int, Callable[[], None]] | None = None

    def hold_next_accept(self, late_us: int, sent: Callable[[], None]) -> None:
        """What is sent with the next Accept travels for `late_us` longer, and when it is sent `sent` is called."""
        self._late = late_us, sent

    def close(self) -> None:
        """The process that held them is gone; what it has asked before is under way."""
        self.flush()
        self.open = False

    def call(self, wish: CallVoter) -> None:
        """Ask a voter."""
        self._asked.setdefault((wish.voter, wish.limit_us), []).append(wish)

    def flush(self) -> None:
        """Send what was asked."""
        if self._asked:
            asked, self._asked = self._asked, {}
            late_us = self._lateness(asked.values()) if self._late is not None else 0
            for (name, limit_us), wishes in asked.items():
                self._send(name, limit_us, wishes, late_us)

    def _lateness(self, asked: Iterable[list[CallVoter]]) -> int:
        if self._late is None or not any(isinstance(wish.call, Accept) for wishes in asked for wish in wishes):
            return 0
        (late_us, sent), self._late = self._late, None
        self._clock.after(0, sent)
        return late_us

    def _send(self, name: str, limit_us: int, wishes: list[CallVoter], late_us: int) -> None:
        voter = self._voters[self.network.reached(name)]
        if voter.runs != self._runs[name]:
            self._runs[name] = voter.runs
            self.numbers[name] += 1
        for hear in voter.on_proposed if not isinstance(wishes[0].call, Beat) else ():
            for wish in wishes:
                if isinstance(wish.call, Accept):
                    hear(wish.call)
        under_way = _UnderWay(self, name, wishes, voter, self.numbers[name])
        waiting = self._waiting.setdefault(limit_us, deque())
        waiting.append((self._clock.now_us + limit_us, under_way))
        if len(waiting) == 1:
            self._wake(waiting)
        if late_us:
            self._clock.after(late_us, lambda: self.network.send(self.node, voter.node, under_way.arrive))
        else:
            self.network.send(self.node, voter.node, under_way.arrive)

    def _wake(self, waiting: deque[tuple[int, "_UnderWay"]]) -> None:
        """Calls of one limit end in the order in which they began: one timer is enough for all of them."""
        self._clock.at(waiting[0][0], partial(self._give_up, waiting))

    def _give_up(self, waiting: deque[tuple[int, "_UnderWay"]]) -> None:
        late = []
        while waiting and (waiting[0][1].done or waiting[0][0] <= self._clock.now_us):
            _, under_way = waiting.popleft()
            if not under_way.done:
                late.append(under_way)
        if waiting and self.open:
            self._wake(waiting)
        for under_way in late:
            under_way.fail()


class _UnderWay:
    """Calls that travel together, on that connection to that run of the voter."""

    __slots__ = ("connection", "connections", "done", "name", "run", "voter", "wishes")

    def __init__(
        self,
        connections: VoterConnections,
        name: str,
        wishes: list[CallVoter],
        voter: SimulatedVoter,
        connection: int,
    ) -> None:
        self.connections = connections
        self.name = name
        self.wishes = wishes
        self.voter = voter
        self.run = voter.runs
        self.connection = connection
        self.done = False

    def arrive(self) -> None:
        """The calls are where they were sent; who asks another voter is refused there, as its access list does."""
        if self.voter.running and self.voter.admits(self.name):
            self.voter.take([wish.call for wish in self.wishes], self.run, self._answered)
        else:
            self.connections.network.send(self.voter.node, self.connections.node, self.fail)

    def _answered(self, replies: list[Reply]) -> None:
        self.connections.network.send(self.voter.node, self.connections.node, partial(self._finish, replies))

    def _finish(self, replies: list[Reply]) -> None:
        connections, name, connection = self.connections, self.name, self.connection
        if self.done or not connections.open:
            return
        if connections.numbers[name] != connection:
            self.fail()
            return
        self.done = True
        connections.deliver(
            [
                VoterAnswered(wish.number, name, reply, connection)
                for wish, reply in zip(self.wishes, replies, strict=True)
            ]
        )

    def fail(self) -> None:
        """There is no answer, and with what else is under way on this connection it is over."""
        connections, name = self.connections, self.name
        if self.done or not connections.open:
            return
        self.done = True
        if connections.numbers[name] == self.connection:
            connections.numbers[name] += 1
        connections.deliver([VoterFailed(number=wish.number, voter=name) for wish in self.wishes])
