"""Schedules as experiments: the faults that have a counterpart, what is put back in the end, and what has none."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from chaos.cli.main import run_command
from chaos.search.experiment_export import experiment_of, portable, without_counterpart
from chaos.search.schedule_file import Schedule
from harness.simulation.world.fault_kinds import FaultKind, Planned

SECOND = 1_000_000


def schedule(*faults: Planned, **rig: Any) -> Schedule:
    group = {
        "resources": [
            {"name": "ip", "type": "ip-address"},
            {"name": "vm", "type": "virtual-machine", "depends-on": ["ip"]},
        ]
    }
    groups = [
        {"name": f"web{n}", "resources": [{**one, "name": f"{one['name']}{n}"} for one in group["resources"]]}
        for n in (1, 2)
    ]
    for n, one in enumerate(groups, start=1):
        one["resources"][1]["depends-on"] = [f"ip{n}"]  # type: ignore[index]
    return Schedule(seed=5, rig={"nodes": 5, "groups": groups, **rig}, faults=faults)


def fault(kind: FaultKind, target: str, *, at_s: float = 9, duration_us: int = 2 * SECOND) -> Planned:
    return Planned(at_us=int(at_s * SECOND), kind=kind, target=target, duration_us=duration_us)


def actions(of: Schedule) -> list[Mapping[str, Any]]:
    document = yaml.safe_load(experiment_of(of, title="x"))
    return [step["provider"] for step in document["method"] if step["type"] == "action"]


def cut(of: Schedule) -> set[tuple[str, str]]:
    return {(call["target"], peer) for call in actions(of) for peer in call["from"]}


def run(of: Schedule, directory: Path) -> tuple[int, dict[str, str]]:
    file = directory / "x.yaml"
    file.write_text(experiment_of(of, title="a schedule"))
    code = run_command(["run", "--arena", "sim", "--seed", "5", "--out", str(directory / "out"), str(file)])
    journal = json.loads((directory / "out" / "journal.json").read_text())
    return code, {step["activity"]["name"]: step["status"] for step in journal["run"]}


def test_a_partial_cut_is_laid_between_two_and_confirmed(tmp_path: Path) -> None:
    of = schedule(fault(FaultKind.PARTIAL, "node2"))

    ((one, other),) = cut(of)
    assert one == "node2"
    assert other != "node2"
    code, outcomes = run(of, tmp_path)
    assert (code, outcomes["1: network.partial node2"]) == (0, "succeeded")


def test_a_bridge_cuts_each_of_one_half_off_from_each_of_the_other(tmp_path: Path) -> None:
    of = schedule(fault(FaultKind.BRIDGE, "node3"))

    pairs = cut(of)
    assert len(pairs) == 4
    assert len({one for one, _ in pairs}) == len({other for _, other in pairs}) == 2
    assert not {"node3"} & {name for pair in pairs for name in pair}
    assert run(of, tmp_path)[0] == 0


def test_in_a_ring_of_five_everybody_is_cut_off_from_two(tmp_path: Path) -> None:
    of = schedule(fault(FaultKind.RING, "node1"))

    assert cut(of) == {
        ("node1", "node3"), ("node1", "node4"), ("node2", "node4"), ("node2", "node5"), ("node3", "node5"),
    }  # fmt: skip
    assert run(of, tmp_path)[0] == 0


def test_a_node_is_cut_off_from_the_witness_at_the_node(tmp_path: Path) -> None:
    drawn = [
        schedule(fault(FaultKind.PARTIAL, "node1", duration_us=2 * SECOND + n), nodes=2, witness=True)
        for n in range(20)
    ]
    of = next(one for one in drawn if cut(one) == {("node1", "witness")})

    assert without_counterpart(of) == []
    assert run(of, tmp_path)[0] == 0


@pytest.mark.parametrize("number", range(12))
def test_a_command_is_asked_and_in_the_end_everything_is_wanted_again(number: int, tmp_path: Path) -> None:
    of = schedule(fault(FaultKind.COMMAND, "node2/web1", duration_us=SECOND + number))

    asked, *put_back = actions(of)
    assert asked["type"] == "cluster"
    assert re.fullmatch(r"(group|resource|node)\.[a-z]+", asked["action"])
    assert [call["action"] for call in put_back] == ["node.resume"] * 5 + ["group.online"] * 2
    code, outcomes = run(of, tmp_path)
    assert code == 0
    assert outcomes["in the end: web1 is wanted"] == "succeeded"


@pytest.mark.parametrize("said", [{"restart-action": "none"}, {"restart-action": "restart", "restart-threshold": 0}])
def test_what_its_policy_leaves_failed_is_brought_online_in_the_end(said: dict[str, Any], tmp_path: Path) -> None:
    of = schedule(fault(FaultKind.VM_CRASH, "vm1"))
    of.rig["groups"][0]["resources"][1].update(said)

    code, outcomes = run(of, tmp_path)

    assert [name for name in outcomes if name.startswith("in the end")] == ["in the end: web1 is wanted"]
    assert code == 0


@pytest.mark.parametrize("said", [{"failover-threshold": 0}, {"possible-owners": ["node1"]}])
def test_what_may_not_be_moved_is_brought_online_in_the_end(said: dict[str, Any]) -> None:
    of = schedule(fault(FaultKind.VM_CRASH, "vm1"))
    of.rig["groups"][0].update(said)

    assert [call["group"] for call in actions(of) if call["type"] == "cluster"] == ["web1"]


def test_the_commands_that_are_drawn_are_of_every_kind() -> None:
    drawn = {
        actions(schedule(fault(FaultKind.COMMAND, "node2/web1", duration_us=SECOND + number)))[0]["action"]
        for number in range(80)
    }

    assert drawn == {
        "group.move", "group.offline", "group.online", "node.pause", "node.resume", "resource.fail",
        "resource.offline", "resource.online",
    }  # fmt: skip


def test_one_voter_is_wiped_and_none_beside_a_long_absence() -> None:
    twice = schedule(fault(FaultKind.VOTER_WIPE, "node1"), fault(FaultKind.VOTER_WIPE, "node2", at_s=10))
    away = schedule(fault(FaultKind.NODE_AWAY, "node1"), fault(FaultKind.VOTER_WIPE, "node2", at_s=10))

    assert without_counterpart(twice) == without_counterpart(away) == ["voter.wipe"]
    assert portable(twice).faults == twice.faults[:1]
    assert portable(away).faults == away.faults[:1]


def test_no_pause_is_promised_under_fencing_self() -> None:
    paused = fault(FaultKind.PAUSE, "node1")

    assert without_counterpart(schedule(paused)) == []
    assert without_counterpart(schedule(paused, settings={"fencing": "self"})) == ["node.pause"]


def test_a_vm_stopped_by_hand_is_wanted_again_in_the_end(tmp_path: Path) -> None:
    code, outcomes = run(schedule(fault(FaultKind.VM_STOP_BY_HAND, "vm1")), tmp_path)

    assert code == 0
    assert set(outcomes.values()) == {"succeeded"}


def test_a_step_whose_node_dies_before_anything_was_done_is_skipped(tmp_path: Path) -> None:
    of = schedule(
        fault(FaultKind.VOTER_HANG, "node1"),
        fault(FaultKind.FREEZE, "node1", at_s=9.02, duration_us=SECOND // 2),
    )

    code, outcomes = run(replace(of, rig={**of.rig, "nodes": 3}), tmp_path)

    assert code == 0
    assert outcomes["1: voter.hang node1"] == "skipped"
