"""The swim lanes of a run as geometry: rows of shapes, each with its place in percent of the time axis.

Percent, because then one picture fits a phone, a wide screen and a printed page without a script, and is zoomed by
making it wider. Every shape carries a sentence, so that nothing is told by colour alone. It draws nothing: the page's
template does, and knows no time.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from chaos.history.instances import Instance
from chaos.history.overload import nodes_late
from chaos.history.records import ClientBeat, EngineSlow, FaultMoment, PartBegan, Stall, StepEnded, StreamGap
from chaos.output.sanitized_text import cut
from chaos.report.run_record import RunRecord
from chaos.report.timeline import FaultBand, NodeState, Span, Timeline

__all__ = ["COLOURS", "AxisTick", "Chart", "Glyph", "Row", "Shape", "draw_chart"]

COLOURS = 9
"""So many nodes have a colour of their own: as many as a rig may have."""

BODY_PX = 960
"""The width of the time axis on a usual screen. Only decides which labels have room; the rest have their sentence."""

CHARACTER_PX = 6.6
ZOOMS = (1, 4, 16)

MAX_SHAPES_PER_ROW = 1500
"""A row with more shapes than it has pixels says nothing, and a browser does not show a page with millions of them."""

MAX_FAULT_ROWS = 6
LANE_PX = 24
MAX_LABELLED_FAULTS = 12

_TICK_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


class Glyph(StrEnum):
    """What is drawn where something happened at one moment."""

    NONE = ""
    DOWN = "down"
    CROSS = "cross"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A bar, or a glyph when it has one. `x` and `width` are in percent, `y` and `height` in pixels of the chart.

    `css` are the classes that colour it, `title` is its sentence, `label` the text on it from zoom `label_zoom` on (0:
    never).
    """

    x: float
    width: float
    y: float
    height: float
    css: str
    title: str
    label: str = ""
    label_zoom: int = 0
    glyph: Glyph = Glyph.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One lane. `name` and `note` stand beside it; `kind` is a class of its own."""

    kind: str
    name: str
    note: str = ""
    y: float = 0
    height: int = LANE_PX
    shapes: tuple[Shape, ...] = ()
    ticks: bool = False
    opens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisTick:
    """A line of the grid and its time, shown from `zoom` on."""

    x: float
    text: str
    zoom: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The whole picture. `moments` are lines through all rows: where a fault began or was healed.

    Its axis goes from `began_s` after the beginning of the run on for `length_s`; `not_drawn_s` of the run lie outside.
    """

    rows: tuple[Row, ...]
    height: float
    ticks: tuple[AxisTick, ...]
    moments: tuple[Shape, ...]
    doubts: tuple[Shape, ...]
    colours: dict[str, int] = field(default_factory=dict)
    left_out: int = 0
    began_s: float = 0
    length_s: float = 0
    not_drawn_s: float = 0


def draw_chart(run: RunRecord, timeline: Timeline) -> Chart:
    """The chart of one run."""
    return _Drawing(run, timeline).chart()


class _Drawing:
    def __init__(self, run: RunRecord, timeline: Timeline) -> None:
        self._run = run
        self._timeline = timeline
        self._began_ns, self._ended_ns = _drawn(run)
        self._length_ns = max(self._ended_ns - self._began_ns, 1)
        self._colours = {name: index % COLOURS + 1 for index, name in enumerate(run.nodes)}
        self._left_out = 0

    def chart(self) -> Chart:
        rows = [
            Row(kind="axis", name="", height=20, ticks=True),
            self._parts(),
            self._steps(),
            *self._faults(),
            *self._client(),
            *(self._node(name) for name in self._run.nodes),
            Row(kind="axis", name="", height=20, ticks=True),
            *self._vms(),
        ]
        placed, y = [], 0.0
        for row in rows:
            placed.append(self._place(row, y))
            y += row.height
        return Chart(
            rows=tuple(placed),
            height=y,
            ticks=tuple(_ticks(self._run.seconds(self._began_ns), self._length_ns / 1e9)),
            moments=tuple(self._moments(y)),
            doubts=tuple(self._doubts(y)),
            colours=self._colours,
            left_out=self._left_out,
            began_s=self._run.seconds(self._began_ns),
            length_s=self._length_ns / 1e9,
            not_drawn_s=(self._run.ended_ns - self._run.began_ns - self._length_ns) / 1e9,
        )

    def _place(self, row: Row, y: float) -> Row:
        """The row at its height, and no more of it than a browser can show."""
        shapes = row.shapes[:MAX_SHAPES_PER_ROW]
        self._left_out += len(row.shapes) - len(shapes)
        moved = tuple(replace(shape, y=shape.y + y) for shape in shapes)
        return replace(row, y=y, shapes=moved)

    # The rows above the lanes

    def _parts(self) -> Row:
        began = self._run.history.of(PartBegan)
        ends = [*(entry.at_ns for entry in began[1:]), self._run.ended_ns][: len(began)]
        shapes = [
            self._bar(part.at_ns, end_ns, y=2, height=16, css=f"part part{index % 2}", what=part.part, label=part.part)
            for index, (part, end_ns) in enumerate(zip(began, ends, strict=True))
        ]
        return Row(kind="parts", name="parts of the run", height=20, shapes=_present(shapes))

    def _steps(self) -> Row:
        shapes = []
        for number, step in enumerate(self._run.history.of(StepEnded), start=1):
            what = f"step {number}, {step.phase}: {step.name}, {step.outcome}"
            what += f" ({step.reason})" if step.reason else ""
            css = f"step {step.outcome if step.outcome in ('succeeded', 'failed', 'skipped') else 'skipped'}"
            shapes.append(
                self._bar(step.began_ns, step.at_ns, y=3, height=16, css=css, what=what, label=str(number), short=True)
            )
        return Row(kind="steps", name="steps", height=22, shapes=_present(shapes))

    def _faults(self) -> list[Row]:
        """Bands side by side where they overlap; a point fault is a mark with its name beside it."""
        bands = self._timeline.faults
        named = len(bands) <= MAX_LABELLED_FAULTS
        rows: list[list[Shape]] = [[]]
        free: list[float] = [-1.0]
        for band in bands:
            text = f"{band.number} {band.fault} {band.target}" if named else str(band.number)
            shapes, begins, ends = self._band_with_text(band, cut(text, 60))
            row = next((index for index, end in enumerate(free) if end <= begins), None)
            if row is None and len(rows) < MAX_FAULT_ROWS:
                rows.append([])
                free.append(-1.0)
                row = len(rows) - 1
            row = free.index(min(free)) if row is None else row
            rows[row] += shapes
            free[row] = max(free[row], ends)
        names = ["faults", *([""] * (len(rows) - 1))]
        return [Row(kind="faults", name=name, shapes=tuple(shapes)) for name, shapes in zip(names, rows, strict=True)]

    def _band_with_text(self, band: FaultBand, text: str) -> tuple[list[Shape], float, float]:
        """The band, and from where to where it needs its row."""
        x, width = self._extent(band.began_ns, self._end_of(band))
        text_width = (len(text) * CHARACTER_PX + 16) / BODY_PX * 100
        if band.at_once:
            bar = Shape(
                x=x, width=0, y=4, height=15, css=_band_css(band), title=self._band_text(band), glyph=Glyph.DOWN
            )
        else:
            bar = Shape(x=x, width=width, y=4, height=15, css=_band_css(band), title=self._band_text(band))
        before = x + text_width > 100
        label = Shape(
            x=x, width=0, y=4, height=15, css=f"beside{' before' if before else ''}", title="", label=text, label_zoom=1
        )
        ends = x + width if before else max(x + width, x + text_width)
        return [bar, label], x - text_width if before else x, ends

    def _client(self) -> list[Row]:
        """How much of what the client outside asked was answered, second by second."""
        beats = [beat for beat in self._run.history.of(ClientBeat) if beat.asked > 0]
        if not beats:
            return []
        shapes = []
        for beat in beats:
            share = min(1.0, beat.answered / beat.asked)
            shapes.append(
                self._bar(
                    beat.at_ns - 10**9,
                    beat.at_ns,
                    y=2 + 16 * (1 - share),
                    height=max(1.0, 16 * share),
                    css="beat" if share > 0.999 else "beat low",
                    what=f"client outside: {beat.answered} of {beat.asked} requests answered in this second",
                )
            )
        note = "answered"
        return [Row(kind="client", name="client", note=note, height=20, shapes=_present(shapes))]

    # The lanes

    def _node(self, name: str) -> Row:
        shapes = [
            self._bar(
                span.began_ns,
                span.ended_ns,
                y=4,
                height=15,
                css=f"node {_NODE_CSS.get(span.state, 'joining')} n{self._colours[name]}",
                what=f"{name} is {span.state} ({span.detail})",
                label=span.state,
            )
            for span in self._timeline.nodes.get(name, ())
        ]
        return Row(
            kind="node",
            name=name,
            note="voter" if name in self._run.voters else "",
            shapes=(*_present(shapes), *self._bands_of(name)),
        )

    def _vms(self) -> list[Row]:
        rows = []
        for group in self._run.groups:
            owner = list(self._owner(group.name))
            if not group.vms:
                rows.append(Row(kind="vm", name=group.name, note="group", shapes=tuple(owner), opens=True))
            for index, vm in enumerate(group.vms):
                note = "" if group.name == vm else group.name
                shapes = (*owner, *self._vm(vm))
                rows.append(Row(kind="vm", name=vm, note=note, shapes=shapes, opens=index == 0))
        return rows

    def _owner(self, group: str) -> Iterable[Shape]:
        spans = self._timeline.owners.get(group, ())
        return _present(
            self._bar(
                span.began_ns,
                span.ended_ns,
                y=2,
                height=3,
                css=f"owner {self._node_css(span.node)}",
                what=f"group {group}: owner {span.node or 'nobody'}, epoch {span.epoch}",
            )
            for span in spans
        )

    def _vm(self, vm: str) -> Iterable[Shape]:
        """From back to front: not wanted, states, runs, answers, faults."""
        line = self._timeline
        yield from _present(
            self._span(span, y=11, height=2, css="unwanted", what=f"{vm}: PersistentState 0, nobody wants it")
            for span in line.unwanted.get(vm, ())
        )
        yield from _present(
            self._span(
                span,
                y=7,
                height=10,
                css=f"state {'broken' if span.state == 'Failed' else 'pending'}",
                what=f"{vm} is {span.state} on {span.node}",
            )
            for span in line.states.get(vm, ())
        )
        yield from _present(self._runs(vm, line.instances.get(vm, ())))
        for span in line.answers.get(vm, ()):
            shape = self._span(
                span,
                y=19,
                height=3,
                css="answers" if span.state == "answers" else "silent",
                what=f"{vm}: {span.state}" + (f" from {span.node}" if span.node else "") + f" ({span.detail})",
            )
            if shape is not None:
                yield shape
        yield from self._bands_of(vm)

    def _runs(self, vm: str, instances: Sequence[Instance]) -> Iterable[Shape | None]:
        """Each run; one that began while another was there lies in the lower half, and the time of both is marked."""
        for index, instance in enumerate(instances):
            others = [other for other in instances[:index] if other.overlap_ns(instance) != 0]
            yield self._run_of(vm, instance, beside=bool(others))
            for other in others:
                ends = [run.ended_ns for run in (other, instance) if run.ended_ns is not None]
                what = f"{vm} runs twice, on {other.node} and on {instance.node}"
                yield self._bar(
                    instance.started_ns, min(ends, default=None), y=3, height=17, css="twice", what=what, label="twice"
                )

    def _run_of(self, vm: str, instance: Instance, *, beside: bool) -> Shape | None:
        foreign = ", a foreign start" if instance.foreign else ""
        end = f"until {self._at(instance.ended_ns)} ({instance.ended_by})" if instance.ended_ns else "to the end"
        return self._bar(
            instance.started_ns,
            instance.ended_ns,
            y=12 if beside else 6,
            height=6 if beside else 12,
            css=f"run {self._node_css(instance.node)}{' foreign' if instance.foreign else ''}",
            what=f"{vm} runs on {instance.node}{foreign}, {end}",
            label="" if beside else instance.node,
        )

    def _bands_of(self, target: str) -> list[Shape]:
        """The faults that were aimed at this lane."""
        shapes = []
        for band in self._timeline.faults:
            if band.target != target:
                continue
            x, width = self._extent(band.began_ns, self._end_of(band))
            title = self._band_text(band)
            if not band.at_once:
                shapes.append(Shape(x=x, width=width, y=1, height=22, css="hit", title=title))
            shapes.append(Shape(x=x, width=0, y=1, height=22, css=_band_css(band), title=title, glyph=Glyph.CROSS))
        return shapes

    def _moments(self, height: float) -> Iterable[Shape]:
        many = " many" if len(self._timeline.faults) > MAX_LABELLED_FAULTS else ""
        for band in self._timeline.faults:
            title = self._band_text(band)
            x, _ = self._extent(band.began_ns, band.began_ns)
            yield Shape(x=x, width=0, y=0, height=height, css=f"began{many}", title=title)
            if band.healed_ns is not None and not band.at_once:
                x, _ = self._extent(band.healed_ns, band.healed_ns)
                yield Shape(x=x, width=0, y=0, height=height, css=f"healed{many}", title=title)

    def _doubts(self, height: float) -> Iterable[Shape]:
        """Where times mean little: the host was overloaded, or the engine's events were not heard."""
        late = [(stall.at_ns, stall.length_us, "the runner stood still") for stall in self._run.history.of(Stall)]
        late += [(slow.at_ns, slow.took_us, "the engine did not answer") for slow in self._run.history.of(EngineSlow)]
        late += [
            (node.at_ns, node.window_us, f"the loop of {node.node} was late") for node in nodes_late(self._run.history)
        ]
        for at_ns, length_us, text in late:
            what = f"{text}, {length_us / 1e6:.1f} s"
            yield from _present(
                [self._bar(at_ns - length_us * 1000, at_ns, y=0, height=height, css="stall", what=what)]
            )
        for gap in self._run.history.of(StreamGap):
            lost = "" if gap.complete else ", and events may be lost"
            what = f"the engine's events were not heard ({gap.reason}){lost}"
            yield from _present([self._bar(gap.since_ns, gap.at_ns, y=0, height=height, css="gap", what=what)])

    # Geometry

    def _at(self, at_ns: int) -> str:
        return f"{self._run.seconds(at_ns):.3f} s"

    def _end_of(self, band: FaultBand) -> int:
        return self._run.ended_ns if band.healed_ns is None else band.healed_ns

    def _extent(self, began_ns: int, ended_ns: int) -> tuple[float, float]:
        """Percent of the axis: where it begins and how wide it is. What lies outside of it is cut off."""
        first = min(max(began_ns - self._began_ns, 0), self._length_ns)
        last = min(max(ended_ns - self._began_ns, first), self._length_ns)
        return round(first / self._length_ns * 100, 3), round((last - first) / self._length_ns * 100, 3)

    def _span(self, span: Span, *, y: float, height: float, css: str, what: str) -> Shape | None:
        return self._bar(span.began_ns, span.ended_ns, y=y, height=height, css=css, what=what)

    def _bar(
        self,
        began_ns: int,
        ended_ns: int | None,
        *,
        y: float,
        height: float,
        css: str,
        what: str,
        label: str = "",
        short: bool = False,
    ) -> Shape | None:
        """A bar; None for one that lies outside of the axis. `short`: its label needs no more than its own width."""
        end_ns = self._run.ended_ns if ended_ns is None else ended_ns
        if end_ns < self._began_ns or began_ns > self._ended_ns:
            return None
        x, width = self._extent(began_ns, end_ns)
        until = "" if ended_ns is None else f" to {self._at(end_ns)}"
        needed = len(label) * CHARACTER_PX + (4 if short else 10)
        return Shape(
            x=x,
            width=width,
            y=y,
            height=height,
            css=css,
            title=f"{cut(what, 300)}; {self._at(began_ns)}{until}",
            label=cut(label, 40),
            label_zoom=_zoom_for(needed, width) if label else 0,
        )

    def _node_css(self, node: str) -> str:
        return f"n{self._colours[node]}" if node in self._colours else "n0"

    def _band_text(self, band: FaultBand) -> str:
        receipt = f"{band.receipt}: {band.seen}" if band.receipt else "its effect was never measured"
        if band.at_once:
            healed = ""
        elif band.healed_ns is None:
            healed = "; not healed"
        else:
            healed = f"; healed at {self._at(band.healed_ns)}: {band.healed_by}"
        what = f"fault {band.number}: {band.fault} on {band.target} at {self._at(band.began_ns)}"
        return cut(f"{what}; {receipt}{healed}")


def _drawn(run: RunRecord) -> tuple[int, int]:
    """From the steady state on until the clean-up: what comes before and after says nothing about the faults.

    All of it when the run did not get that far: then the bring-up is what a reader wants to see.
    """
    began = {part.part: part.at_ns for part in run.history.of(PartBegan)}
    if "gate" not in began:
        return run.began_ns, run.ended_ns
    return began["gate"], began.get("down", run.ended_ns)


_NODE_CSS: Mapping[str, str] = {
    NodeState.JOINING: "joining",
    NodeState.UP: "up",
    NodeState.PAUSED: "paused",
    NodeState.NO_LEASE: "doubtful",
    NodeState.DECLARED_DOWN: "doubtful",
    NodeState.FROZEN: "doubtful",
    NodeState.OFF: "off",
    NodeState.FENCED: "off",
}


def _band_css(band: FaultBand) -> str:
    return "fault" if band.receipt is FaultMoment.CONFIRMED else "fault unsure"


def _present(shapes: Iterable[Shape | None]) -> tuple[Shape, ...]:
    return tuple(shape for shape in shapes if shape is not None)


def _zoom_for(needed_px: float, width: float) -> int:
    """The first zoom at which so many pixels fit; 0 if none does."""
    return next((zoom for zoom in ZOOMS if width / 100 * BODY_PX * zoom >= needed_px), 0)


def _ticks(began_s: float, length_s: float) -> Iterable[AxisTick]:
    """Some ten lines in view at each zoom; every zoom's lines are among those of the next."""
    steps: list[float] = []
    for zoom in ZOOMS:
        wanted_s = length_s / (10 * zoom)
        fitting: Sequence[float] = [step for step in _TICK_STEPS_S if step >= wanted_s] or _TICK_STEPS_S[-1:]
        divides = [step for step in fitting if not steps or round(steps[-1] / step, 6).is_integer()]
        steps.append(divides[0] if divides else steps[-1])
    finest_s = steps[-1]
    first = math.ceil(began_s / finest_s - 1e-9)
    for index in range(first, first + int(length_s / finest_s) + 1):
        at_s = index * finest_s
        if at_s > began_s + length_s:
            break
        zoom = next(
            zoom for zoom, step in zip(ZOOMS, steps, strict=True) if abs(at_s / step - round(at_s / step)) < 1e-6
        )
        x = round((at_s - began_s) / length_s * 100, 3)
        yield AxisTick(x=x, text=_clock(at_s, began_s + length_s), zoom=zoom)


def _clock(at_s: float, last_s: float) -> str:
    if last_s <= 120:
        return f"{at_s:g} s"
    return f"{int(at_s) // 60}:{at_s % 60:04.1f}".removesuffix(".0")
