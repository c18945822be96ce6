"""The watch over the node's other programs: asks resource host and VMMS whether they live, and has PID 1 restart the
one that does not answer.

A program that dies is PID 1's own business; one that hangs looks alive to it. No VM stops by a restart: whoever
comes up next adopts what runs. The service itself is watched by PID 1's deadlines, and a voter by the other voters'
majority.

It outlives a lapse of the lease: whether a program hangs has nothing to do with quorum.
"""

from dataclasses import dataclass

from harness.cluster_service.core.messages import (
    Action,
    Event,
    HostConnected,
    HostLost,
    Log,
    PingProgram,
    ProgramAnswered,
    RestartProgram,
    WatchedProgram,
)
from harness.model.topology import Settings

__all__ = ["COMPONENT", "ProgramWatch"]

COMPONENT = "program-watch"

MAX_PATIENCE = 8
"""A program that was restarted and has not answered since gets twice the time, up to this many times the limit: on a
VM so slow that its start takes longer than the limit, restarting would be all that ever happens.
"""

AWAY_ASKS = 2
"""After a silence of its own of so many asks the service has no right to complain of others' silence."""

DEADLOCKED_EVENT = 1230


@dataclass(slots=True)
class _Silence:
    since_us: int
    patience: int = 1


class ProgramWatch:
    """Invariant: a restart is only asked for after the whole limit of silence in which this service was awake and
    asking; it names the silence's beginning, so that PID 1 never kills a successor.
    """

    def __init__(self, *, settings: Settings) -> None:
        self._ask_us = settings.program_ask_us
        self._limit_us = settings.program_silence_us
        self._silences: dict[WatchedProgram, _Silence] = {}
        self._asked_us = 0
        self._looked_us = 0

    def handle(self, now: int, event: Event) -> list[Action]:
        """Take a fact in; ask who is due, give up who is silent."""
        if not self._silences or now - self._looked_us > AWAY_ASKS * self._ask_us:
            self._begin(now)
        self._looked_us = now
        match event:
            case ProgramAnswered(program):
                self._silences[program] = _Silence(since_us=now)
            case HostConnected() | HostLost():
                # Another process, or none yet. Whether it lives is for its answer to say.
                self._silences[WatchedProgram.RESOURCE_HOST].since_us = now
            case _:
                pass
        actions: list[Action] = []
        if now >= self._asked_us + self._ask_us:
            self._asked_us = now
            actions += [PingProgram(program) for program in WatchedProgram]
        for program, silence in self._silences.items():
            if now >= silence.since_us + silence.patience * self._limit_us:
                actions += self._give_up(now, program, silence)
        return actions

    def next_wake(self) -> int:
        """When the next question is due."""
        return self._asked_us + self._ask_us

    def _begin(self, now: int) -> None:
        """From here on silence counts."""
        for program in WatchedProgram:
            self._silences.setdefault(program, _Silence(since_us=now)).since_us = now

    @staticmethod
    def _give_up(now: int, program: WatchedProgram, silence: _Silence) -> list[Action]:
        since_us = silence.since_us
        silence.since_us = now
        silence.patience = min(2 * silence.patience, MAX_PATIENCE)
        silent_s = (now - since_us) / 1e6
        log = Log(
            component=COMPONENT,
            event="program-hung",
            message=f"{program} has not answered for {silent_s:.1f} s: it is killed and started again",
            id=DEADLOCKED_EVENT if program is WatchedProgram.RESOURCE_HOST else None,
            fields={"program": program.value, "silent_s": round(silent_s, 3)},
        )
        return [log, RestartProgram(program=program, silent_since_us=since_us)]
