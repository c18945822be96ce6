"""The shipped experiments in the simulator: the files that run on containers, unchanged, with the same verdicts."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from chaos.arena.interrupt import Interrupt
from chaos.arena.simulation.arena import SimulatedEnvironment
from chaos.cli.main import run_command
from chaos.experiment.loader import load_experiment
from chaos.history.records import ContainerRole, EngineEventSeen, FaultMoment, FaultRecord, GuestJournal
from chaos.history.verdict import ExitCode, Ruling
from chaos.run.batch import run_files
from chaos.run.options import RunOptions
from chaos.run.runner import RunResult, run_experiment
from chaos.run.terminal import Terminal
from harness.live.runtime import AsyncioRuntime
from harness.model.session import Session
from harness.ports import Hypervisor
from harness.simulation.plants_of_rules import DependentsFirst, MinorityKeepsItsLease
from harness.simulation.world.composition import Composition

EXPERIMENTS = Path(__file__).parents[2] / "chaos" / "experiments"
POWER_CUT = EXPERIMENTS / "node-power-cut.yaml"
RUN = "import sys; from chaos.cli.main import main; sys.exit(main())"


class Ran:
    """A run of one shipped experiment that is over."""

    def __init__(
        self, file: Path, directory: Path, *, composition: Composition | None = None, signalled: bool = False
    ) -> None:
        async def main() -> RunResult:
            runtime = AsyncioRuntime(on_failure=lambda name, error: pytest.fail(f"{name}: {error!r}"))
            interrupt = Interrupt(runtime)
            stage = SimulatedEnvironment(runtime, seed=0, interrupt=interrupt, composition=composition)
            self.history = stage.arena.history
            if signalled:
                interrupt.request(signal.SIGINT)
            run = run_experiment(
                load_experiment(file),
                arena=stage.arena,
                interrupt=stage.interrupt,
                terminal=Terminal(Console(file=io.StringIO())),
                out=directory,
            )
            return await stage.play(run)

        self.result = asyncio.run(main())

    def ruling(self, checker: str) -> Ruling:
        return next(verdict.ruling for verdict in self.result.verdicts if verdict.checker == checker)


class FencesNothing(Composition):
    """Says that a session is fenced, and has done nothing."""

    async def fence(self, hypervisor: Hypervisor, session: Session, not_after_us: int) -> None:
        del hypervisor, session, not_after_us


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_experiment_passes_in_the_simulator(file: Path, tmp_path: Path) -> None:
    ran = Ran(file, tmp_path)

    assert (ran.result.code, ran.result.findings) == (ExitCode.PASSED, ())
    faults = ran.history.of(FaultRecord)
    assert any(record.moment is FaultMoment.CONFIRMED for record in faults)


def test_one_seed_gives_one_journal_to_the_byte_under_any_hash_seed(tmp_path: Path) -> None:
    journals = []
    for hash_seed in ("1", "2"):
        out = tmp_path / hash_seed
        command = [sys.executable, "-c", RUN, "run", "--arena", "sim", "--seed", "7", "--out", str(out), str(POWER_CUT)]
        ended = subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        journals.append((out / "journal.json").read_bytes())

    assert journals[0] == journals[1]
    assert json.loads(journals[0])["blackstart"]["began_ns"] == 0


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    for seed in (1, 2):
        options = RunOptions(arena="sim", seed=seed, out=tmp_path / str(seed))
        assert run_files([POWER_CUT], options=options, console=Console(file=io.StringIO())) == 0

    first, second = ((tmp_path / seed / "journal.json").read_bytes() for seed in ("1", "2"))
    assert first != second


def test_a_cluster_that_does_not_fence_is_caught_by_the_engines_events(tmp_path: Path) -> None:
    ran = Ran(EXPERIMENTS / "node-hang-and-thaw.yaml", tmp_path, composition=FencesNothing())

    assert ran.result.code is ExitCode.BROKEN
    assert ran.ruling("at-most-one-instance, engine events") is Ruling.BROKEN


@pytest.mark.parametrize(
    ("file", "parts", "seen"),
    [
        (POWER_CUT, DependentsFirst, "is ordered to start on"),
        (EXPERIMENTS / "minority-isolated.yaml", MinorityKeepsItsLease, "believes at"),
    ],
)
def test_what_only_the_watchers_of_the_world_see_breaks_the_verdict(
    file: Path, parts: type[Composition], seen: str, tmp_path: Path
) -> None:
    ran = Ran(file, tmp_path, composition=parts())

    assert ran.result.code is ExitCode.BROKEN
    assert ran.ruling("invariants of the simulator") is Ruling.BROKEN
    assert any(seen in finding.reason for finding in ran.result.findings)


def test_the_witnesses_tell_one_story(tmp_path: Path) -> None:
    ran = Ran(POWER_CUT, tmp_path)

    starts = [
        event for event in ran.history.of(EngineEventSeen) if event.action == "start" and event.role is ContainerRole.VM
    ]
    boots = {run.boot for journal in ran.history.of(GuestJournal) for run in journal.runs}
    assert len(boots) == len(starts)


def test_a_run_that_is_asked_to_stop_ends_with_the_signal(tmp_path: Path) -> None:
    ran = Ran(POWER_CUT, tmp_path, signalled=True)

    assert ran.result.code == 128 + signal.SIGINT
    assert not any(record.moment is FaultMoment.INJECTED for record in ran.history.of(FaultRecord))


@pytest.mark.parametrize("option", [{"keep_rig": True}, {"on_rig": "chaos"}])
def test_a_simulated_rig_can_neither_be_kept_nor_found(option: dict[str, object], tmp_path: Path) -> None:
    options = RunOptions(arena="sim", out=tmp_path / "out", **option)  # type: ignore[arg-type]

    assert run_files([POWER_CUT], options=options) == 2
    assert not (tmp_path / "out").exists()


LARGE = """\
title: a dozen nodes lose one
rig: {nodes: 12, groups: 24}
steady-state-hypothesis:
  title: everything runs
  probes:
    - type: probe
      name: all groups are online
      provider: {type: cluster, probe: groups-online}
      tolerance: true
      until: {timeout: 30s}
method:
  - type: action
    name: cut the power of web1's owner
    provider: {type: fault, fault: node.power-off, target: {owner-of: web1}}
  - type: probe
    name: its VMs run on the survivors within five seconds
    provider: {type: cluster, probe: recovery-time}
    tolerance: {type: range, range: [0, 5]}
    until: {timeout: 20s}
"""


def test_a_rig_that_is_too_large_for_containers_runs_in_the_simulator(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A few of its nodes watch each group, and whoever asks any of them sees the whole cluster."""
    file = tmp_path / "large.yaml"
    file.write_text(LARGE)

    ran = Ran(file, tmp_path)

    assert ran.result.code is ExitCode.PASSED
    for command in (["run"], ["validate"], ["up", "--topology"]):
        assert run_command([*command, str(file)]) == 2
        assert "12 nodes, expected at most 9 on containers; the simulator takes up to 64" in capfd.readouterr().err
    assert run_command(["validate", "--arena", "sim", str(file)]) == 0


def test_a_run_whose_reader_goes_away_comes_to_its_end(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, "run", str(POWER_CUT), "--arena", "sim", "--seed", "1"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stderr is not None

    first = run.stdout.readline()
    run.stdout.close()

    assert first.strip()
    assert (run.wait(timeout=60), run.stderr.read()) == (0, "")
    assert json.loads((tmp_path / "out" / "journal.json").read_text())["status"] == "completed"
    run.stderr.close()
