"""The way from one process to the simulated engine: latency, stalls, lost answers, the event stream. Implements the
`Engine` port.

A client gives up after five seconds; the engine does not know that, and carries the call out whenever it gets to it, in
the rebooted node too. That is the real engine's most dangerous habit (safety review, finding 2), so it is this module's
main purpose.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import EngineError, EngineTooLate, EngineUnanswered
from harness.model import labels as label
from harness.model.session import Session
from harness.model.vm import VmSpec
from harness.ports import Container, EngineEvent, EventGap
from harness.simulation.kernel.runtime import Clock, SimulatedRuntime, Timer
from harness.simulation.twins.container import GuestReply
from harness.simulation.twins.engine import MS_US, SimulatedEngine

__all__ = ["CALL_LIMIT_US", "SimulatedEngineClient"]

CALL_LIMIT_US = 5_000_000
"""The time-out of the live adapter's client."""
QUEUE_LIMIT = 4096


class SimulatedEngineClient:
    """The `Engine` port as one caller has it. Faults set here concern this caller only."""

    def __init__(self, engine: SimulatedEngine, *, own_clock: Clock | None = None) -> None:
        """`own_clock` is the caller's, by which it reckons whether it is too late; the engine's unless given."""
        self.engine = engine
        self._clock = engine.clock
        self._own_clock: Clock = own_clock or engine.clock
        self._results = SimulatedRuntime(engine.clock, on_error=lambda _task, error: _raise(error))
        self._stalled_until_us = 0
        self._stalled = False
        self._waiting: list[tuple[bool, Callable[[], None]]] = []
        self._starts_held_until_us = 0
        self._lost_answers: deque[str] = deque()
        self._lost_requests: deque[str] = deque()
        self._deaf_until_us = -1
        self._streams: list[_Stream] = []
        self.on_start_ordered: list[Callable[[str], None]] = []

    # Faults.

    def stall(self, until_us: int) -> None:
        """Until then nothing is carried out and nothing answered; afterwards all that was asked is carried out, in a
        drawn order.
        """
        self._stalled_until_us = max(self._stalled_until_us, until_us)

    @property
    def stalled(self) -> bool:
        """Whether it stands still until `resume`."""
        return self._stalled

    def stall_for_good(self) -> None:
        """Nothing is carried out and nothing answered until `resume`."""
        self._stalled = True

    def resume(self, *, drop: bool = False) -> None:
        """What was asked meanwhile is carried out now, in a drawn order, or with `drop` never."""
        self._stalled = False
        waiting, self._waiting = self._waiting, []
        for is_order, go_on in waiting:
            if not (is_order and drop):
                self._clock.after(self.draw(0, 20), go_on)

    def hold_starts(self, until_us: int) -> None:
        """Until then orders to start wait in the engine, while every other call goes through; their callers may be
        long gone.
        """
        self._starts_held_until_us = max(self._starts_held_until_us, until_us)

    def lose_next_answer(self, call: str) -> None:
        """The next `start`, `create`, `kill`, `remove` or `list` is carried out, but its caller learns nothing."""
        self._lost_answers.append(call)

    def lose_next_request(self, call: str) -> None:
        """The next such call never reaches the engine, and its caller cannot tell."""
        self._lost_requests.append(call)

    def lose_events(self, until_us: int) -> None:
        """Events until then are lost; the stream then says that it has a gap."""
        self._deaf_until_us = until_us
        self._clock.at(until_us, self.inject_gap)

    def inject_gap(self) -> None:
        """The stream was interrupted just now."""
        for stream in self._streams:
            stream.deliver_after(EventGap(), 0)

    # The port.

    async def containers(self, *, labels: Mapping[str, str]) -> list[Container]:
        """All containers, running or not, that carry these labels."""

        def operation(answer: GuestReply) -> None:
            found = [box.listed() for box in self.engine.boxes.values() if labels.items() <= box.labels.items()]
            answer.succeed(found)

        found: list[Container] = await self._call("list", operation, 2, 6)
        return found

    async def inspect(self, container: str) -> Container | None:
        """One container, by id or a prefix of it; None when it does not exist."""

        def operation(answer: GuestReply) -> None:
            box = self.engine.find(container)
            answer.succeed(box.listed() if box is not None else None)

        found: Container | None = await self._call("inspect", operation, 1, 4)
        return found

    async def create_vm(self, spec: VmSpec, *, session: Session, labels: Mapping[str, str]) -> str:
        """Create a VM's container in the session's node; returns its id."""
        created: str = await self._call(
            "create",
            lambda answer: self.engine.create(spec, host=session.container, labels=labels, answer=answer),
            1,
            4,
        )
        return created

    async def start(self, container: str, *, not_after_us: int | None = None) -> None:
        """Start by id. An order that is sent too late is not sent."""
        if not_after_us is not None and self._own_clock.now_us > not_after_us:
            raise EngineTooLate(f"start of {container[:12]}: not sent: its time has passed")
        for told in self.on_start_ordered:
            told(container)
        await self._call("start", lambda answer: self.engine.start(container, answer), 1, 4)

    async def kill(self, container: str, *, signal: int = 9) -> None:
        """Send a signal; SIGKILL waits for the end."""
        await self._call("kill", lambda answer: self._kill(container, signal, answer), 1, 4)

    async def remove(self, container: str) -> None:
        """Force-remove by id."""
        await self._call("remove", lambda answer: self.engine.remove(container, answer), 1, 4)

    async def begin_inside(self, container: str, command: tuple[str, ...]) -> str:
        """Begin a command in a container."""
        begun: str = await self._call(
            "exec", lambda answer: self.engine.begin_inside(container, command, answer), 10, 30
        )
        return begun

    async def ended_inside(self, begun: str) -> int | None:
        """Its status; None while it runs."""
        status: int | None = await self._call(
            "inspect", lambda answer: self.engine.ended_inside(begun, answer), 1, 4
        )
        return status

    async def holds(self, rig: str) -> frozenset[str]:
        """The nodes of the rig that are held off."""
        held: frozenset[str] = await self._call(
            "list", lambda answer: answer.succeed(frozenset(self.engine.held.get(rig, set()))), 1, 4
        )
        return held

    def events(self, *, labels: Mapping[str, str]) -> "_Stream":
        """Events from now on of containers that carry these labels. A client is one process's: an earlier stream of it
        is dropped.
        """
        stream = _Stream(self, labels)
        self._streams = [stream]
        self.engine.listen(labels.get(label.NODE), self._hear)
        return stream

    def _kill(self, container: str, signal: int, answer: GuestReply) -> None:
        """The switch of a node may be out of reach, or say that it has switched and do it later."""
        box, troubles, now_us = self.engine.boxes.get(container), self.engine.troubles, self._clock.now_us
        name = box.node if box is not None and box.is_node else ""
        if name and now_us < troubles.switch_unreachable[name]:
            answer.fail(EngineError(f"kill of {container[:12]}: the engine's host cannot be reached"))
        elif name and now_us < troubles.switch_late[name]:
            self._clock.after(
                troubles.switch_delay_us, lambda: self.engine.kill(container, signal, GuestReply())
            )
            answer.succeed()
        else:
            self.engine.kill(container, signal, answer)

    # How a call travels.

    async def _call(self, call: str, operation: Callable[[GuestReply], None], least_ms: int, most_ms: int) -> Any:
        result = self._results.pending()

        def settle(value: object, error: EngineError | None) -> None:
            if result.done():
                return
            if call in self._lost_answers:
                self._lost_answers.remove(call)
                error = EngineUnanswered(f"{call}: the connection broke before the answer")
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(value)

        answer = GuestReply(
            lambda value: self._deliver(lambda: settle(value, None)),
            lambda error: self._deliver(lambda: settle(None, error)),
        )
        def give_up() -> None:
            if not result.done():
                result.set_exception(EngineUnanswered(f"{call}: no answer within {CALL_LIMIT_US // 1_000_000} s"))

        limit = Timer(give_up)
        self._clock.after(CALL_LIMIT_US, limit)
        if call in self._lost_requests:
            self._lost_requests.remove(call)
        else:
            held_us = self._starts_held_until_us - self._clock.now_us if call == "start" else 0
            delay_us = max(held_us, 0) + self.draw(least_ms, most_ms)
            self._clock.after(delay_us, lambda: self._carry_out(operation, answer))
        try:
            return await result
        finally:
            limit.call_off()

    def _carry_out(self, operation: Callable[[GuestReply], None], answer: GuestReply) -> None:
        if self._stalled:
            self._waiting.append((True, lambda: self._carry_out(operation, answer)))
        elif self._clock.now_us < self._gate_us:
            self._clock.at(self._gate_us + self.draw(0, 20), lambda: self._carry_out(operation, answer))
        else:
            operation(answer)

    def _deliver(self, settle: Callable[[], None]) -> None:
        # The way back takes time as well, so that an answer may be older than what is known when it arrives; and an
        # answer that is ready during a stall waits for its end.
        if self._stalled:
            self._waiting.append((False, lambda: self._deliver(settle)))
        else:
            self._clock.at(max(self._clock.now_us + self.engine.rng.randint(100, 1_500), self._gate_us), settle)

    @property
    def _gate_us(self) -> int:
        return max(self._stalled_until_us, self.engine.stalled_until_us)

    def draw(self, least_ms: int, most_ms: int) -> int:
        """A latency in microseconds."""
        return self.engine.rng.randint(least_ms * MS_US, most_ms * MS_US)

    def _hear(self, event: EngineEvent | EventGap) -> None:
        if self._clock.now_us < self._deaf_until_us:
            return
        if self._stalled:
            self._waiting.append((False, lambda: self._hear(event)))
            return
        delay_us = max(self._gate_us - self._clock.now_us, 0) + self.draw(1, 4)
        for stream in self._streams:
            stream.deliver_after(event, delay_us)

    def forget(self, stream: "_Stream") -> None:
        """The reader is gone, or hopelessly behind."""
        if stream in self._streams:
            self._streams.remove(stream)


class _Stream:
    """One subscription: events in the order in which they happened."""

    def __init__(self, client: SimulatedEngineClient, labels: Mapping[str, str]) -> None:
        self._client = client
        self._clock = client.engine.clock
        self._labels = dict(labels)
        self._queue: deque[EngineEvent | EventGap] = deque()
        self._results = SimulatedRuntime(self._clock, on_error=lambda _task, error: _raise(error))
        self._arrived = self._results.pending()
        self._last_us = 0

    def deliver_after(self, event: EngineEvent | EventGap, delay_us: int) -> None:
        """Put it into the reader's queue then, but never before an earlier one."""
        if isinstance(event, EngineEvent) and not self._labels.items() <= event.labels.items():
            return
        self._last_us = max(self._last_us, self._clock.now_us + delay_us)
        self._clock.at(self._last_us, lambda: self._put(event))

    def _put(self, event: EngineEvent | EventGap) -> None:
        self._queue.append(event)
        if len(self._queue) > QUEUE_LIMIT:  # its reader was killed long ago
            self._client.forget(self)
        if not self._arrived.done():
            self._arrived.set_result(None)

    def __aiter__(self) -> "_Stream":
        return self

    async def __anext__(self) -> EngineEvent | EventGap:
        while not self._queue:
            if self._arrived.done():
                self._arrived = self._results.pending()
            await self._arrived
        return self._queue.popleft()


def _raise(error: Exception) -> None:
    raise error
