"""The runs of one command: files to experiments, each run in its arena, the reports, and one exit code for all."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console

from chaos.arena.docker.event_loop import drive
from chaos.arena.interrupt import Interrupt
from chaos.arena.port import RunEnvironment
from chaos.compatibility.experiment_in_arena import incompatibilities
from chaos.experiment.loader import load_experiment
from chaos.experiment.records import Experiment
from chaos.history.verdict import ExitCode, Finding, FindingKind, exit_code, exit_meaning
from chaos.output.printing import echo
from chaos.report.report_files import ReportFiles
from chaos.report.writer import prepare_reports, write_reports
from chaos.run.environments import environments
from chaos.run.journal_copy import copy_journal, prepare_journal_copy
from chaos.run.options import RunOptions, check_options
from chaos.run.output_folder import OutputFolder, held_output, refuse_held
from chaos.run.runner import run_experiment
from chaos.run.terminal import Terminal
from harness.errors import BlackstartError, HarnessError, UsageError
from harness.ports import Runtime


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
            stage=environments(options, runtime, interrupt),
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
    stage: Callable[[], RunEnvironment],
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
        refusals = incompatibilities(experiment, arena=options.arena, supports=there.arena.supports)
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
