"""Probes of `during`: asked all the way through a step or the whole method; each violation is found, with its time.

A violation lasts from the first answer that does not hold to the next one that does, or to the end. It is no reason to
stop: what follows shows how long it lasts, and whether it comes again.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from chaos.arena.port import Arena
from chaos.experiment.records import Activity, ProbeCall
from chaos.history.verdict import Finding, FindingKind
from chaos.run.probes import ProbeReply
from harness.ports import Task

__all__ = ["ContinuousProbes", "Violation"]

VIOLATIONS_LIMIT = 20
"""Violations of one probe that are told one by one; the others are counted. Nobody reads more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One probe did not hold from `began_ns` to `ended_ns`, with this answer first."""

    activity: Activity
    reply: ProbeReply
    began_ns: int
    ended_ns: int


class ContinuousProbes:
    """Some probes, asked until `end`. Invariant: whatever was violated before `end` is told by it, or was told."""

    def __init__(
        self,
        arena: Arena,
        probes: Sequence[Activity],
        *,
        ask: Callable[[ProbeCall], Awaitable[ProbeReply]],
        told: Callable[[Violation], Finding],
        held: Callable[[Activity, int, int], None],
    ) -> None:
        """Begins to ask.

        `told` writes a violation down and judges it; `held` writes down that a probe held from a time on, and how often
        it was asked.
        """
        self._arena = arena
        self._ask = ask
        self._told = told
        self._held = held
        self._findings: list[Finding] = []
        self._holds = [_Hold(began_ns=arena.unix_ns(), activity=probe) for probe in probes]
        self._tasks: list[Task] = [
            arena.runtime.spawn(self._run(hold), name=f"during {hold.activity.name}") for hold in self._holds
        ]

    def end(self) -> list[Finding]:
        """Asks no more; the answer is what stands against a pass."""
        for task in self._tasks:
            task.cancel()
        for hold in self._holds:
            self._close(hold)
            if not hold.violations and not hold.failed:
                self._held(hold.activity, hold.began_ns, hold.asked)
            elif hold.violations > VIOLATIONS_LIMIT:
                more = hold.violations - VIOLATIONS_LIMIT
                reason = f"{hold.activity.name}: violated {more} times more"
                self._findings.append(Finding(kind=FindingKind.BROKEN, reason=reason))
        return self._findings

    async def _run(self, hold: "_Hold") -> None:
        """The root of one probe."""
        try:
            while True:
                await self._once(hold)
                await self._arena.runtime.sleep(hold.activity.interval_us)
        except Exception as error:  # noqa: BLE001 - a task's root: nobody awaits it
            hold.failed = True
            reason = f"during, {hold.activity.name}: {type(error).__name__}: {error}"
            self._findings.append(Finding(kind=FindingKind.HARNESS, reason=reason))

    async def _once(self, hold: "_Hold") -> None:
        activity = hold.activity
        assert isinstance(activity.call, ProbeCall)
        at_ns = self._arena.unix_ns()
        reply = await self._ask(activity.call)
        hold.asked += 1
        if activity.tolerance is None or activity.tolerance.holds(reply.value):
            self._close(hold)
        elif hold.open is None:
            hold.open = (at_ns, reply)

    def _close(self, hold: "_Hold") -> None:
        if hold.open is None:
            return
        began_ns, reply = hold.open
        hold.open = None
        hold.violations += 1
        if hold.violations <= VIOLATIONS_LIMIT:
            ended_ns = self._arena.unix_ns()
            violation = Violation(activity=hold.activity, reply=reply, began_ns=began_ns, ended_ns=ended_ns)
            self._findings.append(self._told(violation))


@dataclass(slots=True, kw_only=True)
class _Hold:
    activity: Activity
    began_ns: int
    asked: int = 0
    violations: int = 0
    failed: bool = False
    open: tuple[int, ProbeReply] | None = None
