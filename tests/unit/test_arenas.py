"""What is told of an experiment, and of a fault, for each arena."""

import subprocess
import sys
from pathlib import Path

import pytest

from chaos.arena.port import PowerOff
from chaos.cli.main import run_command
from chaos.compatibility.arenas import arena_views, barred_from
from chaos.compatibility.experiment_in_arena import incompatible_faults
from chaos.experiment.loader import load_experiment
from chaos.faults import FAULTS
from chaos.faults.schedule_only import only_in_schedules
from harness.simulation.world.fault_kinds import FaultKind

EXPERIMENTS = Path(__file__).parents[2] / "chaos" / "experiments"
ONE_FAULT = """\
title: one fault
rig: {nodes: 3}
method:
  - {type: action, name: it, provider: {type: fault, fault: FAULT, target: node1}}
"""


def test_every_fault_of_experiments_works_in_both_arenas() -> None:
    assert {name: barred_from(name) for name in FAULTS if barred_from(name)} == {}


def test_a_fault_that_an_arena_lacks_is_refused_with_its_line() -> None:
    experiment = load_experiment(EXPERIMENTS / "node-power-cut.yaml")

    refused = incompatible_faults(experiment, lambda effect: "no power to cut" if effect is PowerOff else "")

    lines = Path(experiment.file).read_text(encoding="utf-8").splitlines()
    assert len(refused) == 1
    file, line, told = refused[0].split(":", 2)
    assert (file, told) == (experiment.file, " node.power-off: no power to cut")
    assert "cut the power" in lines[int(line) - 1] or "node.power-off" in "".join(lines[int(line) - 1 : int(line) + 6])


def test_the_simulator_says_whose_answers_it_makes_up() -> None:
    own, guest = (load_experiment(EXPERIMENTS / f"{name}.yaml") for name in ("database-failover", "vm-crash"))

    assert [view.differs for view in arena_views(own)] == [
        (),
        ("no image is run: what answers in db-vm (blackstart/example-database) is simulated",),
    ]
    assert [(view.arena, view.incompatibilities, view.differs) for view in arena_views(guest)] == [
        ("docker", (), ()),
        ("sim", (), ()),
    ]


def test_validation_for_the_simulator_asks_no_engine_and_says_what_differs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")

    assert run_command(["validate", "--arena", "sim", str(EXPERIMENTS / "database-failover.yaml")]) == 0
    assert "--arena sim: no image is run" in capsys.readouterr().out


def test_a_fault_that_experiments_have_under_another_name_is_not_of_schedules_only() -> None:
    counterparts = {FaultKind.FREEZE, FaultKind.PAUSE, FaultKind.BRIDGE, FaultKind.VM_STOP_BY_HAND, FaultKind.COMMAND}
    lone = {FaultKind.LOSSY, FaultKind.VOTER_TORN_TAIL, FaultKind.LOST_ANSWER, FaultKind.LATE_ACCEPT}

    only = set(only_in_schedules())

    assert only >= lone
    assert only.isdisjoint(counterparts | FAULTS.keys())


@pytest.mark.parametrize("command", [["validate"], ["validate", "--arena", "sim"], ["run", "--arena", "sim"]])
def test_an_experiment_with_a_fault_that_only_schedules_have_is_refused_as_such(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lossy.yaml"
    file.write_text(ONE_FAULT.replace("FAULT", "network.lossy"))

    assert run_command([*command, str(file)]) == 2

    assert f"{file}:4: network.lossy exists in schedules of the simulator only, expected" in capsys.readouterr().err


def test_a_fault_that_nothing_has_is_answered_with_the_nearest_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "typo.yaml"
    file.write_text(ONE_FAULT.replace("FAULT", "node.powr-off"))

    assert run_command(["validate", str(file)]) == 2

    told = capsys.readouterr().err
    assert f"{file}:4: there is no fault 'node.powr-off', expected node.power-off (did you mean that?)" in told


def test_an_experiment_without_a_mistake_is_read_without_the_simulator() -> None:
    program = (
        "import sys; from pathlib import Path; from chaos.experiment.loader import load_experiment; "
        "load_experiment(Path(sys.argv[1])); print('harness.simulation.world.world' in sys.modules)"
    )
    file = EXPERIMENTS / "vm-crash.yaml"

    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.strip() == "False"
