"""What is told of an experiment, and of a fault, for each arena."""

from pathlib import Path

import pytest

from chaos.arena import PowerOff
from chaos.arenas import arena_views, barred_from
from chaos.barred import barred_faults
from chaos.cli.main import run_command
from chaos.experiment import load_experiment
from chaos.faults import FAULTS

EXPERIMENTS = Path(__file__).parents[2] / "chaos" / "experiments"


def test_every_fault_of_experiments_works_in_both_arenas() -> None:
    assert {name: barred_from(name) for name in FAULTS if barred_from(name)} == {}


def test_a_fault_that_an_arena_lacks_is_refused_with_its_line() -> None:
    experiment = load_experiment(EXPERIMENTS / "node-power-cut.yaml")

    refused = barred_faults(experiment, lambda effect: "no power to cut" if effect is PowerOff else "")

    lines = Path(experiment.file).read_text(encoding="utf-8").splitlines()
    assert len(refused) == 1
    file, line, told = refused[0].split(":", 2)
    assert (file, told) == (experiment.file, " node.power-off: no power to cut")
    assert "cut the power" in lines[int(line) - 1] or "node.power-off" in "".join(lines[int(line) - 1 : int(line) + 6])


def test_the_simulator_says_whose_answers_it_makes_up() -> None:
    own, guest = (load_experiment(EXPERIMENTS / f"{name}.yaml") for name in ("database-failover", "machine-crash"))

    assert [view.differs for view in arena_views(own)] == [
        (),
        ("no image is run: what answers in db-vm (blackstart/example-database) is simulated",),
    ]
    assert [(view.arena, view.barred, view.differs) for view in arena_views(guest)] == [
        ("docker", (), ()),
        ("sim", (), ()),
    ]


def test_validation_for_the_simulator_asks_no_engine_and_says_what_differs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")

    assert run_command(["validate", "--arena", "sim", str(EXPERIMENTS / "database-failover.yaml")]) == 0
    assert "--arena sim: no image is run" in capsys.readouterr().out
