"""How a run is to be made: what the command line and the tests may choose."""

from dataclasses import dataclass, field
from pathlib import Path

from chaos.reaper.orders import DEFAULT_TIMES, ReaperTimes
from chaos.report.report_files import ReportFiles
from harness.errors import UsageError
from harness.model.name import NAME_FORM, is_name

__all__ = ["ARENAS", "RunOptions", "check_options"]

ARENAS = ("docker", "sim")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """`out` gets a folder for each run, with its journal and its evidence.

    `rig` names the rig to make, `on_rig` one that stands already and is left standing. `journal` is a further place for
    `journal.json`, `reports` says which reports are made of it. `dry` reads the files, says what would be done
    and does nothing. `seed` decides where a target leaves a choice (a minority, three of five). `command` names the run
    to others who want the same rig; `reaper` are the times of the container that cleans up after a death.
    """

    arena: str = "docker"
    out: Path = Path("out")
    rig: str | None = None
    on_rig: str | None = None
    keep_rig: bool = False
    journal: Path | None = None
    reports: ReportFiles = field(default_factory=ReportFiles)
    dry: bool = False
    seed: int = 0
    command: str = "blackstart run"
    reaper: ReaperTimes = DEFAULT_TIMES


def check_options(options: RunOptions, *, files: int) -> None:
    """Raises UsageError for options that exclude each other; `files` is the number of experiments."""
    if options.arena not in ARENAS:
        raise UsageError(f"--arena is {options.arena!r}, expected {' or '.join(ARENAS)}")
    if options.arena == "sim" and (options.on_rig or options.keep_rig):
        raise UsageError("a simulated rig ends with its run: --on-rig and --keep-rig go with --arena docker")
    if options.journal is not None and files > 1:
        raise UsageError(
            f"--journal {options.journal} with {files} files, expected one: a journal is of one run. "
            f"Without it each run has its own below {options.out}"
        )
    for name in (options.rig, options.on_rig):
        if name is not None and not is_name(name):
            raise UsageError(f"the rig's name is {name!r}, expected {NAME_FORM}")
