"""The commands about schedules in the simulator: search, shrink and replay."""

import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chaos.cli.rig_commands import as_json
from chaos.cli.signals import held, reports_written
from chaos.output.printing import echo

if TYPE_CHECKING:
    from chaos.search.replay import PastRun
    from chaos.search.schedule_file import Schedule
    from chaos.search.search import Search, SearchResult
    from harness.model.topology import Topology
    from harness.simulation.faults.schedule import Outcome

__all__ = ["replay", "search", "shrink"]

PROGRESS_S = 5.0
LINES_BEFORE = 30
RUNS = 200
BROKEN = 1


class _Duration(click.ParamType[float]):
    """A duration, in seconds."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from harness.document.duration import DURATION_FORM, parse_duration_us

        try:
            return parse_duration_us(value) / 1e6
        except ValueError as error:
            self.fail(f"{error}, expected {DURATION_FORM}", param, ctx)


_file = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))


@click.command(
    epilog="\b\nExamples:\n  blackstart search --runs 1000\n"
    "  blackstart search --time-limit 10m --jobs 2 --seed 5000\n"
    "  blackstart search --topology rig.yaml      one rig instead of one drawn for each run"
)
@click.option("--runs", type=click.IntRange(min=1), help=f"How many schedules; {RUNS} without a limit of time.")
@click.option("--time-limit", "limit_s", type=_Duration(), help="Search for so long: 30s, 10m.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first run's; then upwards.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Processes at a time; by default one a processor.")
@click.option("--topology", type=click.Path(path_type=Path), help="The rig of every run, as `up --topology` takes it.")
@click.option("--portable", is_flag=True, help="Only faults that experiments have: what it finds has one.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("out"), show_default=True)
@as_json
def search(
    runs: int | None,
    limit_s: float | None,
    seed: int,
    jobs: int | None,
    topology: Path | None,
    portable: bool,
    out: Path,
    json_wanted: bool,
) -> int:
    """Search the simulator for a schedule of faults that breaks the cluster.

    Each run draws a rig, kinds of fault, and when they strike; afterwards everything is healed and must come to rest
    within a minute. Ends with 1 at the first run that breaks an invariant or does not come to rest: its schedule is
    saved, for `shrink` and `replay`.
    """
    from chaos.search.experiment_export import portable_search
    from chaos.search.search import Search

    jobs = jobs or os.cpu_count() or 1
    rig = _rig_document(topology, worlds=jobs) if topology is not None else None
    hunt = (portable_search if portable else Search)(first_seed=seed, jobs=jobs, rig=rig)
    began = time.monotonic()
    most = runs if runs is not None else RUNS if limit_s is None else None
    shown = began

    def goes_on(hunt: "Search") -> bool:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= PROGRESS_S:
            shown = now
            echo(f"  ... {_pace(hunt.runs, now - began)}, nothing broken", err=True)
        return (most is None or hunt.runs < most) and (limit_s is None or now - began < limit_s)

    found = hunt.search(goes_on)
    took_s = time.monotonic() - began
    saved: list[Path] = []
    if found.failure is not None:
        schedule = found.failure.schedule
        saved = [out / f"schedule-{schedule.seed}.yaml"]
        experiment = _save(saved[0], schedule, [f"seed {schedule.seed}", *found.failure.broken])
        saved += [experiment] if experiment is not None else []
    if json_wanted:
        _print_json(found, took_s, saved)
    else:
        _print_found(found, took_s, saved)
    return BROKEN if found.failure is not None else 0


@click.command(
    epilog="\b\nExamples:\n  blackstart shrink out/schedule-86.yaml\n  blackstart replay out/schedule-86.min.yaml"
)
@_file
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="By default FILE with .min before its end."
)
def shrink(file: Path, output: Path | None) -> None:
    """Make a failing schedule small: fewer faults, VMs and nodes, shorter, as long as it fails in the same way.

    Interrupted, it saves the smallest that it has found so far.
    """
    from chaos.output.named_file import check_named_file
    from chaos.search.search import broken_by, play
    from chaos.search.shrinker import Shrinking

    schedule = _read(file)
    _refuse_crowded(file, schedule.topology)
    reduction = Shrinking(schedule, say=lambda text: echo(f"  ... {text}", err=True))
    place = output or file.with_suffix(f".min{file.suffix}")
    check_named_file(place, inputs=[file])
    try:
        smallest = reduction.shrink()
    except KeyboardInterrupt:
        with held(f"{place} is being saved") as section:
            _save(place, reduction.schedule, ["interrupted: not yet minimal", *reduction.broken])
            section.complete()
        left = len(reduction.schedule.faults)
        echo(f"{reduction.runs} runs: {left} faults are left, in {place}: not yet minimal, it was interrupted")
        echo(f"  blackstart shrink {place}")
        raise
    outcome = play(smallest)
    _save(place, smallest, broken_by(outcome))
    _print_trace(outcome, LINES_BEFORE)
    echo(f"{reduction.runs} runs: {len(smallest.faults)} faults are left, in {place}")


@click.command(
    epilog="\b\nExamples:\n  blackstart replay out/schedule-86.yaml\n  blackstart replay out/schedule-86.yaml --trace\n"
    "  blackstart replay out/schedule-86.yaml --arena docker     the same choices on containers\n"
    "  blackstart replay out/journal.json                        a run again, from its journal"
)
@_file
@click.option("--arena", type=click.Choice(["sim", "docker"]), default="sim", show_default=True, help="Where it runs.")
@click.option("--trace", "whole", is_flag=True, help="Of a schedule everything that happened, not only the end.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("out"), show_default=True)
def replay(file: Path, arena: str, whole: bool, out: Path) -> int:
    """Make the choices of a saved schedule, or of a run by its journal, again.

    In the simulator it is the same run, to the byte. On containers a seed fixes choices, not timing: the same faults
    strike at the same times, and what the cluster makes of them may differ. Ends as `run` does.
    """
    from chaos.history.journal import holds_lines
    from chaos.search.replay import PastRun, is_journal, read_past_run

    text = _text(file)
    if holds_lines(text):
        _refuse_lines(file)
    if is_journal(text):
        return _run_again(read_past_run(text, name=str(file)), arena=arena, out=out)
    schedule = _read(file)
    if arena == "docker":
        past = PastRun(experiment=_experiment(file, schedule), seed=schedule.seed, rig="replay")
        return _run_again(past, arena=arena, out=out)
    _refuse_crowded(file, schedule.topology)
    return _play_again(schedule, whole=whole)


def _refuse_lines(lines: Path) -> None:
    """Raises UsageError: what a run has written as it went is not yet its journal."""
    from harness.errors import UsageError

    journal = lines.with_suffix(".json")
    if journal.is_file():
        raise UsageError(f"{lines}: the lines of a run, written as it went, expected its journal: {journal}")
    raise UsageError(
        f"{lines}: the lines of a run, and there is no {journal}: the run was killed or is not over, expected the "
        "journal.json of one that came to its end"
    )


def _play_again(schedule: "Schedule", *, whole: bool) -> int:
    from chaos.search.search import broken_by, play

    outcome = play(schedule)
    _print_trace(outcome, None if whole else LINES_BEFORE)
    if outcome.defect is not None:
        echo("".join(traceback.format_exception(outcome.defect)), err=True)
    for text in broken_by(outcome):
        echo(f"broken: {text}")
    if not outcome.broken:
        echo("nothing is broken")
    return BROKEN if outcome.broken else 0


def _run_again(past: "PastRun", *, arena: str, out: Path) -> int:
    from chaos.run.batch import run_files
    from chaos.run.options import RunOptions

    if arena == "docker":
        echo("a seed fixes choices, not timing: containers may make something else of them", err=True)
    place = out / "replay.yaml"
    _write(place, past.experiment)
    options = RunOptions(arena=arena, out=out, seed=past.seed, rig=past.rig)
    return int(run_files([place], options=options, unbroken=reports_written))


def _experiment(file: Path, schedule: "Schedule") -> str:
    from chaos.search.experiment_export import experiment_of, without_counterpart
    from harness.errors import UsageError

    missing = without_counterpart(schedule)
    if missing or not schedule.faults:
        what = f"{', '.join(missing)} exist in the simulator only" if missing else "it has no faults"
        raise UsageError(f"{file}: {what}, expected faults that experiments have: `search --portable` draws only those")
    return experiment_of(schedule, title=f"The schedule of {file.name}")


def _rig_document(path: Path, *, worlds: int) -> dict[str, Any]:
    """The rig of a topology file, checked, of which there is room for so many at a time; an experiment's own will do
    as well.
    """
    from harness.document.topology import read_topology
    from harness.document.yaml_source import load_file
    from harness.errors import UsageError
    from harness.simulation.faults.injection import vm_names

    source = load_file(path, expected="a rig in YAML or JSON")
    topology = read_topology(source)
    _refuse_crowded(path, topology, worlds=worlds)
    if not vm_names(topology):
        raise UsageError(f"{path}: a rig without a VM, expected one at least: nothing could run twice or be lost")
    document = source.data
    if isinstance(document, dict) and isinstance(document.get("rig"), dict):
        document = document["rig"]
    if not isinstance(document, dict):
        raise UsageError(f"{path}: expected a rig: nodes, settings, groups")
    return document


def _refuse_crowded(path: Path, topology: "Topology", *, worlds: int = 1) -> None:
    """Raises UsageError when so many worlds of that rig do not fit into memory."""
    from chaos.arena.simulation.memory_check import memory_shortfall
    from harness.errors import UsageError

    crowded = memory_shortfall(topology, worlds=worlds)
    if crowded:
        raise UsageError(f"{path}: {crowded}")


def _read(path: Path) -> "Schedule":
    from chaos.search.schedule_file import read_schedule

    return read_schedule(_text(path), name=str(path))


def _text(path: Path) -> str:
    """A schedule or a journal: the latter may be large."""
    from chaos.report.run_record import MAX_JOURNAL_BYTES
    from harness.document.text_file import read_text_file

    return read_text_file(path, max_bytes=MAX_JOURNAL_BYTES, expected="a schedule, or the journal of a run")


def _save(path: Path, schedule: "Schedule", remarks: list[str] | tuple[str, ...]) -> Path | None:
    """The schedule's file, and its experiment beside it if it has one: where that is."""
    from chaos.search.experiment_export import experiment_of, without_counterpart
    from chaos.search.schedule_file import write_schedule

    _write(path, write_schedule(schedule, remarks=remarks))
    if without_counterpart(schedule) or not schedule.faults:
        return None
    place = path.with_name(f"{path.stem}.experiment{path.suffix}")
    title = f"The schedule of seed {schedule.seed}"
    _write(place, experiment_of(schedule, title=title, description="; ".join(remarks)))
    return place


def _write(path: Path, text: str) -> None:
    from chaos.output.named_file import write_named_file
    from harness.errors import HarnessError

    try:
        write_named_file(path, text)
    except OSError as error:
        raise HarnessError(f"{path} could not be written: {error}") from error


def _pace(runs: int, took_s: float) -> str:
    return f"{runs} schedules in {took_s:.0f} s, {runs * 60 / max(took_s, 1e-3):.0f} a minute"


def _print_found(found: "SearchResult", took_s: float, saved: Sequence[Path]) -> None:
    from chaos.cli.output import print_table
    from chaos.search.search import covered, play

    for what, place in (("what the cluster was at", 1), ("what its target was", 2)):
        words, rows = covered(found.coverage, place)
        print_table((f"fault, by {what}", *words), rows, empty="no fault struck")
    failure = found.failure
    if failure is None:
        echo(f"{_pace(found.runs, took_s)}: nothing broke")
        return
    _print_trace(play(failure.schedule), LINES_BEFORE)
    for text in failure.broken:
        echo(f"broken by seed {failure.schedule.seed}: {text}")
    echo(f"{_pace(found.runs, took_s)}; saved in {' and '.join(map(str, saved))}")
    echo(f"  blackstart replay {saved[0]}\n  blackstart shrink {saved[0]}")


def _print_json(found: "SearchResult", took_s: float, saved: Sequence[Path]) -> None:
    from chaos.cli.output import print_json

    failure = found.failure
    print_json(
        {
            "runs": found.runs,
            "runs_per_minute": round(found.runs * 60 / max(took_s, 1e-3), 1),
            "coverage": [
                {"fault": kind, "situation": situation, "role": role, "times": times}
                for (kind, situation, role), times in sorted(found.coverage.items())
            ],
            "seed": failure.schedule.seed if failure is not None else None,
            "broken": list(failure.broken) if failure is not None else [],
            "saved": [str(path) for path in saved],
        }
    )


def _print_trace(outcome: "Outcome", last: int | None) -> None:
    lines = outcome.world.trace if last is None else outcome.world.trace[-last:]
    for line in lines:
        echo(str(line))
