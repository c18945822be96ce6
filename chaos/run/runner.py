"""One run of one experiment: from the rig's first container to the verdict, whatever happens in between.

    up, gate, method (with `during`), steady state after, rollbacks, undo, steady state restored, last look, checkers,
    evidence, down, verdict

A coroutine that awaits its arena and nothing else, so the same run goes through containers or through the simulation.
Every part has one root, where an error becomes a finding; no error, of printing and of the journal included, skips the
clean-up. It judges nothing by itself: probes, receipts and checkers do, and `verdict` adds up.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chaos.arena.interrupt import Interrupt
from chaos.arena.port import Arena
from chaos.checkers import AFTER_CLEAN_UP, CHECKERS, Checker, run_check
from chaos.experiment.records import Activity, Experiment
from chaos.history.journal import Journal
from chaos.history.records import PartBegan
from chaos.history.recovery import Recovery, read_recoveries
from chaos.history.verdict import ExitCode, Finding, FindingKind, Ruling, Verdict, exit_code
from chaos.reaper.ledger import Ledger
from chaos.run.activity_runner import ActivityRunner, RunPhase
from chaos.run.background_steps import BackgroundSteps
from chaos.run.end_state import record_end_state
from chaos.run.error_root import ErrorRoot
from chaos.run.injection import Injector
from chaos.run.journal_document import RunFacts, about_experiment, journal_document
from chaos.run.stall_detector import detect_stalls
from chaos.run.terminal import Terminal
from harness.errors import BlackstartError
from harness.ports import DeadlinePassed

__all__ = ["RunResult", "run_experiment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended. `findings` are everything that stands against a pass."""

    experiment: Experiment
    code: ExitCode
    findings: tuple[Finding, ...]
    verdicts: tuple[Verdict, ...]
    journal: Path

    def with_finding(self, kind: FindingKind, reason: str) -> "RunResult":
        """This result with one more finding, and the exit code that follows from it."""
        findings = (*self.findings, Finding(kind=kind, reason=reason))
        return replace(self, findings=findings, code=exit_code(findings))


async def run_experiment(
    experiment: Experiment,
    *,
    arena: Arena,
    interrupt: Interrupt,
    terminal: Terminal,
    out: Path,
    keep_rig: bool = False,
    seed: int = 0,
) -> RunResult:
    """Run one experiment to its end. `seed` decides where a target leaves a choice.

    Raises HarnessError only when the journal cannot even be opened: then nothing was started.
    """
    journal = Journal(out)
    try:
        run = _Run(experiment, arena, interrupt, terminal, journal, keep_rig=keep_rig, seed=seed)
        return await run.execute()
    except BaseException:
        journal.close()
        raise


class _Run:
    """The state of one run. Invariant: once `up` was begun, `_take_down` is reached."""

    def __init__(
        self,
        experiment: Experiment,
        arena: Arena,
        interrupt: Interrupt,
        terminal: Terminal,
        journal: Journal,
        *,
        keep_rig: bool,
        seed: int,
    ) -> None:
        self._experiment = experiment
        self._arena = arena
        self._interrupt = interrupt
        self._said = ""
        self._terminal = terminal
        self._journal = journal
        self._keep_rig = keep_rig
        voters = [node.name for node in experiment.topology.nodes if node.voter]
        ledger = Ledger(rig=experiment.topology.rig, keep=arena.keep_ledger_line)
        self._injector = Injector(arena, ledger, voters=voters, seed=seed)
        self._seed = seed
        self._activities = ActivityRunner(
            arena=arena, topology=experiment.topology, injector=self._injector, terminal=terminal
        )
        self._findings: list[Finding] = []
        self._root = ErrorRoot(journal, self._findings)
        self._verdicts: list[Verdict] = []
        self._began_ns = arena.unix_ns()
        self._reached: set[str] = set()
        self._changed_back = False
        self._violated = False
        self._background = BackgroundSteps(arena.runtime, run=self._run_in_background)

    async def execute(self) -> RunResult:
        """Everything from `up` to the verdict. `_take_down` is reached whatever is raised before it."""
        try:
            await self._root.part("run", self._proceed)
        except GeneratorExit:
            raise  # the loop has dropped the run: nothing can be awaited any more
        except BaseException:
            await self._part("down", self._take_down)
            raise
        await self._part("down", self._take_down)
        await self._root.part("checkers after the clean-up", lambda: self._check(AFTER_CLEAN_UP))
        return self._conclude()

    async def _proceed(self) -> None:
        """Everything that needs the rig."""
        await self._root.part("begin", self._begin)
        watch = self._arena.runtime.spawn(detect_stalls(self._arena), name="stall watch")
        try:
            if await self._part("up", self._bring_up):
                if await self._part("gate", self._gate) and not self._findings:
                    await self._part("method", self._method)
                    await self._part("rollbacks", self._roll_back)
                await self._part("undo", self._undo)
                if self._changed_back and self._interrupt.signal is None:
                    await self._part("restored", self._ask_restored)
                await self._part("last look", self._last_look)
            else:
                await self._part("undo", self._undo)
        finally:
            watch.cancel()
        await self._root.part("checkers", self._rule)
        await self._part("evidence", self._collect)

    async def _begin(self) -> None:
        self._journal.follow(self._arena.history)
        self._terminal.begin(self._experiment.title, self._experiment.file, self._experiment.topology.rig)
        for choice in self._experiment.choices:
            self._terminal.note(f"chosen: {choice}")
        self._journal.write(
            "run-began",
            {
                "at_ns": self._began_ns,
                **about_experiment(self._experiment),
                "seed": self._seed,
                "choices": self._experiment.choices,
            },
        )

    async def _part(self, name: str, part: Callable[[], Awaitable[None]]) -> bool:
        """One part of the run. Answers whether it came to its end."""
        await self._root.part(name, lambda: self._announce(name))
        ended = await self._root.part(name, part)
        if ended:
            self._reached.add(name)
        return ended

    async def _announce(self, name: str) -> None:
        self._arena.history.append(PartBegan(at_ns=self._arena.unix_ns(), part=name))

    async def _bring_up(self) -> None:
        self._terminal.phase(f"Rig {self._experiment.topology.rig}")
        self._interrupt.check()
        await self._arena.up(self._experiment.topology, say=self._say)
        self._journal.write("facts", self._arena.facts())
        self._terminal.note("up")
        self._interrupt.check()

    def _say(self, text: str) -> None:
        """What the rig waits for. Raising here, in the middle of the bring-up, is how a signal ends it."""
        self._interrupt.check()
        if text != self._said:
            self._said = text
            self._terminal.waiting(text)

    async def _gate(self) -> None:
        self._terminal.phase(f"Steady state before: {self._experiment.hypothesis_title or 'nothing is asked'}")
        await self._ask_hypothesis(RunPhase.GATE)

    async def _method(self) -> None:
        self._terminal.phase("Method")
        holding = self._activities.holding(self._experiment.during)
        try:
            whole = await self._steps()
        finally:
            # What was begun in the background is completed before anything is undone; it hears a signal by itself.
            await self._background.wait_ended()
            self._findings += [*self._background.findings, *self._activities.violations, *holding.end()]
        if whole and not self._background.findings:
            self._terminal.phase("Steady state after")
            await self._ask_hypothesis(RunPhase.AFTER)

    async def _steps(self) -> bool:
        """Whether every step was reached and none failed.

        A broken expectation or an unconfirmed fault ends the method: what follows would be injected into an unknown
        state. A violation of `during` does not: the run is lost, and what follows shows how badly.
        """
        for activity in self._experiment.method:
            self._interrupt.check()
            if self._background.findings:
                return False
            if activity.background:
                self._background.begin(activity)
            elif not await self._step(activity, RunPhase.METHOD):
                return False
        return True

    async def _ask_hypothesis(self, phase: RunPhase) -> None:
        for activity in self._experiment.hypothesis:
            self._interrupt.check()
            if not await self._step(activity, phase):
                return

    async def _step(self, activity: Activity, phase: RunPhase) -> bool:
        finding = await self._activities.run(activity, phase, sleep=self._interrupt.sleep)
        if finding is not None:
            self._findings.append(finding)
        return finding is None

    async def _run_in_background(self, activity: Activity) -> Finding | None:
        return await self._activities.run(activity, RunPhase.METHOD, sleep=self._interrupt.sleep)

    async def _roll_back(self) -> None:
        """Rollbacks run whatever happened, and a signal does not end them; after one they do not wait."""
        if not self._experiment.rollbacks:
            return
        self._terminal.phase("Rollbacks")
        for activity in self._experiment.rollbacks:
            try:
                finding = await self._activities.run(
                    activity,
                    RunPhase.ROLLBACKS,
                    sleep=self._arena.runtime.sleep,
                    patient=self._interrupt.signal is None,
                )
            except (BlackstartError, DeadlinePassed) as error:
                began_ns = self._arena.unix_ns()
                self._activities.note(activity, RunPhase.ROLLBACKS, began_ns, "failed", reason=str(error))
                finding = Finding(kind=FindingKind.CLEANUP, reason=f"{activity.name}: {error}")
            if finding is not None:
                self._find(FindingKind.CLEANUP, f"rollback failed: {finding.reason}")
        self._changed_back = True

    async def _ask_restored(self) -> None:
        """What was cured must be as it was before: a clean-up that breaks the cluster is none."""
        self._terminal.phase("Steady state restored")
        await self._ask_hypothesis(RunPhase.RESTORED)

    async def _undo(self) -> None:
        if not self._injector.open_faults():
            return
        self._changed_back = True
        self._terminal.phase("Undo what is still injected")
        for problem in await self._injector.undo_all():
            # Whether it is a clean-up problem shows when the rig is gone: a fault cannot outlive its rig.
            self._find(FindingKind.HARNESS, problem)

    async def _last_look(self) -> None:
        self._terminal.phase("Last look")
        settled = "gate" in self._reached and not self._gate_failed
        await record_end_state(self._arena, self._terminal, self._interrupt, settle=settled)

    @property
    def _gate_failed(self) -> bool:
        return any(finding.kind is FindingKind.NO_STEADY_STATE for finding in self._findings)

    async def _rule(self) -> None:
        await self._check(CHECKERS)
        if self._experiment.expects_violation and not self._violated and "method" in self._reached:
            self._find(FindingKind.BROKEN, "a violation of a safety invariant was expected, and no checker found one")

    async def _check(self, checkers: Sequence[Checker]) -> None:
        """Rule. On a run that did not get to its method only what must never happen counts, and only if it did."""
        began = "gate" in self._reached and not self._gate_failed
        for checker in checkers:
            verdict = run_check(checker, self._arena.history)
            self._verdicts.append(verdict)
            reason = f"{verdict.checker}: {'; '.join(verdict.reasons)}"
            if checker in AFTER_CLEAN_UP:
                if verdict.ruling is not Ruling.HOLDS:
                    self._find(FindingKind.CLEANUP, reason)
            elif verdict.ruling is Ruling.BROKEN and checker.safety and self._experiment.expects_violation:
                self._terminal.note(f"expected: {reason}")
                self._violated = True
            elif verdict.ruling is Ruling.BROKEN and (checker.safety or began):
                self._find(FindingKind.BROKEN, reason)
            elif verdict.ruling is Ruling.INCONCLUSIVE and began:
                self._find(FindingKind.INCONCLUSIVE, reason)
            # After the finding: what the journal cannot take must still decide the exit code.
            self._journal.write("verdict", {"verdict": verdict})

    async def _collect(self) -> None:
        """Evidence is there before the clean-up takes it away, and only when somebody will want to read it."""
        if not self._findings and self._interrupt.signal is None:
            return
        self._terminal.waiting("collecting evidence")
        await self._arena.collect(self._journal.path.parent / "evidence")
        self._terminal.rest()

    async def _take_down(self) -> None:
        if not self._keep_rig:
            self._terminal.waiting("taking down what this run made")
        await self._root.part("reaper", self._confirm_guard)
        await self._arena.down(keep=self._keep_rig)
        self._terminal.rest()

    async def _confirm_guard(self) -> None:
        lost = await self._arena.guard_lost()
        if lost:
            self._find(FindingKind.HARNESS, lost)

    def _conclude(self) -> RunResult:
        """Add up and close the journal. Each step is tried, also after one that failed."""
        if self._interrupt.signal is not None:
            reason = f"asked to stop by {self._interrupt.name}"
            self._findings.append(Finding(kind=FindingKind.SIGNAL, reason=reason, signal=self._interrupt.signal))
        none: tuple[Recovery, ...] = ()
        recoveries = self._root.step("recovery", lambda: tuple(read_recoveries(self._arena.history)), none)
        self._root.step("journal", lambda: self._write_journal(recoveries), None)
        self._root.step("journal", self._journal.close, None)
        self._terminal.recovery(recoveries)
        self._terminal.verdicts(self._verdicts)
        return RunResult(
            experiment=self._experiment,
            code=exit_code(self._findings),
            findings=tuple(self._findings),
            verdicts=tuple(self._verdicts),
            journal=self._journal.path,
        )

    def _write_journal(self, recoveries: tuple[Recovery, ...]) -> None:
        if self._journal.error:
            self._find(FindingKind.HARNESS, self._journal.error)
        code = exit_code(self._findings)
        facts = RunFacts(
            experiment=self._experiment,
            history=self._arena.history,
            arena=self._arena.facts(),
            began_ns=self._began_ns,
            ended_ns=self._arena.unix_ns(),
            code=code,
            findings=tuple(self._findings),
            verdicts=tuple(self._verdicts),
            recoveries=recoveries,
            seed=self._seed,
        )
        self._journal.write("run-ended", {"at_ns": facts.ended_ns, "exit_code": code.value, "findings": facts.findings})
        self._journal.assemble(journal_document(facts))

    def _find(self, kind: FindingKind, reason: str) -> None:
        self._findings.append(Finding(kind=kind, reason=reason))
