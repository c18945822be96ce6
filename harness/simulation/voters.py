"""Simulated voters, and one node's way to them: the twin of the Redis adapter.

A call ends with VoterAnswered or with VoterFailed within its limit. After a limit the connection is closed: a late
answer is dropped and later answers carry another connection number; the late request itself may still reach the
voter and have its effect.
"""

from collections.abc import Callable, Mapping

from harness.cluster_service.messages import CallVoter, Event, VoterAnswered, VoterFailed
from harness.database.acceptor import Acceptor
from harness.database.protocol import Call, Hello, ListKeys, Read, ReadMany, Reply
from harness.simulation.network import SimulatedNetwork
from harness.simulation.runtime import Clock

__all__ = ["SimulatedVoter", "VoterConnections"]


class SimulatedVoter:
    """One voter process and its disk. Its disk outlives it; `watch` hears every call that it carried out."""

    def __init__(self, clock: Clock, acceptor: Acceptor, *, node: str) -> None:
        self.acceptor = acceptor
        self.node = node
        self.running = False
        self.held = False
        self.runs = 0
        self.started_us = 0
        self.disk_since_us = 0
        self.disk_full = False
        self.on_disk_refused: list[Callable[[], None]] = []
        self.watch: list[Callable[[SimulatedVoter, Call, Reply], None]] = []
        self._clock = clock
        self._waiting: list[Callable[[], None]] = []
        self._unsynced: list[Call] | None = None
        self._stepped_us = 0

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

    def take(self, call: Call, run: int, answer: Callable[[Reply], None]) -> None:
        """A call of a connection that was made to that run of the process arrives."""
        if not self.running or run != self.runs:
            return
        if self.held:
            self._waiting.append(lambda: self.take(call, run, answer))
            return
        if self.disk_full and not isinstance(call, (Read, ReadMany, Hello, ListKeys)):
            # The server writes before it answers, and ends at the first write that the disk refuses.
            self.stop()
            for told in self.on_disk_refused:
                told()
            return
        if self._unsynced is not None:
            self._unsynced.append(call)
            return
        answer(self._carry_out(call))

    def _carry_out(self, call: Call) -> Reply:
        reply = self.acceptor.handle(call, clock_us=self._clock.now_us + self._stepped_us)
        for watcher in self.watch:
            watcher(self, call, reply)
        return reply


class VoterConnections:
    """One node's connections to all voters."""

    def __init__(
        self,
        clock: Clock,
        network: SimulatedNetwork,
        *,
        node: str,
        voters: Mapping[str, SimulatedVoter],
        deliver: Callable[[Event], None],
    ) -> None:
        self._clock = clock
        self._network = network
        self._node = node
        self._voters = voters
        self._deliver = deliver
        self._connection = dict.fromkeys(voters, 0)
        self._runs = {name: voter.runs for name, voter in voters.items()}
        self._open = True

    def close(self) -> None:
        """The process that held them is gone."""
        self._open = False

    def call(self, wish: CallVoter) -> None:
        """Carry out one call."""
        voter = self._voters[self._network.reached(wish.voter)]
        if voter.runs != self._runs[wish.voter]:
            self._runs[wish.voter] = voter.runs
            self._connection[wish.voter] += 1
        connection = self._connection[wish.voter]
        run = voter.runs
        done = False

        def fail() -> None:
            nonlocal done
            if done or not self._open:
                return
            done = True
            if self._connection[wish.voter] == connection:
                self._connection[wish.voter] += 1
            self._deliver(VoterFailed(number=wish.number, voter=wish.voter))

        def answered(reply: Reply) -> None:
            self._network.send(voter.node, self._node, lambda: finish(reply))

        def finish(reply: Reply) -> None:
            nonlocal done
            if done or not self._open:
                return
            if self._connection[wish.voter] != connection:
                fail()
                return
            done = True
            event = VoterAnswered(number=wish.number, voter=wish.voter, reply=reply, connection=connection)
            self._deliver(event)

        def arrive() -> None:
            if not voter.running:
                self._network.send(voter.node, self._node, fail)
            else:
                voter.take(wish.call, run, answered)

        self._clock.after(wish.limit_us, fail)
        self._network.send(self._node, voter.node, arrive)
