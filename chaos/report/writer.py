"""Writing reports: from journals to the files that were asked for, each whole or not at all.

The only module of the reports that touches files beside the journal's reader.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from chaos.output.named_file import try_named_file, write_named_file
from chaos.report.junit import render_junit
from chaos.report.markdown import render_markdown
from chaos.report.report_files import ReportFiles
from chaos.report.run_record import RunRecord, read_journal
from harness.errors import HarnessError, UsageError

__all__ = ["prepare_reports", "write_reports", "write_reports_of"]


def prepare_reports(files: ReportFiles, *, inputs: Sequence[Path] = ()) -> None:
    """Make the directories, and remove what an earlier run left: nobody must take it for this run's.

    Raises UsageError, before anything is run, for a place where nothing can be written, that is no plain file, or that
    is one of the `inputs` of the command.
    """
    _refuse_clashes((), files)
    for path in files.written:
        try:
            try_named_file(path, inputs=inputs)
        except OSError as error:
            raise UsageError(f"the report {path} cannot be written: {error.strerror}; name another place") from error
    if files.step_summary is not None and not os.access(files.step_summary.parent, os.W_OK):
        raise UsageError(f"the summary {files.step_summary} cannot be appended to: its directory is not writable")


def write_reports(
    journals: Sequence[Path],
    files: ReportFiles,
    *,
    experiments: Sequence[str] = (),
    not_started: Sequence[str] = (),
    problem: str = "",
) -> list[str]:
    """The same as `write_reports_of`, from journals. Raises UsageError also for a journal that is none.

    `experiments` are the paths of the files that were run, which a journal does not have: two may share a name.
    """
    runs = [read_journal(path) for path in journals]
    if experiments:
        runs = [replace(run, file=file) for run, file in zip(runs, experiments, strict=True)]
    return write_reports_of(runs, files, not_started=not_started, problem=problem)


def write_reports_of(
    runs: Sequence[RunRecord], files: ReportFiles, *, not_started: Sequence[str] = (), problem: str = ""
) -> list[str]:
    """Write every report that is asked for, and answer a line for each.

    `not_started` are the files of experiments that never began; `problem` is what failed beside all experiments. Raises
    UsageError for a place that is named twice or is a journal's, HarnessError for reports that cannot be made; the
    others are made anyway.
    """
    # The page's template engine costs a tenth of a second: only who wants a page pays it.
    from chaos.report.page import render_page

    _refuse_clashes([Path(run.source) for run in runs], files)
    made, failed = [], []
    for path, render, put in (
        (files.junit, render_junit, write_named_file),
        (files.markdown, render_markdown, write_named_file),
        (files.step_summary, render_markdown, _append),
        (files.html, render_page, write_named_file),
    ):
        if path is None:
            continue
        try:
            put(path, render(runs, not_started=not_started, problem=problem))
        except OSError as error:
            failed.append(f"the report {path} cannot be written: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - a report's root: its defect must not take the verdict away
            failed.append(f"the report {path} cannot be made: {type(error).__name__}: {error} (a defect)")
        else:
            made.append(f"report: {path}")
    if failed:
        raise HarnessError("; ".join(failed))
    return made


def _refuse_clashes(journals: Sequence[Path], files: ReportFiles) -> None:
    taken = {path.resolve() for path in journals}
    for path in files.written:
        if path.resolve() in taken:
            raise UsageError(f"{path} is named twice: each report needs a file of its own, and no journal's")
        taken.add(path.resolve())


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")
