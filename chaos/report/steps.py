"""The steps of a run as its file has them: how each ended, and those that were never reached.

A step that was not reached has no record, so the file's own lists say which ones they were: the steps of one part run
in the order of the file, and a part that ends early leaves its last ones out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.history.records import StepEnded
from chaos.history.verdict import Finding, FindingKind
from chaos.output.sanitized_text import cut
from chaos.report.run_record import RunRecord

__all__ = ["PARTS", "ReportedStep", "read_steps"]

PARTS: Mapping[str, str] = {
    "gate": "steady state before",
    "during": "during the method",
    "method": "method",
    "after": "steady state after",
    "rollbacks": "rollbacks",
}
"""What people call the phases of a run."""

NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedStep:
    """One step. `outcome` is succeeded, failed, skipped or not reached; times are None if it was not reached.

    `number` counts the steps that ran, as the chart does; `finding` is what it has to say against a pass.
    """

    phase: str
    name: str
    outcome: str
    number: int | None = None
    began_ns: int | None = None
    ended_ns: int | None = None
    what: str = ""
    expected: str = ""
    output: str = ""
    reason: str = ""
    finding: Finding | None = None

    @property
    def length_s(self) -> float:
        """How long it took; 0 if it was not reached."""
        return 0.0 if self.began_ns is None or self.ended_ns is None else (self.ended_ns - self.began_ns) / 1e9


def read_steps(run: RunRecord) -> list[ReportedStep]:
    """Every step, by phase and then in the order of the file."""
    ended = list(enumerate(run.history.of(StepEnded), start=1))
    steps: list[ReportedStep] = []
    for phase in PARTS:
        of_phase = [(number, step) for number, step in ended if step.phase == phase]
        steps += [_ended(number, step, run.findings) for number, step in of_phase]
        steps += [
            ReportedStep(phase=phase, name=name, outcome=NOT_REACHED)
            for name in _missing(list(_names(run.document, phase)), [step.name for _, step in of_phase], phase)
        ]
    return steps


def _ended(number: int, step: StepEnded, findings: Sequence[Finding]) -> ReportedStep:
    against = [entry for entry in findings if entry.reason.startswith(f"{step.name}: ")]
    against += [entry for entry in findings if step.reason and entry.reason == f"not injected: {step.reason}"]
    return ReportedStep(
        phase=step.phase,
        name=cut(step.name, 200),
        outcome=step.outcome,
        number=number,
        began_ns=step.began_ns,
        ended_ns=step.at_ns,
        what=cut(step.what, 200),
        expected=cut(step.expected, 200),
        output=_said(step.output),
        reason=cut(step.reason),
        finding=_worst(against) if step.outcome == "failed" else None,
    )


def _said(output: Any) -> str:
    if output is None or isinstance(output, str):
        return cut(output or "", 200)
    return cut(json.dumps(output, ensure_ascii=False), 200)


def _worst(findings: Sequence[Finding]) -> Finding | None:
    order = list(FindingKind)
    return min(findings, key=lambda finding: order.index(finding.kind), default=None)


def _missing(planned: Sequence[str], ran: Sequence[str], phase: str) -> Sequence[str]:
    """A probe of `during` that held to the end has no record, and was asked all the same."""
    return [] if phase == "during" else planned[len(ran) :]


def _names(document: Mapping[str, Any], phase: str) -> Iterator[str]:
    hypothesis = document.get("steady-state-hypothesis")
    of_hypothesis = hypothesis.get("probes") if isinstance(hypothesis, dict) else None
    activities = {
        "gate": of_hypothesis,
        "after": of_hypothesis,
        "method": document.get("method"),
        "rollbacks": document.get("rollbacks"),
    }.get(phase)
    for activity in activities if isinstance(activities, list) else []:
        name = activity.get("name") if isinstance(activity, dict) else activity
        yield cut(name, 200)
