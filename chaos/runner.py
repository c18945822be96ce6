"""One run of one experiment: from the rig's first container to the verdict, whatever happens in between.

    up, gate, method (with `during`), steady state after, rollbacks, undo, steady state restored, last look, checkers,
    evidence, down, verdict

A coroutine that awaits its arena and nothing else, so the same run goes through containers or through the simulation.
Every part has one root, where an error becomes a finding; no error, of printing and of the journal included, skips the
clean-up. It judges nothing by itself: probes, receipts and checkers do, and `verdict` adds up.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from chaos.activities import Activities, Phase
from chaos.arena import Arena, Stage
from chaos.background import Background
from chaos.barred import barred
from chaos.checkers import AFTER_CLEAN_UP, CHECKERS, Checker, run_check
from chaos.error_root import ErrorRoot
from chaos.experiment import Activity, Experiment, load_experiment
from chaos.history import PartBegan
from chaos.injection import Injector
from chaos.interrupt import Interrupt
from chaos.journal import Journal
from chaos.journal_copy import copy_journal, prepare_journal_copy
from chaos.journal_document import RunFacts, about_experiment, journal_document
from chaos.last_look import look_last
from chaos.ledger import Ledger
from chaos.live_loop import drive
from chaos.options import ReportFiles, RunOptions, check_options
from chaos.output_folder import OutputFolder, held_output, refuse_held
from chaos.printing import echo
from chaos.recovery import Recovery, read_recoveries
from chaos.report.writing import prepare_reports, write_reports
from chaos.stages import stages
from chaos.stall_watch import watch_stalls
from chaos.terminal import Terminal
from chaos.verdict import ExitCode, Finding, FindingKind, Ruling, Verdict, exit_code, exit_meaning
from harness.errors import BlackstartError, HarnessError, UsageError
from harness.ports import DeadlinePassed, Runtime

__all__ = ["RunResult", "load_all", "run_experiment", "run_files"]


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


def run_files(
    paths: Sequence[Path],
    *,
    options: RunOptions,
    console: Console | None = None,
    unbroken: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> int:
    """Run the experiments in those files, one after another, and answer the exit code of them all.

    Every file is read before anything starts; one that is refused refuses them all (2), with every refusal on standard
    error. A signal ends the run under way, cleans it up, and starts no further one. `unbroken` is entered while reports
    are written: no signal is to end that.
    """
    terminal = Terminal(console)
    try:
        check_options(options, files=len(paths))
        experiments = load_all(paths, rig=options.on_rig or options.rig)
        if options.dry:
            for experiment in experiments:
                terminal.plan(experiment)
            return ExitCode.PASSED.value
        refuse_held(options.out)  # before a report is removed
        if options.journal is not None:
            prepare_journal_copy(options.journal, inputs=paths)
        if options.reports.wanted:
            prepare_reports(options.reports, inputs=paths)
        with held_output(options.out):
            return _play(experiments, options=options, terminal=terminal, unbroken=unbroken)
    except UsageError as error:
        echo(error, err=True)
        return ExitCode.USAGE.value


def _play(
    experiments: Sequence[Experiment],
    *,
    options: RunOptions,
    terminal: Terminal,
    unbroken: Callable[[], AbstractContextManager[None]],
) -> int:
    """Run what was read, make the reports, and answer the exit code of them all."""
    journals: list[Path] = []
    findings: list[Finding] = []

    async def main(runtime: Runtime, interrupt: Interrupt) -> None:
        interrupt.listen(terminal.note)
        await _run_all(
            experiments,
            stage=stages(options, runtime, interrupt),
            interrupt=interrupt,
            terminal=terminal,
            options=options,
            journals=journals,
            findings=findings,
        )

    problem = ""
    try:
        drive(main)
        code = exit_code(findings).value
    except BlackstartError as error:
        problem = str(error)
        # Its verdicts count for nothing, but a rig that was left behind is left behind all the same.
        left = any(finding.kind is FindingKind.CLEANUP for finding in findings)
        failed = ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.HARNESS
        code = ExitCode.CLEANUP.value if left else failed.value
    if problem:
        echo(problem, err=True)
    if options.reports.wanted:
        not_started = [experiment.file for experiment in experiments[len(journals) :]]
        with unbroken():
            return _report(
                journals,
                not_started,
                problem,
                code=code,
                files=options.reports,
                terminal=terminal,
                started=[experiment.file for experiment in experiments[: len(journals)]],
            )
    return code


def load_all(paths: Sequence[Path], *, rig: str | None = None) -> list[Experiment]:
    """The experiments of all files. Raises one UsageError with what is wrong in any of them."""
    experiments, refusals = [], []
    for path in paths:
        try:
            experiments.append(load_experiment(path, rig=rig))
        except UsageError as error:
            refusals.append(str(error))
    if not paths:
        refusals.append("no file was named, expected at least one experiment")
    if refusals:
        raise UsageError("\n".join(refusals))
    return experiments


async def _run_all(
    experiments: Sequence[Experiment],
    *,
    stage: Callable[[], Stage],
    interrupt: Interrupt,
    terminal: Terminal,
    options: RunOptions,
    journals: list[Path],
    findings: list[Finding],
) -> None:
    """One stage and one folder a file.

    `journals` gets the journal of each run and `findings` what stands against a pass, as soon as a run has ended.
    """
    output = OutputFolder(options.out)
    for experiment in experiments:
        if interrupt.signal is not None:
            reason = f"asked to stop by {interrupt.name} before {experiment.file}"
            findings.append(Finding(kind=FindingKind.SIGNAL, reason=reason, signal=interrupt.signal))
            break
        there = stage()
        refusals = barred(experiment, arena=options.arena, supports=there.arena.supports)
        if refusals:
            raise UsageError("\n".join(refusals))
        out = output.new_run(experiment.file)
        result = await there.play(
            run_experiment(
                experiment,
                arena=there.arena,
                interrupt=there.interrupt,
                terminal=terminal,
                out=out,
                keep_rig=options.keep_rig,
                seed=options.seed,
            )
        )
        output.run_ended(out)
        outputs = [f"journal: {result.journal}"]
        if options.journal is not None:
            try:
                copy_journal(result.journal, options.journal)
                outputs.append(f"journal: {options.journal}")
            except HarnessError as error:
                result = result.with_finding(FindingKind.HARNESS, str(error))
        if options.keep_rig and options.on_rig is None:
            rig = experiment.topology.rig
            outputs.append(f"rig {rig} is left standing: `blackstart down --name {rig}` removes it")
        terminal.verdict(result.code, result.findings, outputs)
        findings += result.findings
        journals.append(result.journal)
    code = exit_code(findings)
    if len(experiments) > 1:
        terminal.note(f"{len(experiments)} experiments: {exit_meaning(code)} (exit code {code.value})")


def _report(
    journals: Sequence[Path],
    not_started: Sequence[str],
    problem: str,
    *,
    code: int,
    files: ReportFiles,
    terminal: Terminal,
    started: Sequence[str] = (),
) -> int:
    """Make the reports, and answer the exit code: somebody relies on them, so a pass without them is none."""
    try:
        for line in write_reports(journals, files, experiments=started, not_started=not_started, problem=problem):
            terminal.note(line)
    except BlackstartError as error:
        echo(error, err=True)
        return ExitCode.HARNESS.value if code == ExitCode.PASSED.value else code
    return code


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
        self._activities = Activities(
            arena=arena, topology=experiment.topology, injector=self._injector, terminal=terminal
        )
        self._findings: list[Finding] = []
        self._root = ErrorRoot(journal, self._findings)
        self._verdicts: list[Verdict] = []
        self._began_ns = arena.unix_ns()
        self._reached: set[str] = set()
        self._changed_back = False
        self._violated = False
        self._background = Background(arena.runtime, run=self._run_in_background)

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
        watch = self._arena.runtime.spawn(watch_stalls(self._arena), name="stall watch")
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
        await self._ask_hypothesis(Phase.GATE)

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
            await self._ask_hypothesis(Phase.AFTER)

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
            elif not await self._step(activity, Phase.METHOD):
                return False
        return True

    async def _ask_hypothesis(self, phase: Phase) -> None:
        for activity in self._experiment.hypothesis:
            self._interrupt.check()
            if not await self._step(activity, phase):
                return

    async def _step(self, activity: Activity, phase: Phase) -> bool:
        finding = await self._activities.run(activity, phase, sleep=self._interrupt.sleep)
        if finding is not None:
            self._findings.append(finding)
        return finding is None

    async def _run_in_background(self, activity: Activity) -> Finding | None:
        return await self._activities.run(activity, Phase.METHOD, sleep=self._interrupt.sleep)

    async def _roll_back(self) -> None:
        """Rollbacks run whatever happened, and a signal does not end them; after one they do not wait."""
        if not self._experiment.rollbacks:
            return
        self._terminal.phase("Rollbacks")
        for activity in self._experiment.rollbacks:
            try:
                finding = await self._activities.run(
                    activity, Phase.ROLLBACKS, sleep=self._arena.runtime.sleep, patient=self._interrupt.signal is None
                )
            except (BlackstartError, DeadlinePassed) as error:
                began_ns = self._arena.unix_ns()
                self._activities.note(activity, Phase.ROLLBACKS, began_ns, "failed", reason=str(error))
                finding = Finding(kind=FindingKind.CLEANUP, reason=f"{activity.name}: {error}")
            if finding is not None:
                self._find(FindingKind.CLEANUP, f"rollback failed: {finding.reason}")
        self._changed_back = True

    async def _ask_restored(self) -> None:
        """What was cured must be as it was before: a clean-up that breaks the cluster is none."""
        self._terminal.phase("Steady state restored")
        await self._ask_hypothesis(Phase.RESTORED)

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
        await look_last(self._arena, self._terminal, self._interrupt, settle=settled)

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
