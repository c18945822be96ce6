"""Spans of nodes, owners and VMs, and their place on the axis."""

from pathlib import Path

import pytest
from recorded_runs import (
    Recorded,
    at,
    fault,
    large_run,
    line,
    node_event,
    power_cut,
    snapshot,
    step,
    vm_event,
)

from chaos.history.records import ClientAnswer, ContainerRole, ContainerSeen, FaultMoment, History, PartBegan, Record
from chaos.report.chart import BODY_PX, MAX_SHAPES_PER_ROW, Chart, Row, draw_chart
from chaos.report.run_record import read_journal
from chaos.report.timeline import Span, Timeline, read_timeline


def timeline(*records: Record) -> Timeline:
    return read_timeline(History(records))


def told(spans: list[Span]) -> list[tuple[str, float, float | None]]:
    """State, begin and end in seconds of the run."""


    def seconds(at_ns: int) -> float:
        return (at_ns - at(0)) / 1e9

    return [
        (str(span.state), seconds(span.began_ns), None if span.ended_ns is None else seconds(span.ended_ns))
        for span in spans
    ]


def chart(recorded: Recorded, directory: Path) -> Chart:
    run = read_journal(recorded.write(directory))
    return draw_chart(run, read_timeline(run.history))


def lane(drawn: Chart, name: str) -> Row:
    return next(row for row in drawn.rows if row.name == name)


JOINED = line(1, "node1", "node-joined", session="node1@1/1")


def test_a_node_joins_loses_its_power_is_fenced_and_joins_again() -> None:
    assert told(timeline(*power_cut()).nodes["node1"]) == [
        ("joining", 0.1, 0.5),
        ("up", 0.5, 2.2),
        ("off", 2.2, 4.2),
        ("fenced", 4.2, 6.0),
        ("joining", 6.0, 7.0),
        ("up", 7.0, None),
    ]


def test_a_frozen_node_is_what_it_was_after_the_thaw() -> None:
    thawed = node_event(3, "unpause", "node1")
    records = [node_event(0, "start", "node1"), JOINED, node_event(2, "pause", "node1"), thawed]

    assert told(timeline(*records).nodes["node1"])[2:] == [("frozen", 2.0, 3.0), ("up", 3.0, None)]


def test_a_node_that_runs_and_is_declared_down_is_not_shown_as_off() -> None:
    declared = line(2, "node2", "node-declared-down", node="node1", session="node1@1/1")

    assert told(timeline(node_event(0, "start", "node1"), JOINED, declared).nodes["node1"])[-1][0] == "declared down"


def test_what_is_said_of_an_earlier_session_changes_nothing_of_the_present_one() -> None:
    late = [
        line(2, "node2", "node-declared-down", node="node1", session="node1@1/0"),
        line(3, "node2", "node-fenced", node="node1", session="node1@1/0"),
    ]

    assert told(timeline(node_event(0, "start", "node1"), JOINED, *late).nodes["node1"])[-1] == ("up", 1.0, None)


def test_a_lost_lease_is_shown_until_guests_are_granted_again() -> None:
    records = [
        node_event(0, "start", "node1"), JOINED, line(2, "node1", "lease-lapsed"), line(3, "node1", "guests-granted"),
    ]

    assert told(timeline(*records).nodes["node1"])[2:] == [("lease lost", 2.0, 3.0), ("up", 3.0, None)]


def test_a_standing_rig_is_known_from_the_engines_list_and_the_clusters_snapshot() -> None:
    listed = ContainerSeen(at_ns=at(0), container="c", role=ContainerRole.NODE, node="node1", running=True)

    spans = timeline(listed, snapshot(1), snapshot(2, paused=True)).nodes["node1"]

    assert told(spans) == [("joining", 0.0, 1.0), ("up", 1.0, 2.0), ("paused", 2.0, None)]


def test_the_higher_epoch_counts_whoever_speaks_last() -> None:
    records = [
        line(1, "node1", "group-claimed", group="web", owner="node1", epoch=1),
        line(2, "node2", "resource-online", group="web", resource="web-vm", epoch=3),
        snapshot(3, owner="node1", epoch=1),
    ]

    spans = timeline(*records).owners["web"]

    assert [(span.node, span.epoch) for span in spans] == [("node1", 1), ("node2", 3)]


def test_a_move_is_told_by_the_owner_before_it() -> None:
    records = [
        line(1, "node1", "group-claimed", group="web", owner="node1", epoch=1),
        line(2, "node1", "group-moved", group="web", target="node3", epoch=2),
        line(3, "node3", "group-move-given-up", group="web", target="node1", epoch=3),
    ]

    spans = timeline(*records).owners["web"]

    assert [(span.node, span.epoch) for span in spans] == [("node1", 1), ("node3", 2), ("node3", 3)]


def test_pending_and_failed_end_with_online_or_with_the_node() -> None:
    def state(seconds: float, node: str, old: str, new: str) -> Record:
        return line(seconds, node, "resource-state", resource="web-vm", group="web", old=old, state=new)

    records = [
        state(0, "node1", "Initializing", "Offline"),
        state(1, "node1", "Offline", "OnlinePending"),
        state(2, "node1", "OnlinePending", "Online"),
        state(3, "node1", "Online", "Failed"),
        state(3.5, "node2", "Initializing", "Offline"),
        node_event(4, "die", "node1"),
    ]

    assert told(timeline(*records).states["web-vm"]) == [("OnlinePending", 1.0, 2.0), ("Failed", 3.0, 4.0)]


def test_what_nobody_wants_is_told_from_the_log_and_from_snapshots() -> None:
    stopped = line(2, "node1", "persistent-state", group="web", resource="web-vm", wanted=False)

    spans = timeline(snapshot(1), stopped, snapshot(5)).unwanted["web-vm"]

    assert told(spans) == [("PersistentState 0", 2.0, 5.0)]


def test_a_fault_lasts_from_its_injection_until_it_was_healed() -> None:
    (band,) = timeline(*power_cut()).faults

    assert (band.began_ns, band.healed_ns, band.receipt) == (at(2), at(6.1), FaultMoment.CONFIRMED)
    assert not band.at_once


def test_a_fault_that_nobody_healed_is_open_and_one_without_receipt_says_so(tmp_path: Path) -> None:
    recorded = Recorded([fault(2, FaultMoment.INJECTED)])

    (band,) = timeline(*recorded.records).faults
    bar = next(shape for shape in lane(chart(recorded, tmp_path), "faults").shapes if shape.width)

    assert (band.healed_ns, band.receipt) == (None, None)
    assert (bar.x, bar.width) == (20.0, 80.0)
    assert "unsure" in bar.css
    assert "never measured; not healed" in bar.title


def test_a_run_lies_where_its_times_say_and_the_gap_stays_open(tmp_path: Path) -> None:
    drawn = chart(Recorded([entry for entry in power_cut() if not isinstance(entry, PartBegan)]), tmp_path)

    runs = [shape for shape in lane(drawn, "web-vm").shapes if shape.css.startswith("run")]

    assert [(shape.x, shape.width, shape.css, shape.label) for shape in runs] == [
        (10.0, 11.0, "run n1", "node1"),
        (46.0, 54.0, "run n2", "node2"),
    ]


def test_the_picture_goes_from_the_steady_state_to_the_clean_up(tmp_path: Path) -> None:
    drawn = chart(Recorded(power_cut()), tmp_path)

    assert (drawn.began_s, drawn.length_s, drawn.not_drawn_s) == (1.5, 7.5, 2.5)
    assert all(shape.x >= 0 and shape.x + shape.width <= 100.001 for row in drawn.rows for shape in row.shapes)
    assert [tick.text for tick in drawn.ticks if tick.zoom == 1] == [f"{second} s" for second in range(2, 10)]


def test_a_run_that_never_got_to_its_steady_state_is_drawn_from_its_beginning(tmp_path: Path) -> None:
    drawn = chart(Recorded([PartBegan(at_ns=at(0), part="up"), node_event(1, "start", "node1")]), tmp_path)

    assert (drawn.began_s, drawn.length_s) == (0.0, 10.0)


def test_a_label_is_only_shown_from_the_zoom_on_at_which_it_fits(tmp_path: Path) -> None:
    drawn = chart(large_run(), tmp_path)

    labelled = [shape for row in drawn.rows for shape in row.shapes if shape.label_zoom and shape.width]
    assert {shape.label_zoom for shape in labelled} == {1, 4, 16}
    assert all(shape.width / 100 * BODY_PX * shape.label_zoom >= len(shape.label) * 6 for shape in labelled)


def test_every_vm_and_node_of_a_large_rig_has_its_lane(tmp_path: Path) -> None:
    drawn = chart(large_run(), tmp_path)

    assert sum(row.kind == "vm" for row in drawn.rows) == 64
    assert sum(row.kind == "node" for row in drawn.rows) == 9
    assert len({drawn.colours[f"node{number}"] for number in range(1, 10)}) == 9
    for row in drawn.rows:
        assert all(row.y <= shape.y and shape.y + shape.height <= row.y + row.height for shape in row.shapes), row.name


def test_faults_that_overlap_lie_below_each_other(tmp_path: Path) -> None:
    records: list[Record] = []
    for number in (1, 2, 3):
        records.append(fault(number, FaultMoment.INJECTED, number=number))
        records.append(fault(number + 5, FaultMoment.HEALED, number=number, seen="by a cure"))

    drawn = chart(Recorded(records), tmp_path)

    bars = [shape for row in drawn.rows if row.kind == "faults" for shape in row.shapes if shape.width]
    assert len({shape.y for shape in bars}) == 3


def test_a_lane_draws_so_many_shapes_and_no_more_and_says_how_many_are_missing(tmp_path: Path) -> None:
    flapping = [
        ClientAnswer(at_ns=at(number / 1000), vm="web-vm", ok=bool(number % 2), boot="b", node="node1")
        for number in range(MAX_SHAPES_PER_ROW + 10)
    ]

    drawn = chart(Recorded(flapping), tmp_path)

    assert len(lane(drawn, "web-vm").shapes) == MAX_SHAPES_PER_ROW
    assert drawn.left_out == 10


@pytest.mark.parametrize("length_s", [0.0, 0.05, 1, 59, 600, 90_000])
def test_the_axis_has_a_readable_number_of_ticks_at_any_length(tmp_path: Path, length_s: float) -> None:
    drawn = chart(Recorded([step(0, length_s, "all of it")], length_s=length_s), tmp_path)

    assert sum(tick.zoom == 1 for tick in drawn.ticks) <= 12
    assert len(drawn.ticks) <= 200
    assert all(0 <= tick.x <= 100 for tick in drawn.ticks)


def test_a_foreign_start_is_told_apart(tmp_path: Path) -> None:
    mine = vm_event(1, "start", "web-vm", "node1")
    foreign = type(mine)(
        at_ns=at(2), action="start", container="x", role=ContainerRole.VM, node="node2", vm="web-vm", group="web"
    )

    ended = vm_event(1.5, "die", "web-vm", "node1")
    shapes = lane(chart(Recorded([mine, ended, foreign]), tmp_path), "web-vm").shapes

    assert ["foreign" in shape.css for shape in shapes] == [False, True]
    assert ["foreign start" in shape.title for shape in shapes] == [False, True]


def test_two_runs_at_once_are_both_seen_and_their_common_time_is_marked(tmp_path: Path) -> None:
    records = [
        vm_event(1, "start", "web-vm", "node1"),
        vm_event(4, "start", "web-vm", "node2"),
        vm_event(6, "die", "web-vm", "node1"),
    ]

    shapes = lane(chart(Recorded(records), tmp_path), "web-vm").shapes

    first, second = (shape for shape in shapes if shape.css.startswith("run"))
    (twice,) = (shape for shape in shapes if shape.css == "twice")
    assert second.y > first.y
    assert (twice.x, twice.width) == (40.0, 20.0)
    assert "runs twice, on node1 and on node2" in twice.title
