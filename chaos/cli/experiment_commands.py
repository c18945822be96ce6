"""The commands about experiments: run, report and validate."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from chaos.cli.rig_commands import as_json, valid_rig
from chaos.cli.signals import reports_written
from chaos.output.printing import echo, echo_verbatim

if TYPE_CHECKING:
    from chaos.report.report_files import ReportFiles
    from harness.model.topology import Topology

__all__ = ["report", "run", "validate"]

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
ENGINE_LIMIT_S = 10
"""For each call by which `validate` asks an engine that it does not need."""

F = TypeVar("F", bound=Callable[..., object])

_files = click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))


def _reports(command: F) -> F:
    """The options that say which reports are wanted."""
    file = click.Path(dir_okay=False, path_type=Path)
    for option in (
        click.option("--step-summary", is_flag=True, help=f"Append the Markdown to the file ${STEP_SUMMARY}."),
        click.option("--markdown", type=file, help="A Markdown summary, for the page of a CI job."),
        click.option("--junit", type=file, help="JUnit XML: a case for each step and checker."),
        click.option("--html", type=file, help="One self-contained HTML page."),
    ):
        command = option(command)
    return command


def _report_files(html: Path | None, junit: Path | None, markdown: Path | None, step_summary: bool) -> "ReportFiles":
    from chaos.report.report_files import ReportFiles
    from harness.errors import UsageError

    named = os.environ.get(STEP_SUMMARY, "")
    if step_summary and not named:
        raise UsageError(f"--step-summary needs the variable {STEP_SUMMARY}, which a job of GitHub Actions has")
    return ReportFiles(html=html, junit=junit, markdown=markdown, step_summary=Path(named) if step_summary else None)


@click.command(
    epilog="\b\nExamples:\n  blackstart run chaos/experiments/node-power-cut.yaml\n"
    "  blackstart run --dry my.yaml          read the file, say what would be done, do nothing\n"
    "  blackstart run --keep-rig my.yaml     and look at the rig afterwards: blackstart status\n"
    "  blackstart run --html out/run.html --junit out/junit.xml my.yaml"
)
@_files
@click.option(
    "--arena",
    type=click.Choice(["docker", "sim"]),
    default="docker",
    show_default=True,
    help="On containers, or in the simulator: the same file.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("out"), show_default=True)
@click.option("--journal", type=click.Path(dir_okay=False, path_type=Path), help="A further place for journal.json.")
@click.option("--name", "rig", callback=valid_rig, help="The name of the rig that is made.")
@click.option("--on-rig", callback=valid_rig, help="Run on a rig that stands already, and leave it standing.")
@click.option("--keep-rig", is_flag=True, help="Leave the rig standing afterwards.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides where a target leaves a choice.")
@click.option("--dry", is_flag=True, help="Read the files, say what would be done, do nothing.")
@_reports
def run(
    files: tuple[Path, ...],
    arena: str,
    out: Path,
    journal: Path | None,
    rig: str | None,
    on_rig: str | None,
    keep_rig: bool,
    seed: int,
    dry: bool,
    html: Path | None,
    junit: Path | None,
    markdown: Path | None,
    step_summary: bool,
) -> int:
    """Run experiments and end with the verdict as exit code."""
    from chaos.run.batch import run_files
    from chaos.run.options import RunOptions

    options = RunOptions(
        arena=arena,
        out=out,
        rig=rig,
        on_rig=on_rig,
        keep_rig=keep_rig,
        journal=journal,
        reports=_report_files(html, junit, markdown, step_summary),
        seed=seed,
        dry=dry,
        command=f"blackstart run {' '.join(str(file) for file in files)}",
    )
    return int(run_files(files, options=options, unbroken=reports_written))


@click.command(
    epilog="\b\nExamples:\n  blackstart report out/journal.json --html run.html\n"
    "  blackstart report out/journal.jsonl            what a run that was killed has left\n"
    "  blackstart report out/*/journal.json --junit junit.xml --markdown summary.md"
)
@click.argument("journals", metavar="JOURNAL...", nargs=-1, required=True, type=click.Path(path_type=Path))
@_reports
def report(
    journals: tuple[Path, ...],
    html: Path | None,
    junit: Path | None,
    markdown: Path | None,
    step_summary: bool,
) -> int:
    """Make the reports of runs again, from their journals alone.

    Prints the Markdown summary when no file is named. Ends with 0 when the reports were made, whatever their verdicts.
    A journal of another version is reported with a remark, or refused when part of it cannot be read.
    """
    from chaos.report.markdown import render_markdown
    from chaos.report.run_record import read_journal
    from chaos.report.writer import write_reports_of

    files = _report_files(html, junit, markdown, step_summary)
    runs = [read_journal(path) for path in journals]
    for run in runs:
        if run.remark:
            echo(f"{run.source}: {run.remark}", err=True)
    if not files.wanted:
        echo_verbatim(render_markdown(runs))
        return 0
    for line in write_reports_of(runs, files):
        echo(line)
    return 0


@click.command(epilog="\b\nExample:\n  blackstart validate chaos/experiments/*.yaml")
@_files
@as_json
@click.option(
    "--arena", type=click.Choice(["docker", "sim"]), default="docker", show_default=True, help="Where it shall run."
)
def validate(files: tuple[Path, ...], json_wanted: bool, arena: str) -> int:
    """Read experiments and say what is wrong, with file, line and the expected form; and what cannot run, or is another
    thing, in one of the arenas.

    Ends with 2 when a file is refused. Needs no engine; where one answers, it is also asked for the VMs' images,
    which the simulator does not need.
    """
    from chaos.cli.output import print_json
    from chaos.compatibility.arenas import ArenaView, arena_views
    from chaos.experiment.loader import load_experiment
    from harness.errors import UsageError

    titles: dict[Path, str] = {}
    arenas: dict[Path, tuple[ArenaView, ...]] = {}
    refusals: dict[Path, list[str]] = {}
    for file in files:
        try:
            experiment = load_experiment(file)
        except UsageError as error:
            refusals[file] = str(error).split("\n")
            continue
        seen = {view.arena: view for view in arena_views(experiment)}
        refused = _refused_by_engine(experiment.topology) if arena == "docker" else []
        if refused or seen[arena].incompatibilities:
            refusals[file] = [*seen[arena].incompatibilities, *(f"{file}: {line}" for line in refused)]
        else:
            titles[file] = experiment.title
            arenas[file] = tuple(seen.values())
    if json_wanted:
        print_json(
            [
                {
                    "file": str(file),
                    "valid": file in titles,
                    "title": titles.get(file, ""),
                    "arenas": arenas.get(file, ()),
                    "errors": refusals.get(file, []),
                }
                for file in files
            ]
        )
    else:
        for file, title in titles.items():
            echo(f"{file}: valid: {title}")
            for view in arenas[file]:
                for line in (*view.incompatibilities, *view.differs):
                    echo(f"  --arena {view.arena}: {line}")
        for line in (line for lines in refusals.values() for line in lines):
            echo(line, err=True)
    return 2 if refusals else 0


def _refused_by_engine(topology: "Topology") -> list[str]:
    """What the engine here has to say against VMs that are not the guest's; nothing where none answers."""
    from harness.errors import EngineError, HarnessError
    from harness.model.workload import runs_guest
    from harness.rig.engine.connection import connect
    from harness.rig.lifecycle.create import refused_vms

    resources = [resource for group in topology.groups for resource in group.resources]
    vms = [resource for resource in resources if resource.type == "virtual-machine"]
    if all(runs_guest(vm.properties) and "processors" not in vm.properties for vm in vms):
        return []
    try:
        with contextlib.closing(connect(limit_s=ENGINE_LIMIT_S)) as client:
            return refused_vms(client, topology)
    except (EngineError, HarnessError):
        echo("the VMs' images were not looked for: no container engine answers here", err=True)
        return []
