"""The benchmarks' frame: what a figure says of its goal, what is measured in turn, what the page shows."""

import json

import pytest

from bench.figure import Figure, Goal, GoalKind, Series, alternate
from bench.idle_cost import _percent, _sample
from bench.page import as_json, as_page, as_table
from bench.rig_start import PHASES, _marks, _phases
from bench.run import BENCHMARKS, NOTES_MARK, main
from harness.errors import HarnessError
from harness.model import labels


def figure(*, goal: Goal, measured: tuple[float, ...] = (3.0, 1.0, 2.0), floor: tuple[float, ...] = (1.0,)) -> Figure:
    return Figure(
        title="a thing",
        unit="s",
        measured=Series(values=measured),
        floor=Series(values=floor),
        goal=goal,
        how="It is done.",
        floor_is="nothing.",
        phases={"begin": 0.5},
    )


@pytest.mark.parametrize(
    ("kind", "limit", "reached"),
    [
        (GoalKind.RATIO, 2.0, True),
        (GoalKind.RATIO, 1.9, False),
        (GoalKind.MEDIAN, 2.0, True),
        (GoalKind.MEDIAN, 1.9, False),
    ],
)
def test_a_goal_is_held_against_the_median_or_its_ratio_to_the_floor(
    kind: GoalKind, limit: float, reached: bool
) -> None:
    assert figure(goal=Goal(kind=kind, limit=limit)).reached is reached


def test_a_floor_of_nothing_has_no_ratio_and_reaches_no_goal_of_one() -> None:
    found = figure(goal=Goal(kind=GoalKind.RATIO, limit=100.0), floor=(0.0,))

    assert found.ratio is None
    assert found.reached is False
    assert "| none |" in as_table([found])


def test_measures_take_turns() -> None:
    order = []

    def measure(name: str, number: int) -> float:
        order.append((name, number))
        return float(number)

    found = alternate(2, {"ours": lambda number: measure("ours", number), "floor": lambda number: measure("f", number)})

    assert order == [("ours", 0), ("f", 0), ("ours", 1), ("f", 1)]
    assert found["ours"].values == (0.0, 1.0)


def test_page_has_ratio_median_spread_goal_phases_facts_and_keeps_the_notes() -> None:
    page = as_page([figure(goal=Goal(kind=GoalKind.MEDIAN, limit=1.5))], {"vm": "small"}, NOTES_MARK + "\nmine\n")

    assert "| a thing | 2.00 | 2 s | 1 s | 1 to 3 | at most 1.5 s | **no** |" in page
    assert "| begin | 0.5 s |" in page
    assert "- vm: small\n" in page
    assert page.endswith(NOTES_MARK + "\nmine\n")


def test_json_has_every_value() -> None:
    told = json.loads(as_json([figure(goal=Goal(kind=GoalKind.RATIO, limit=2.5))], {"vm": "small"}))

    assert told["facts"] == {"vm": "small"}
    assert told["figures"][0]["values"] == [3.0, 1.0, 2.0]
    assert told["figures"][0]["ratio"] == 2.0


@pytest.mark.parametrize("unused", [{"total_inactive_file": 40}, {"inactive_file": 40}])
def test_memory_is_reckoned_as_by_docker_stats_on_both_versions_of_control_groups(unused: dict[str, int]) -> None:
    def stats(second: int, processor_ns: int) -> dict[str, object]:
        return {
            "read": f"2026-01-02T03:04:{second:02d}.123456789Z",
            "memory_stats": {"usage": 100, "stats": unused},
            "cpu_stats": {"cpu_usage": {"total_usage": processor_ns}},
        }

    before, after = _sample("node1", stats(5, 0)), _sample("node1", stats(7, 10_000_000))

    assert after.memory_bytes == 60
    assert _percent(before, after) == pytest.approx(0.5)


def test_a_container_that_does_not_run_is_no_idle_one() -> None:
    with pytest.raises(HarnessError, match="node1 does not run"):
        _sample("node1", {"read": "", "memory_stats": {}, "cpu_stats": {}})


def test_phases_of_a_rigs_start_follow_each_other() -> None:
    def event(action: str, role: str, at_s: float) -> dict[str, object]:
        return {"Action": action, "Actor": {"Attributes": {labels.ROLE: role}}, "timeNano": int(at_s * 1e9)}

    seen = [
        event("create", "node", 101.0),
        event("start", "node", 102.0),
        event("start", "node", 102.5),
        event("create", "vm", 103.5),
        event("start", "vm", 105.0),
    ]
    marks = _marks(seen) | {"cluster formed": 104.0, "all seen Online": 105.5}

    assert [_phases(100.0, marks)[phase] for phase in PHASES] == [1.0, 1.5, 1.5, 1.0, 0.5]


def test_a_phase_that_nothing_told_of_is_no_zero() -> None:
    with pytest.raises(HarnessError, match="nodes started"):
        _phases(100.0, {})


@pytest.mark.parametrize("arguments", [["no-such"], ["--rounds", "0"], [next(iter(BENCHMARKS)), "--write"]])
def test_wrong_usage_is_refused_before_anything_starts(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "error" in capsys.readouterr().err
