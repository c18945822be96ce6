"""Carrying out one activity: pause, ask or inject, compare, register; and writing down how it ended.

One activity at a time, in the order of the file. What an outcome means for the run is the runner's business; here it is
only said: a probe that does not hold is a broken expectation, unless the host was overloaded meanwhile and the bound is
one of time.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from chaos.arena.port import Arena, Command
from chaos.experiment.records import Activity, CommandCall, FaultCall, ProbeCall, Until
from chaos.experiment.targets import FromRegister, Target, Unresolved
from chaos.faults.kinds import TargetKind
from chaos.history.overload import overload_since
from chaos.history.records import FaultMoment, FaultRecord, StepEnded
from chaos.history.verdict import Finding, FindingKind
from chaos.run.continuous_probes import ContinuousProbes, Violation
from chaos.run.injection import Injector, NotInjected
from chaos.run.probes import ProbeReply, ask
from chaos.run.terminal import Terminal
from harness.errors import HarnessError, RequestRefused
from harness.model.topology import Topology

__all__ = ["ActivityRunner", "RunPhase", "Sleep"]

Sleep = Callable[[int], Awaitable[None]]


LINES_COME_WITHIN_US = 2_000_000
"""How late a node may report that its loop was late: the window of a second that the report is about, and its way."""

RESTORED_WITHIN = Until(timeout_us=60_000_000, interval_us=500_000)
"""How long the steady state may take to be back after the rollbacks, where its probe says nothing: a node boots."""


class RunPhase(StrEnum):
    """The part of a run that an activity belongs to."""

    GATE = "gate"
    METHOD = "method"
    DURING = "during"
    AFTER = "after"
    ROLLBACKS = "rollbacks"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    outcome: str
    output: Any = None
    reason: str = ""
    finding: Finding | None = None


class ActivityRunner:
    """The activities of one run, the registers that they write, and what the probes of their `during` have found."""

    def __init__(self, *, arena: Arena, topology: Topology, injector: Injector, terminal: Terminal) -> None:
        self.registers: dict[str, Any] = {}
        self.violations: list[Finding] = []
        self._arena = arena
        self._topology = topology
        self._injector = injector
        self._terminal = terminal

    async def run(self, activity: Activity, phase: RunPhase, *, sleep: Sleep, patient: bool = True) -> Finding | None:
        """Carry out one activity, and what is held during it.

        `patient` False: no pauses and no second asking. Answers what stands against a pass, if anything.
        """
        began_ns = self._arena.unix_ns()
        if activity.pause_before_us and patient:
            self._terminal.waiting(f"{activity.name}: pause of {activity.pause_before_us / 1e6:g} s")
            await sleep(activity.pause_before_us)
        holding = self.holding(activity.during)
        try:
            if isinstance(activity.call, FaultCall):
                ended = await self._inject(activity, activity.call, phase)
            elif isinstance(activity.call, CommandCall):
                ended = await self._command(activity, activity.call, phase)
            else:
                ended = await self._probe(activity, activity.call, phase, sleep=sleep, patient=patient)
            self.note(activity, phase, began_ns, ended.outcome, output=ended.output, reason=ended.reason)
            if activity.pause_after_us and patient and ended.finding is None:
                self._terminal.waiting(f"{activity.name}: pause of {activity.pause_after_us / 1e6:g} s")
                await sleep(activity.pause_after_us)
        finally:
            self.violations += holding.end()
        return ended.finding

    def holding(self, probes: Sequence[Activity]) -> ContinuousProbes:
        """Ask these probes from now on, until the answer's `end`."""
        return ContinuousProbes(self._arena, probes, ask=self._ask, told=self._violated, held=self._held)

    def note(
        self, activity: Activity, phase: RunPhase, began_ns: int, outcome: str, *, output: Any = None, reason: str = ""
    ) -> None:
        """Write down how an activity ended, and show it."""
        now_ns = self._arena.unix_ns()
        self._arena.history.append(
            StepEnded(
                at_ns=now_ns,
                began_ns=began_ns,
                phase=phase.value,
                name=activity.name,
                outcome=outcome,
                output=output,
                reason=reason,
                what=str(activity.call),
                expected="" if activity.tolerance is None else str(activity.tolerance),
            )
        )
        self._terminal.step(activity.name, outcome, reason, (now_ns - began_ns) / 1e9)

    async def _inject(self, activity: Activity, call: FaultCall, phase: RunPhase) -> _Outcome:
        if isinstance(call.target, FromRegister) and call.target.register not in self.registers:
            reason = f"${{{call.target.register}}} was never written: that step was not reached"
            return self._not_done(activity, phase, reason)
        self._terminal.waiting(f"{activity.name}: {call.fault} on {call.target}")
        try:
            injected = await self._injector.inject(call, self.registers)
        except NotInjected as error:
            return self._not_done(activity, phase, str(error))
        if activity.register:
            self.registers[activity.register] = injected.target
        receipt, on = injected.receipt, ", ".join(injected.targets)
        if receipt.outcome is FaultMoment.CONFIRMED:
            return _Outcome(outcome="succeeded", output=injected.target, reason=f"{on}: {receipt.seen}")
        reason = f"{activity.name}: the fault {call.fault} is not confirmed ({receipt.outcome}): {receipt.seen}"
        finding = Finding(kind=FindingKind.INCONCLUSIVE, reason=reason)
        return _Outcome(outcome="failed", output=injected.target, reason=receipt.seen, finding=finding)

    async def _command(self, activity: Activity, call: CommandCall, phase: RunPhase) -> _Outcome:
        """Ask the cluster. What follows from the wish is for probes to wait for."""
        self._terminal.waiting(f"{activity.name}: {call}")
        try:
            named = [await self._named(value) for value in (call.name, *call.arguments.values())]
            arguments = dict(zip(call.arguments, named[1:], strict=True))
            command = Command(subject=call.subject, name=str(named[0]), verb=call.verb, arguments=arguments)
            said = await self._arena.request(command)
        except Unresolved as missing:
            return self._not_done(activity, phase, f"{call}: {missing}")
        except (RequestRefused, HarnessError) as refusal:
            return self._not_done(activity, phase, str(refusal))
        return _Outcome(outcome="succeeded", output=str(command), reason=said)

    async def _named(self, value: str | bool | Target) -> str | bool:
        if isinstance(value, str | bool):
            return value
        return (await self._injector.resolve(value, TargetKind.NODE, self.registers))[0]

    @staticmethod
    def _not_done(activity: Activity, phase: RunPhase, reason: str) -> _Outcome:
        """A cure that finds nothing to cure is fine; a missing fault of the method makes the run prove nothing, unless
        the file says that it may be missing.
        """
        if phase is RunPhase.ROLLBACKS or activity.if_possible:
            return _Outcome(outcome="skipped", reason=reason)
        what = "not injected" if isinstance(activity.call, FaultCall) else "not carried out"
        finding = Finding(kind=FindingKind.INCONCLUSIVE, reason=f"{what}: {reason}")
        return _Outcome(outcome="failed", reason=reason, finding=finding)

    async def _probe(
        self, activity: Activity, call: ProbeCall, phase: RunPhase, *, sleep: Sleep, patient: bool
    ) -> _Outcome:
        missing = [
            value.register
            for value in call.arguments.values()
            if isinstance(value, FromRegister) and value.register not in self.registers
        ]
        if missing:
            return _Outcome(outcome="skipped", reason=f"${{{missing[0]}}} was never written: that step was not reached")
        began_us, began_ns = self._arena.runtime.now(), self._arena.unix_ns()
        until = activity.until or (RESTORED_WITHIN if phase is RunPhase.RESTORED else None)
        while True:
            reply = await self._ask(call)
            if activity.tolerance is None or activity.tolerance.holds(reply.value):
                if activity.register:
                    self.registers[activity.register] = reply.value
                return _Outcome(outcome="succeeded", output=reply.value, reason=reply.reason)
            waited_us = self._arena.runtime.now() - began_us
            if until is None or not patient or waited_us >= until.timeout_us:
                break
            left_us = until.timeout_us - waited_us
            self._terminal.waiting(activity.name, f"{waited_us / 1e6:.0f} s, {reply.reason}")
            await sleep(min(until.interval_us, left_us))
        timed = call.timed or until is not None
        if timed and patient and not self._overload(began_ns):
            await sleep(LINES_COME_WITHIN_US)
        finding = self._broken(activity, reply, began_ns, until=until, timed=timed)
        if phase is RunPhase.GATE:
            finding = Finding(kind=FindingKind.NO_STEADY_STATE, reason=finding.reason)
        reason = finding.reason.removeprefix(f"{activity.name}: ")
        return _Outcome(outcome="failed", output=reply.value, reason=reason, finding=finding)

    async def _ask(self, call: ProbeCall) -> ProbeReply:
        return await ask(call, arena=self._arena, topology=self._topology, registers=self.registers)

    def _violated(self, violation: Violation) -> Finding:
        activity, reply, began_ns = violation.activity, violation.reply, violation.began_ns
        assert isinstance(activity.call, ProbeCall)
        lasted_s = (violation.ended_ns - began_ns) / 1e9
        when = f"from {_clock(began_ns)} on for {lasted_s:.1f} s"
        told = ProbeReply(value=reply.value, reason=f"{reply.reason}, {when}" if reply.reason else when)
        finding = self._broken(activity, told, began_ns, until=None, timed=activity.call.timed)
        reason = finding.reason.removeprefix(f"{activity.name}: ")
        self.note(activity, RunPhase.DURING, began_ns, "failed", output=reply.value, reason=reason)
        return finding

    def _held(self, activity: Activity, began_ns: int, asked: int) -> None:
        self.note(activity, RunPhase.DURING, began_ns, "succeeded", reason=f"asked {asked} times, held each time")

    def _broken(
        self, activity: Activity, reply: ProbeReply, began_ns: int, *, until: Until | None, timed: bool
    ) -> Finding:
        """A bound of time that fails while the host is overloaded says nothing about the system under test."""
        limit = f" within {until.timeout_us / 1e6:g} s" if until else ""
        answer = "last answer" if until else "answer"
        seen = f"{answer} {reply.value!r}" + (f" ({reply.reason})" if reply.reason else "")
        reason = f"{activity.name}: expected {activity.tolerance}{limit}, {seen}"
        overload = self._overload(began_ns) if timed else ""
        if overload:
            return Finding(kind=FindingKind.INCONCLUSIVE, reason=f"{reason}; but {overload}")
        return Finding(kind=FindingKind.BROKEN, reason=reason)

    def _overload(self, began_ns: int) -> str:
        """What a time measured now may have in it: since the last fault, or since the asking began."""
        faults = [fault.at_ns for fault in self._arena.history.of(FaultRecord) if fault.moment is FaultMoment.INJECTED]
        return overload_since(self._arena.history, min([began_ns, *faults[-1:]]))


def _clock(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, tz=UTC).strftime("%H:%M:%S.%f")[:-3]
