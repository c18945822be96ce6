"""The Markdown summary of runs, for the page of a CI job: verdict, reasons, recovery, checkers, what did not go well.

Text from journals is data: whatever Markdown or HTML could take for a mark is escaped, so that no name makes a link, an
image or a heading. Short by its own limits, as CI servers cut long summaries off.
"""

import re
from collections.abc import Iterable, Sequence

from chaos.history.recovery import Phase, read_recoveries
from chaos.history.verdict import Ruling
from chaos.output.sanitized_text import cut
from chaos.report.left_open import read_left_open
from chaos.report.run_record import RunRecord
from chaos.report.steps import PARTS, read_steps

__all__ = ["render_markdown"]

MAX_ROWS = 50
"""Of one table: a summary is read on one screen, and a job page holds a megabyte over all steps."""

_MARKS = re.compile(r"([\\`*_{}\[\]<>&|~!#$@]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
"""What makes a mark, a tag or a link in the middle of a line; no text of ours ever begins one."""


def render_markdown(runs: Sequence[RunRecord], *, not_started: Sequence[str] = (), problem: str = "") -> str:
    """The summary, ending with a line break."""
    lines = [f"**{_text(problem)}**\n"] if problem else []
    for run in runs:
        lines += _run(run)
    lines += [f"**Not started:** {_text(file)}\n" for file in not_started]
    return "\n".join(lines)


def _run(run: RunRecord) -> Iterable[str]:
    code = "no exit code" if run.code is None else f"exit code {run.code.value}"
    verdict = run.verdict[:1].upper() + run.verdict[1:]
    yield f"## {_text(run.title)}"
    yield ""
    yield f"**{_text(verdict)}** ({code}), {run.seconds(run.ended_ns):.1f} s, {_text(run.file)}"
    yield ""
    if run.remark:
        yield f"This is {_text(run.remark)}."
        yield ""
    if run.findings:
        yield from (f"- **{_text(finding.kind)}**: {_text(finding.reason)}" for finding in run.findings[:MAX_ROWS])
        yield from _more(len(run.findings), "findings")
        yield ""
    left = read_left_open(run)
    if left is not None:
        if left.faults:
            yield "### Still injected"
            yield ""
            yield from (f"- {_text(fault)}" for fault in left.faults[:MAX_ROWS])
            yield from _more(len(left.faults), "faults")
            yield ""
        yield f"{_text(left.remedy[:1].upper() + left.remedy[1:])}."
        yield ""
    phases = (Phase.DETECTED, Phase.CLAIMED, Phase.STARTED, Phase.ANSWERING)
    yield from _table(
        "Recovery, seconds after the fault",
        ("vm", "fault", "from", "to", *phases),
        [
            (
                row.vm,
                f"{row.number} {row.fault} {row.target}",
                row.from_node,
                row.to_node,
                *(_seconds(row.after_s(phase)) for phase in phases),
            )
            for row in read_recoveries(run.history)
        ],
    )
    yield from _table(
        "Checkers",
        ("checker", "ruling", "because"),
        [
            (
                ruled.checker,
                ruled.ruling if ruled.ruling is Ruling.HOLDS else ruled.ruling.upper(),
                "; ".join(ruled.reasons or ruled.notes),
            )
            for ruled in run.verdicts
        ],
    )
    steps = read_steps(run)
    yield from _table(
        "Steps that did not succeed",
        ("part", "step", "outcome", "because"),
        [
            (PARTS[step.phase], step.name, step.outcome, step.reason)
            for step in steps
            if step.outcome != "succeeded"
        ],
    )
    succeeded = sum(step.outcome == "succeeded" for step in steps)
    yield f"{succeeded} of {len(steps)} steps succeeded."
    yield ""


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    if not rows:
        return
    yield f"### {title}"
    yield ""
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows[:MAX_ROWS]:
        yield f"| {' | '.join(_text(cell) for cell in row)} |"
    yield ""
    yield from _more(len(rows), "rows")


def _more(count: int, what: str) -> Iterable[str]:
    if count > MAX_ROWS:
        yield f"{count - MAX_ROWS} further {what} are not shown."
        yield ""


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _text(text: object) -> str:
    """One line of plain text, whatever was in it."""
    return _MARKS.sub(r"\\\1", " ".join(cut(text, 300).split()))
