"""A rig that does not fit into this host's memory is refused before anything starts."""

from pathlib import Path

import pytest

from chaos.arena.simulation import memory_check
from chaos.arena.simulation.memory_check import free_memory, memory_shortfall
from chaos.cli.main import run_command
from harness.model.topology import GroupSpec, NodeSpec, ResourceSpec, Topology
from harness.simulation.world.memory_footprint import bytes_needed

MIB = 1 << 20
REPOSITORY = Path(__file__).parents[2]


def rig(*, nodes: int, vms: int) -> Topology:
    return Topology(
        rig="sim",
        subnet="10.87.0.0/24",
        nodes=tuple(NodeSpec(name=f"node{i}", address=f"10.87.0.{10 + i}", voter=True) for i in range(nodes)),
        groups=tuple(
            GroupSpec(name=f"web{i}", resources=(ResourceSpec(name=f"vm{i}", type="virtual-machine"),))
            for i in range(vms)
        ),
    )


def test_what_does_not_fit_is_told_with_what_it_takes_and_what_there_is() -> None:
    assert memory_shortfall(rig(nodes=3, vms=2), free_bytes=50 * MIB) == ""

    told = memory_shortfall(rig(nodes=9, vms=4000), free_bytes=100 * MIB)

    assert told.startswith("9 nodes and 4000 resources take about 277 MiB in the simulator, and 100 MiB are free")
    assert "expected fewer resources or nodes" in told


def test_worlds_at_a_time_take_as_many_times_the_memory() -> None:
    one = bytes_needed(rig(nodes=3, vms=100))

    assert memory_shortfall(rig(nodes=3, vms=100), worlds=2, free_bytes=2 * one) == ""
    assert ", 3 at a time take about" in memory_shortfall(rig(nodes=3, vms=100), worlds=3, free_bytes=2 * one)


def test_this_vm_tells_how_much_is_free() -> None:
    free = free_memory()

    assert free is None or free > MIB


EXPERIMENT = next((REPOSITORY / "chaos" / "experiments").glob("*.yaml"))
SCHEDULE = next((REPOSITORY / "tests" / "simulation" / "found").glob("*.yaml"))


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (["run", "--arena", "sim"], EXPERIMENT),
        (["validate", "--arena", "sim"], EXPERIMENT),
        (["search", "--runs", "1", "--jobs", "1", "--topology"], EXPERIMENT),
        (["shrink"], SCHEDULE),
        (["replay"], SCHEDULE),
    ],
)
def test_commands_refuse_what_does_not_fit(
    command: list[str],
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(memory_check, "free_memory", lambda: MIB)
    monkeypatch.chdir(tmp_path)

    assert run_command([*command, str(file)]) == 2
    assert "in the simulator, and 1 MiB are free" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
