"""JUnit XML of runs: a suite for each experiment, a case for each checker and each step, and one for the verdict.

The case named `verdict` fails or errs whenever the exit code is not 0, whatever the others say, so a CI server can
never show as passed what did not pass. A broken expectation or invariant is a failure; everything that leaves the
question open (inconclusive, the harness, no steady state, a signal) is an error.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from chaos.history.verdict import ExitCode, Finding, FindingKind, Ruling, Verdict
from chaos.output.sanitized_text import cut, shown
from chaos.report.left_open import read_left_open
from chaos.report.run_record import RunRecord
from chaos.report.steps import ReportedStep, read_steps

__all__ = ["render_junit"]


def render_junit(runs: Sequence[RunRecord], *, not_started: Sequence[str] = (), problem: str = "") -> str:
    """The whole document. An experiment that was `not_started` is a suite with an error, and so is a `problem`."""
    root = Element("testsuites", name="blackstart")
    names = iter(_suite_names([*(run.file or run.title for run in runs), *not_started]))
    for run in runs:
        _suite(root, run, next(names))
    for file in not_started:
        _lone_error(root, next(names), "verdict", "not started", problem or "the run ended before it", file=file)
    if problem:
        _lone_error(root, "blackstart", "harness", "harness failed", problem)
    for suite in root:
        _count(suite)
    _count(root)
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in root):.3f}")
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _lone_error(root: Element, name: str, case: str, type_: str, reason: str, *, file: str = "") -> None:
    suite = SubElement(root, "testsuite", name=name, time="0.000")
    if file:
        suite.set("file", shown(file))
    _tell(_case(suite, case, name, 0.0), "error", type_, [reason])


def _suite(root: Element, run: RunRecord, name: str) -> None:
    began = datetime.fromtimestamp(run.began_ns // 10**9, tz=UTC)
    suite = SubElement(
        root,
        "testsuite",
        name=name,
        file=shown(run.file),
        timestamp=began.strftime("%Y-%m-%dT%H:%M:%S"),
        time=f"{run.seconds(run.ended_ns):.3f}",
    )
    properties = SubElement(suite, "properties")
    exit_code = "none" if run.code is None else str(run.code.value)
    for key, value in (("title", run.title), ("file", run.file), ("rig", run.rig), ("exit code", exit_code)):
        SubElement(properties, "property", name=key, value=shown(value))
    for step in read_steps(run):
        _step(suite, name, step)
    for verdict in run.verdicts:
        _checker(suite, name, verdict, run.findings)
    left = read_left_open(run)
    if left is not None and left.faults:
        _tell(_case(suite, "still injected", name, 0.0), "error", "still injected", [*left.faults, left.remedy])
    _verdict(suite, name, run)


def _step(suite: Element, name: str, step: ReportedStep) -> None:
    case = _case(suite, step.name, f"{name}.{step.phase}", step.length_s)
    if step.outcome == "succeeded":
        return
    if step.outcome != "failed":
        SubElement(case, "skipped", message=step.reason or step.outcome)
    elif step.finding is not None and step.finding.kind is not FindingKind.BROKEN:
        _tell(case, "error", step.finding.kind.value, [step.finding.reason])
    else:
        _tell(case, "failure", "broken", [step.reason])


def _checker(suite: Element, name: str, verdict: Verdict, findings: Sequence[Finding]) -> None:
    """A ruling that is no finding counts for nothing in this run (its method was never reached): skipped."""
    case = _case(suite, verdict.checker, f"{name}.checkers", 0.0)
    if verdict.notes:
        SubElement(case, "system-out").text = shown("\n".join(verdict.notes))
    counts = any(finding.reason.startswith(f"{verdict.checker}: ") for finding in findings)
    match verdict.ruling:
        case Ruling.HOLDS:
            pass
        case Ruling.BROKEN | Ruling.INCONCLUSIVE if not counts:
            message = f"{verdict.ruling}, and it counts for nothing here: {'; '.join(verdict.reasons)}"
            SubElement(case, "skipped", message=cut(message))
        case Ruling.BROKEN:
            _tell(case, "failure", verdict.ruling.value, verdict.reasons)
        case Ruling.INCONCLUSIVE:
            _tell(case, "error", verdict.ruling.value, verdict.reasons)
        case _:
            SubElement(case, "skipped", message=verdict.ruling.value)


def _verdict(suite: Element, name: str, run: RunRecord) -> None:
    case = _case(suite, "verdict", name, 0.0)
    if run.passed:
        return
    kind = "failure" if run.code is ExitCode.BROKEN else "error"
    reasons = [f"{finding.kind}: {finding.reason}" for finding in run.findings] or [run.verdict]
    _tell(case, kind, run.verdict, reasons)


def _case(suite: Element, name: str, classname: str, time_s: float) -> Element:
    return SubElement(suite, "testcase", name=shown(name), classname=shown(classname), time=f"{time_s:.3f}")


def _tell(case: Element, kind: str, type_: str, reasons: Sequence[str]) -> None:
    text = shown("\n".join(reasons))
    SubElement(case, kind, type=shown(type_), message=cut(text)).text = text


def _count(element: Element) -> None:
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    for plural, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(plural, str(sum(case.find(tag) is not None for case in cases)))


def _suite_names(files: Sequence[str]) -> list[str]:
    """A name for each suite, none twice: a server that merges suites of one name would lose a failure. The file's name
    where that tells them apart, else its path, with a number for each further run of one file.
    """
    stems = Counter(PurePath(file).stem for file in set(files))
    seen: Counter[str] = Counter()
    names = []
    for file in files:
        seen[file] += 1
        name = PurePath(file).stem if stems[PurePath(file).stem] == 1 else file
        names.append(shown(name if seen[file] == 1 else f"{name} ({seen[file]})"))
    return names
