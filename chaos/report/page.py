"""The HTML page: one or several runs, self-contained, readable without a script, a network or colours.

Everything from journals is data: it reaches the page only through the template engine, which escapes it. The page's
policy (CSP) lets nothing in and nothing run but the one style and the one script whose digests it names, so that even
text that got through would stay text.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from chaos.history.overload import overload_since
from chaos.history.records import Stall
from chaos.history.recovery import Phase, Recovery, read_recoveries
from chaos.history.verdict import FindingKind
from chaos.output.sanitized_text import cut, shown
from chaos.report.chart import Chart, draw_chart
from chaos.report.event_list import Happenings, read_happenings
from chaos.report.left_open import LeftOpen, read_left_open
from chaos.report.run_record import RunRecord
from chaos.report.steps import PARTS, ReportedStep, read_steps
from chaos.report.timeline import Timeline, read_timeline

__all__ = ["render_page"]

DOCUMENT_LIMIT = 60_000
"""Characters of the experiment that are shown; a file of a thousand steps has less."""

SECRET_KEYS = ("environment", "env", "secrets")
"""Below these an experiment may hold what a report must not."""

@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """One run, ready to be shown. `key` begins every id of its part of the page.

    `slowest_s` is the longest phase of any recovery, against which bars are measured; `slowest_answer_s` is None if no
    VM answered again.
    """

    key: str
    run: RunRecord
    timeline: Timeline
    chart: Chart
    steps: list[ReportedStep]
    recoveries: list[Recovery]
    happenings: Happenings
    overload: str
    stalls: list[Stall]
    images: Mapping[str, Any]
    document: str
    slowest_s: float
    slowest_answer_s: float | None
    left: LeftOpen | None


def render_page(runs: Sequence[RunRecord], *, not_started: Sequence[str] = (), problem: str = "") -> str:
    """The whole page, as text for a UTF-8 file.

    `not_started` are the files of experiments that never began; `problem` is what failed beside all experiments.
    """
    style, script = (Markup(_part(name)) for name in ("page.css", "page.js"))
    return _environment().get_template("page.html.j2").render(
        views=[_view(run, f"r{number}") for number, run in enumerate(runs, start=1)],
        not_started=not_started,
        problem=problem,
        style=style,
        script=script,
        style_digest=_digest(style),
        script_digest=_digest(script),
        parts=PARTS,
        phases=(Phase.DETECTED, Phase.CLAIMED, Phase.STARTED, Phase.ANSWERING),
    )


def _view(run: RunRecord, key: str) -> _View:
    timeline = read_timeline(run.history)
    order, images = list(FindingKind), run.facts.get("images")
    recoveries = read_recoveries(run.history)
    reached = [time for row in recoveries for phase in Phase if (time := row.after_s(phase)) is not None]
    answered = [time for row in recoveries if (time := row.after_s(Phase.ANSWERING)) is not None]
    findings = tuple(sorted(run.findings, key=lambda finding: order.index(finding.kind)))
    return _View(
        key=key,
        run=replace(run, findings=findings),
        timeline=timeline,
        chart=draw_chart(run, timeline),
        steps=read_steps(run),
        recoveries=recoveries,
        happenings=read_happenings(run),
        overload=overload_since(run.history, 0),
        stalls=run.history.of(Stall),
        images=images if isinstance(images, dict) else {},
        document=cut(json.dumps(_without_secrets(run.document), indent=2, ensure_ascii=False), DOCUMENT_LIMIT),
        slowest_s=max(reached, default=0.0) or 1.0,
        slowest_answer_s=max(answered, default=None),
        left=read_left_open(run),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("chaos.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = _clock
    environment.filters["seconds"] = _seconds
    environment.filters["plain"] = _plain
    return environment


def _finalize(value: object) -> object:
    """Each value on its way to the page: its characters are fit for showing; escaping comes after this."""
    return value if isinstance(value, Markup) else shown(value)


def _part(name: str) -> str:
    return resources.files("chaos.report").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _clock(at_ns: int) -> str:
    """A Unix time as people read it, to the second."""
    return datetime.fromtimestamp(at_ns // 10**9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _plain(value: Any) -> str:
    """A fact of any kind in one line."""
    return cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _without_secrets(value: Any, key: str = "") -> Any:
    if key.lower() in SECRET_KEYS and isinstance(value, dict | list):
        return "(not shown)"
    if isinstance(value, Mapping):
        return {name: _without_secrets(entry, str(name)) for name, entry in value.items()}
    if isinstance(value, list):
        return [_without_secrets(entry) for entry in value]
    return value
