"""Searches in rigs of people's own: what their policies allow is no finding, and no rig is too small to be searched."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from chaos.cli.main import run_command
from chaos.search.rig_generator import draw_rig
from chaos.search.schedule_file import read_schedule, topology_of
from chaos.search.search import Search
from harness.cluster_service.service import ClusterService, ServiceConfiguration
from harness.model.changes import DeclareDown
from harness.model.topology import Failback, Priority, RestartAction
from harness.simulation.faults.schedule import plan
from harness.simulation.world.composition import Composition
from harness.simulation.world.fault_kinds import FaultKind


def group(*, vm: Mapping[str, Any] | None = None, **said: Any) -> dict[str, Any]:
    return {
        "name": "web",
        "resources": [
            {"name": "ip", "type": "ip-address"},
            {"name": "vm", "type": "virtual-machine", "depends-on": ["ip"], **(vm or {})},
        ],
        **said,
    }


OTHER = {
    "name": "mail",
    "resources": [
        {"name": "ip2", "type": "ip-address"},
        {"name": "vm2", "type": "virtual-machine", "depends-on": ["ip2"]},
    ],
}
IP, IP2 = {"name": "ip", "type": "ip-address"}, {"name": "ip2", "type": "ip-address"}
VM = {"name": "vm", "type": "virtual-machine", "depends-on": ["ip"]}
RIGS: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "as it is made by default": ({"nodes": 3, "groups": 3}, 28),
    "two nodes and a witness": ({"nodes": 2, "witness": True, "groups": 3}, 28),
    "a node without a vote": ({"nodes": 4, "voters": 3, "groups": 3}, 32),
    "one node": ({"nodes": 1, "groups": [group(), OTHER]}, 0),
    "two nodes": ({"nodes": 2, "groups": [group(), OTHER]}, 0),
    "one vote of three": ({"nodes": 3, "voters": 1, "groups": [group(), OTHER]}, 0),
    "no restarts": ({"nodes": 3, "groups": [group(vm={"restart-action": "none"}), OTHER]}, 10),
    "no failovers": ({"nodes": 3, "groups": [group(vm={"restart-action": "restart"}), OTHER]}, 12),
    "one possible owner": ({"nodes": 3, "groups": [group(**{"possible-owners": ["node1"]}), OTHER]}, 10),
    "started when asked for": ({"nodes": 3, "groups": [group(priority="no-auto-start"), OTHER]}, 0),
    "a group of an address alone": ({"nodes": 3, "groups": [{"name": "web", "resources": [IP]}, OTHER]}, 0),
    "two VMs on one address": (
        {"nodes": 3, "groups": [{"name": "web", "resources": [IP, VM, {**VM, "name": "vmb"}]}]}, 61
    ),
    "a VM that needs a VM": (
        {"nodes": 3, "groups": [{"name": "web", "resources": [IP, VM, {**VM, "name": "vmb", "depends-on": ["vm"]}]}]},
        21,
    ),
    "either address": (
        {"nodes": 3, "groups": [{"name": "web", "resources": [IP, IP2, {**VM, "depends-on": "[ip] or [ip2]"}]}]}, 18
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGS)
def test_what_the_policies_of_a_rig_allow_is_no_finding(name: str) -> None:
    rig, first = RIGS[name]

    found = Search(first_seed=first, rig=rig).search(lambda hunt: hunt.runs < 6)

    assert found.failure is None or found.failure.broken == ()
    assert found.runs == 6


@pytest.mark.parametrize("name", RIGS)
def test_a_schedule_can_be_drawn_for_every_rig(name: str) -> None:
    topology = topology_of(RIGS[name][0])

    drawn = [plan(random.Random(seed), topology) for seed in range(300)]

    assert {fault.kind for faults in drawn for fault in faults} > {FaultKind.VM_CRASH, FaultKind.VOTER_KILL}


def test_rigs_are_drawn_with_every_policy_that_a_group_may_have_and_half_of_them_with_none() -> None:
    drawn = [topology_of(draw_rig(random.Random(seed))) for seed in range(200)]
    groups = [group for topology in drawn for group in topology.groups]
    vms = [one for group in groups for one in group.resources if one.type == "virtual-machine"]

    assert all(
        [
            any(group.possible_owners for group in groups),
            {group.failover_threshold for group in groups} > {0, 1, 2, 100},
            {group.failback for group in groups} == set(Failback),
            {group.priority for group in groups} == set(Priority),
            {one.policy.restart_action for one in vms} == set(RestartAction),
            any(one.policy.restart_delay_us for one in vms),
            any(one.policy.retry_period_us == 10_000_000 for one in vms),
            any(len(names) > 1 for one in vms for names in one.depends_on),
            any("-vm" in name for one in vms for names in one.depends_on for name in names),
            any(not node.voter for topology in drawn for node in topology.nodes),
        ]
    )
    usual = [rig for rig in drawn if all(group.failover_threshold == 100 for group in rig.groups)]
    assert len(usual) > len(drawn) // 3


def test_a_rig_without_a_vm_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rig.yaml"
    file.write_text("nodes: 3\ngroups: []\n")

    assert run_command(["search", "--topology", str(file), "--runs", "1"]) == 2
    assert "a rig without a VM" in capsys.readouterr().err


class _Breaks(Composition):
    def service(self, *, configuration: ServiceConfiguration, jitter: Callable[[], float]) -> ClusterService:
        if configuration.session.node == "node2":
            raise RuntimeError("the disk of the developer")
        return super().service(configuration=configuration, jitter=jitter)


def test_a_defect_is_found_with_the_seed_that_shows_it() -> None:
    found = Search(first_seed=7, parts=_Breaks).search(lambda hunt: hunt.runs < 3)

    assert found.failure is not None
    assert found.failure.defect
    assert found.failure.schedule.seed == 7
    told = found.failure.broken[0]
    assert told.startswith("a defect, RuntimeError in test_own_rigs.py line ")
    assert "node2: task service start failed" in told


def test_a_defect_is_searched_made_small_and_replayed_like_any_violation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_arguments: Any) -> Any:
        raise AssertionError("two managers feed each other")

    monkeypatch.setattr(DeclareDown, "apply", broken)

    assert run_command(["search", "--seed", "0", "--runs", "20", "--jobs", "1", "--out", str(tmp_path)]) == 1
    [saved] = [file for file in tmp_path.iterdir() if "experiment" not in file.name]
    smallest = tmp_path / "smallest.yaml"
    assert run_command(["shrink", str(saved), "--output", str(smallest)]) == 0
    capsys.readouterr()
    assert run_command(["replay", str(smallest)]) == 1

    told = capsys.readouterr()
    assert "broken: a defect, AssertionError in test_own_rigs.py line " in told.out
    assert "node-down" in told.out
    assert "Traceback" in told.err
    assert len(read_schedule(smallest.read_text(), name="smallest").faults) == 1
