"""Search and replay: a weakened rule is found, and fails again from its file."""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.cli.main import run_command
from chaos.search.experiment_export import experiment_of, portable_search, without_counterpart
from chaos.search.rig_generator import draw_rig
from chaos.search.schedule_file import Schedule, read_schedule, topology_of, write_schedule
from chaos.search.search import Search, play, schedule_of
from harness.errors import UsageError
from harness.simulation.plants import OwnerIsANode
from harness.simulation.world.fault_kinds import OF_VOTERS, FaultKind, Planned

SMALL_RIG = {"nodes": 3, "groups": 2}


def runs(most: int) -> Callable[[Search], bool]:
    return lambda hunt: hunt.runs < most


def endless_crashes(vm: str) -> Planned:
    """For longer than a world may take to come to rest."""
    return Planned(at_us=45_000_000, kind=FaultKind.VM_CRASH_LOOP, target=vm, duration_us=60_000_000)


@pytest.fixture(scope="module")
def found_schedule() -> Schedule:
    hunt = Search(first_seed=0, rig=SMALL_RIG, parts=OwnerIsANode)
    found = hunt.search(runs(100))
    assert found.failure is not None
    assert "runs twice" in found.failure.broken[0]
    return found.failure.schedule


def test_a_healthy_cluster_is_searched_without_a_finding_and_the_coverage_is_told() -> None:
    found = Search(first_seed=0).search(runs(12))

    assert (found.runs, found.failure) == (12, None)
    assert sum(found.coverage.values()) == sum(len(schedule_of(seed).faults) for seed in range(12))
    assert {situation for _, situation, _ in found.coverage} > {"rest"}


def test_two_processes_find_what_one_finds(found_schedule: Schedule) -> None:
    found = Search(first_seed=0, rig=SMALL_RIG, parts=OwnerIsANode, jobs=2).search(runs(100))

    assert found.failure is not None
    assert found.failure.schedule == found_schedule


def test_a_found_schedule_fails_again_from_its_file(found_schedule: Schedule) -> None:
    text = write_schedule(found_schedule, remarks=["VM vm1\nruns twice"])

    again = read_schedule(text, name="x.yaml")

    assert again == found_schedule
    first, second = play(found_schedule, OwnerIsANode), play(again, OwnerIsANode)
    assert first.violations == second.violations != ()
    assert [str(line) for line in first.world.trace] == [str(line) for line in second.world.trace]
    assert not play(again).broken


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_every_schedule_that_is_drawn_is_the_same_after_its_file(first: int) -> None:
    for seed in range(first, first + 50):
        schedule = schedule_of(seed)

        assert read_schedule(write_schedule(schedule), name="x.yaml") == schedule


def _groups(count: int) -> list[dict[str, object]]:
    return [
        {"name": f"web{number}", "resources": [{"name": f"vm{number}", "type": "virtual-machine"}]}
        for number in range(1, count + 1)
    ]


def test_every_kind_of_fault_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")

    assert [kind.value for kind in FaultKind if f"`{kind.value}`" not in page] == []


def test_every_rig_that_is_drawn_can_be_made_and_all_sizes_are_drawn() -> None:
    drawn = [topology_of(draw_rig(random.Random(seed))) for seed in range(60)]

    sizes = Counter((len(topology.nodes), topology.witness is not None) for topology in drawn)
    assert set(sizes) == {(2, True), (3, False), (4, True), (5, False)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("schedule: 1 -> schedule: 9", "x.yaml:1: a schedule of version 9, expected version 1"),
        ("schedule: 1\n -> ", "x.yaml:1: a schedule has no schedule, expected schedule: 1"),
        ("node.reset -> node.rest", "x.yaml:4: there is no fault 'node.rest', expected node.reset"),
        ("node1 -> node7", "x.yaml:4: node.reset has no target 'node7' in this rig, expected node3 (did"),
        ("9s -> 9h", "x.yaml:4: at is 9h, expected a duration from 0s to 46s"),
        ("seed: 3 -> seed: x", "x.yaml:2: seed is 'x', expected a whole number"),
        ("nodes: 3 -> nodes: 300", "x.yaml:3: nodes is 300, expected a whole number from 1 to 64"),
        ("at: -> when: 1s, at:", "x.yaml:4: a fault has no key 'when'"),
        ("nodes: 3 -> nodes: 3, settings: {fencing: self}, groups: 1", ""),
    ],
)
def test_a_wrong_schedule_is_refused_with_its_line(change: str, told: str) -> None:
    text = (
        "schedule: 1\nseed: 3\nrig: {nodes: 3}\n"
        "faults: [{at: 9s, fault: node.reset, target: node1, duration: 1s}]\n"
    )
    before, _, after = change.partition(" -> ")
    assert before in text

    if not told:
        assert read_schedule(text.replace(before, after), name="x.yaml").topology.settings.fencing == "self"
        return
    with pytest.raises(UsageError) as refused:
        read_schedule(text.replace(before, after), name="x.yaml")
    assert told in str(refused.value)


def test_the_commands_save_replay_and_end_as_they_should(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], found_schedule: Schedule
) -> None:
    assert run_command(["search", "--runs", "2", "--jobs", "1", "--out", str(tmp_path)]) == 0
    assert "2 schedules in" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())

    file = tmp_path / "schedule.yaml"
    file.write_text(write_schedule(found_schedule))
    assert run_command(["replay", str(file)]) == 0
    assert "nothing is broken" in capsys.readouterr().out
    assert run_command(["shrink", str(file)]) == 2
    assert run_command(["replay", str(tmp_path / "none.yaml")]) == 2


def test_a_replay_that_breaks_something_ends_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.simulation.faults.schedule.QUIET_US", 0)
    loops = tuple(replace(endless_crashes("vm1"), at_us=at_us) for at_us in range(45_000_000, 46_000_000, 90_000))
    schedule = Schedule(seed=0, rig={"nodes": 3, "groups": _groups(1)}, faults=loops)
    file = tmp_path / "endless.yaml"
    file.write_text(write_schedule(schedule))

    assert run_command(["replay", str(file)]) == 1
    assert "broken: not at rest a minute after the last fault" in capsys.readouterr().out


def portable_schedule() -> Schedule:
    rig = {"nodes": 3, "groups": _groups(2)}
    faults = (
        Planned(at_us=9_000_000, kind=FaultKind.VM_CRASH, target="vm1", duration_us=200_000),
        Planned(at_us=9_500_000, kind=FaultKind.ONE_WAY, target="node2", duration_us=900_001),
        Planned(at_us=11_000_000, kind=FaultKind.POWER_OFF, target="node1", duration_us=3_000_000),
        Planned(at_us=12_000_000, kind=FaultKind.SERVICE_KILL, target="node1", duration_us=200_000),
    )
    return Schedule(seed=5, rig=rig, faults=faults)


def test_a_schedule_of_faults_that_experiments_have_is_an_experiment_that_passes(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(experiment_of(portable_schedule(), title="four faults"))

    assert run_command(["run", "--arena", "sim", "--seed", "5", "--out", str(tmp_path / "out"), str(file)]) == 0

    journal = json.loads((tmp_path / "out" / "journal.json").read_text())
    outcomes = {step["activity"]["name"]: step["status"] for step in journal["run"]}
    # The last one is due on a node that is off by then.
    assert outcomes["4: service.kill node1"] == "skipped"
    assert [name for name, outcome in outcomes.items() if outcome != "succeeded"] == ["4: service.kill node1"]
    injected = {
        record["fault"]: record["at_ns"] for record in journal["blackstart"]["faults"] if record["moment"] == "injected"
    }
    assert round((injected["node.power-off"] - injected["vm.crash"]) / 1e8) == 20


def test_a_schedule_with_a_fault_of_the_simulator_alone_has_no_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lossy = Planned(at_us=9_000_000, kind=FaultKind.LOSSY, target="node1", duration_us=200_000)
    schedule = replace(portable_schedule(), faults=(*portable_schedule().faults, lossy))
    file = tmp_path / "x.yaml"
    file.write_text(write_schedule(schedule))

    assert without_counterpart(schedule) == ["network.lossy"]
    assert run_command(["replay", "--arena", "docker", str(file)]) == 2
    assert "network.lossy exist in the simulator only" in capsys.readouterr().err


def test_a_portable_search_draws_only_what_experiments_have() -> None:
    hunt = portable_search(first_seed=0)

    drawn = [hunt.schedule(seed) for seed in range(60)]

    assert not any(without_counterpart(schedule) for schedule in drawn)
    assert sum(len(schedule.faults) for schedule in drawn) > 200


def test_a_run_is_made_again_from_its_journal(tmp_path: Path) -> None:
    experiment = tmp_path / "x.yaml"
    experiment.write_text(experiment_of(portable_schedule(), title="four faults"))
    first, again = tmp_path / "first", tmp_path / "again"
    assert run_command(["run", "--arena", "sim", "--seed", "9", "--out", str(first), str(experiment)]) == 0

    assert run_command(["replay", "--out", str(again), str(first / "journal.json")]) == 0

    told = [json.loads((out / "journal.json").read_text())["blackstart"] for out in (first, again)]
    assert told[0].pop("file") != told[1].pop("file")
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("journal", "what"),
    [
        (
            '{"chaoslib-version": "blackstart 0.0.1", "experiment": {}, '
            '"blackstart": {"version": "0.0.1", "seed": 1, "rig": "r"}}',
            "a journal of version 0.0.1, expected",
        ),
        ('{"chaoslib-version": "1.44.0"}', "no whole journal of a run"),
        ('{"chaoslib-version"', "no whole journal of a run"),
    ],
)
def test_a_journal_that_is_not_ours_or_of_another_version_is_refused(
    journal: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "journal.json"
    file.write_text(journal)

    assert run_command(["replay", str(file)]) == 2
    assert what in capsys.readouterr().err


def test_nodes_without_a_vote_are_struck_by_what_concerns_them() -> None:
    rig = {"nodes": 5, "voters": 3, "groups": 4}
    voters = {node.name for node in topology_of(rig).voters}
    schedules = [schedule_of(seed, rig) for seed in range(30)]

    of_voters = [fault for schedule in schedules for fault in schedule.faults if fault.kind in OF_VOTERS]

    assert of_voters
    assert {fault.target for fault in of_voters} <= voters
    assert any(fault.target == "node5" for schedule in schedules for fault in schedule.faults)
    assert not any(play(schedule).broken for schedule in schedules[:5])
