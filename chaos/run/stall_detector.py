"""The stall detector: the runner's ticks and the engine's answers, recorded when they come late.

Two of the three observers of an overload (`chaos.history.overload`); the nodes report their own loops in the cluster
log. The ticks measure the runner's own loop, on which every time bound of a run is measured. The detector does not know
the cause of a late tick: a frozen or overloaded host, a suspended laptop and a blocked loop look alike and spoil a time
bound alike.
"""

from chaos.arena.port import Arena
from chaos.history.overload import LATE_US
from chaos.history.records import EngineSlow, Stall
from harness.errors import BlackstartError
from harness.ports import Task

__all__ = ["detect_stalls"]

TICK_US = 100_000
ENGINE_INTERVAL_US = 1_000_000
"""Between the engine's answer and the next question: a millisecond of work a second, none of it in a node."""


async def detect_stalls(arena: Arena) -> None:
    """Record every stall and every slow answer; ends when it is cancelled."""
    engine = _EngineWatch(arena)
    try:
        while True:
            due_us = arena.runtime.now() + TICK_US
            await arena.runtime.sleep(TICK_US)
            late_us = arena.runtime.now() - due_us
            if late_us > LATE_US:
                arena.history.append(Stall(at_ns=arena.unix_ns(), length_us=late_us, load=arena.load_average()))
            else:
                # After a late tick an answer may be there already and only not have been taken yet.
                engine.look()
    finally:
        engine.end()


class _EngineWatch:
    """One question at a time. Invariant: an answer that takes longer than the limit is in the history before it comes.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._task: Task | None = None
        self._asked_us = 0
        self._next_us = 0
        self._told = False

    def look(self) -> None:
        """Ask when it is time to; record that an answer is late."""
        now_us = self._arena.runtime.now()
        if self._task is None:
            if now_us >= self._next_us:
                self._asked_us, self._told = now_us, False
                self._task = self._arena.runtime.spawn(self._ask(), name="engine watch")
        elif not self._told and now_us - self._asked_us > LATE_US:
            self._told = True
            self._record(now_us - self._asked_us, answered=False)

    def end(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()

    async def _ask(self) -> None:
        answered = True
        try:
            took_us = await self._arena.ask_engine()
        except BlackstartError:
            took_us, answered = self._arena.runtime.now() - self._asked_us, False
        if took_us > LATE_US:
            self._record(took_us, answered=answered)
        self._task = None
        self._next_us = self._arena.runtime.now() + ENGINE_INTERVAL_US

    def _record(self, took_us: int, *, answered: bool) -> None:
        at_ns, load = self._arena.unix_ns(), self._arena.load_average()
        self._arena.history.append(EngineSlow(at_ns=at_ns, took_us=took_us, answered=answered, load=load))
