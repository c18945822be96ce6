"""The runner in a scripted world: what it does in which order, and what it says of a world that lies to it."""

import json
import signal
from pathlib import Path

import pytest
from scripted_arena import MS, SECOND, Script, ScriptedArena, failure, gap, interrupt_at
from scripted_run import DOCUMENT, Ran

from chaos import checkers
from chaos.arena.port import Effect
from chaos.checkers import Checker
from chaos.history.records import History, StepEnded
from chaos.history.verdict import ExitCode, FindingKind, Verdict
from chaos.run import runner
from chaos.run.batch import load_all, run_files
from chaos.run.options import RunOptions
from harness.errors import NotOnline, UsageError


def test_a_cluster_that_recovers_passes_and_nothing_is_left(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(), tmp_path)

    assert ran.code is ExitCode.PASSED, ran.reasons
    assert ran.steps("method") == [
        "crash: succeeded",
        "crash recovered: succeeded",
        "cut the power: succeeded",
        "recovered: succeeded",
    ]
    assert ran.steps("rollbacks") == ["power on: succeeded"]
    assert ran.arena.calls == ["up", "CrashVm web-vm", "PowerOff node1", "PowerOn node1", "settle", "down"]
    assert ran.arena.open_in_ledger() == []


def test_the_journal_has_the_chaos_toolkit_keys_the_recovery_and_the_verdict(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(), tmp_path)

    journal = ran.journal()
    assert {"experiment", "start", "end", "duration", "status", "deviated", "steady_states", "run", "rollbacks"} <= set(
        journal
    )
    assert journal["status"] == "completed"
    assert journal["steady_states"]["before"]["steady_state_met"] is True
    assert [row["vm"] for row in journal["blackstart"]["recovery"]] == ["web-vm", "web-vm"]
    assert journal["blackstart"]["recovery"][1]["started_s"] == pytest.approx(2.02, abs=0.01)
    assert journal["blackstart"]["exit_code"] == 0
    lines = [json.loads(line) for line in (ran.out / "journal.jsonl").read_text().splitlines()]
    assert lines[0]["record"] == "run-began"
    assert lines[-1]["record"] == "run-ended"
    assert {"EngineEventSeen", "LogLine", "ClientAnswer", "FaultRecord", "StepEnded", "verdict"} <= {
        line["record"] for line in lines
    }


def test_the_screen_has_the_recovery_table(tmp_path: Path) -> None:
    shown = Ran(ScriptedArena(), tmp_path).screen.getvalue()

    assert "Recovery, seconds after the fault" in shown
    assert any("web-vm" in line and "node.power-off node1" in line and "2.020" in line for line in shown.splitlines())


def test_a_steady_state_that_does_not_hold_injects_nothing(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(never_online=True)), tmp_path)

    assert ran.code is ExitCode.NO_STEADY_STATE
    assert ran.arena.calls == ["up", "settle", "collect", "down"]
    assert ran.steps("rollbacks") == []


def test_a_vm_that_never_comes_back_is_a_broken_expectation(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(never_recovers=True)), tmp_path)

    assert ran.code is ExitCode.BROKEN
    assert "crash recovered: expected 0 to 1 within 5 s" in ran.reasons
    assert "web-vm was not started again after vm.crash" in ran.reasons
    assert ran.steps("method")[-1] == "crash recovered: failed", "the method ends with the first broken expectation"


def test_a_vm_that_runs_twice_breaks_the_run_whatever_the_file_says(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(starts_before_fence=True)), tmp_path)

    assert ran.code is ExitCode.BROKEN
    assert "web-vm ran twice" in ran.reasons


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        (Script(crash_is_a_kill=True), "died after kill through the engine"),
        (Script(crash_does_nothing=True), "no die event"),
    ],
)
def test_an_unconfirmed_fault_never_passes_and_ends_the_method(tmp_path: Path, script: Script, seen: str) -> None:
    ran = Ran(ScriptedArena(script), tmp_path)

    assert ran.code is ExitCode.INCONCLUSIVE
    assert seen in ran.reasons
    assert ran.steps("method") == ["crash: failed"]


def test_a_power_cut_that_did_not_happen_is_not_confirmed_and_its_hold_is_undone(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(power_off_does_nothing=True)), tmp_path)

    assert ran.code is ExitCode.INCONCLUSIVE
    assert "node node1 runs" in ran.reasons
    assert ran.arena.holds == set()


def test_a_fault_that_raises_is_the_harness_and_is_undone(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(power_off_raises=failure("the engine hangs"))), tmp_path)

    assert ran.code is ExitCode.HARNESS
    assert "method: the engine hangs" in ran.reasons
    # The register was never written, so the rollback finds nothing; the ledger does.
    assert ran.steps("rollbacks") == ["power on: skipped"]
    assert ran.arena.calls[2:4] == ["PowerOff node1", "PowerOn node1"]
    assert ran.arena.holds == set()
    assert ran.faults()[-1] == "node.power-off healed"


def test_a_defect_in_a_fault_skips_no_clean_up(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(power_off_raises=ZeroDivisionError("a defect"))), tmp_path)

    assert ran.code is ExitCode.HARNESS
    assert "ZeroDivisionError" in ran.reasons
    assert ran.arena.calls[-2:] == ["collect", "down"]
    assert ran.arena.holds == set()
    assert "ZeroDivisionError: a defect" in (ran.out / "journal.jsonl").read_text()


def test_a_fault_is_on_the_disk_with_its_cure_before_anything_is_done(tmp_path: Path) -> None:
    found: list[tuple[str, str]] = []

    class Looking(ScriptedArena):
        async def apply(self, effect: Effect) -> int:
            entries = self.open_in_ledger()
            found.extend((entry.fault, entry.undo) for entry in entries[:1])
            return await super().apply(effect)

    ran = Ran(Looking(), tmp_path)

    assert ran.code is ExitCode.PASSED
    # When the rollback powers the node on, the power cut is still open and the cure itself is the newest entry.
    assert found == [("vm.crash", ""), ("node.power-off", "node.power-on"), ("node.power-on", "")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_power_is_off_undoes_it_and_names_itself(tmp_path: Path, number: int, code: int) -> None:
    ran = Ran(ScriptedArena(Script(at=interrupt_at(1500 * MS, number))), tmp_path)

    assert ran.code.value == code
    assert ran.steps("method")[-1] == "cut the power: succeeded", "the next probe was not reached"
    assert "PowerOn node1" in ran.arena.calls
    assert ran.arena.holds == set()
    assert ran.arena.calls[-1] == "down"


def test_a_signal_in_the_middle_of_an_injection_lets_it_finish_so_that_it_can_be_undone(tmp_path: Path) -> None:
    # The crash is injected in the first hundred milliseconds.
    ran = Ran(ScriptedArena(Script(at=interrupt_at(30 * MS, signal.SIGTERM))), tmp_path)

    assert ran.code is ExitCode.TERMINATED
    assert ran.steps("method") == ["crash: succeeded"]
    assert ran.faults() == ["vm.crash injected", "vm.crash confirmed", "vm.crash healed"]


def test_a_second_signal_does_not_cut_the_clean_up_short(tmp_path: Path) -> None:
    at = {
        1500 * MS + after: lambda arena: arena.interrupt.request(signal.SIGINT) for after in range(0, SECOND, 50 * MS)
    }
    ran = Ran(ScriptedArena(Script(at=at)), tmp_path)

    assert ran.code is ExitCode.INTERRUPTED
    assert ran.arena.interrupt.repeats > 3
    assert ran.arena.holds == set()
    assert ran.arena.calls[-1] == "down"


def test_a_signal_before_the_rig_is_up_takes_down_what_there_is(tmp_path: Path) -> None:
    arena = ScriptedArena()
    arena.interrupt.request(signal.SIGINT)

    ran = Ran(arena, tmp_path)

    assert ran.code is ExitCode.INTERRUPTED
    assert ran.arena.calls == ["collect", "down"] or ran.arena.calls == ["down"]


def test_a_rig_that_does_not_come_up_is_the_harness_and_is_taken_down(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(up_raises=failure("waited 120 s for every node to be Up"))), tmp_path)

    assert ran.code is ExitCode.HARNESS
    assert ran.arena.calls == ["up", "collect", "down"]


def test_groups_that_never_get_online_are_no_steady_state(tmp_path: Path) -> None:
    """A readiness check on a port where the guest does not listen is a mistake of the file, not of the harness."""
    error = NotOnline(waited_for="every group Online", saw="web-vm is OnlinePending (not ready)", limit_s=120)
    ran = Ran(ScriptedArena(Script(up_raises=error)), tmp_path)

    assert ran.code is ExitCode.NO_STEADY_STATE
    assert "web-vm is OnlinePending (not ready)" in ran.reasons
    assert "blackstart down" not in ran.reasons, "the run takes its rig down itself"
    assert ran.arena.calls == ["up", "collect", "down"]


def test_a_rig_that_the_arena_refuses_is_wrong_usage(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(up_raises=UsageError("there is a rig 'test' already"))), tmp_path)

    assert ran.code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Script(lost_events=True), "its start was no event"),
        (Script(at={500 * MS: gap}), "events of the engine may be lost"),
        (Script(journals_unreadable=True), "could not be read"),
    ],
)
def test_without_evidence_there_is_no_pass(tmp_path: Path, script: Script, reason: str) -> None:
    ran = Ran(ScriptedArena(script), tmp_path)

    assert ran.code is ExitCode.INCONCLUSIVE
    assert reason in ran.reasons


def test_a_checker_that_crashes_makes_the_run_inconclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(history: History) -> Verdict:
        raise KeyError(len(history))

    broken = Checker(name="a broken checker", check=crash, safety=True)
    monkeypatch.setattr(runner, "CHECKERS", (*checkers.CHECKERS, broken))

    ran = Ran(ScriptedArena(), tmp_path)

    assert ran.code is ExitCode.INCONCLUSIVE
    assert "a broken checker: the checker crashed: KeyError" in ran.reasons


def test_a_time_bound_that_fails_while_this_vm_stands_still_is_inconclusive(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(never_recovers=True, stalls_after_fault=True)), tmp_path)

    late = [finding for finding in ran.result.findings if "crash recovered" in finding.reason]
    assert [finding.kind for finding in late] == [FindingKind.INCONCLUSIVE]
    assert "stood still for 3.0 s" in late[0].reason


def test_something_left_behind_is_worse_than_a_broken_expectation(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(never_recovers=True, leaves=("network test_rig",))), tmp_path)

    assert ran.code is ExitCode.CLEANUP
    assert "left behind: network test_rig" in ran.reasons
    assert {finding.kind for finding in ran.result.findings} >= {FindingKind.CLEANUP, FindingKind.BROKEN}


def test_a_clean_up_that_fails_is_named_and_the_fault_stays_open(tmp_path: Path) -> None:
    script = Script(down_raises=failure("the engine is gone"), power_on_raises=failure("the engine is gone"))
    ran = Ran(ScriptedArena(script), tmp_path)

    assert ran.code is ExitCode.CLEANUP
    assert [entry.fault for entry in ran.arena.open_in_ledger()] == ["node.power-off"]


def test_no_fault_is_injected_without_its_ledger_entry(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(ledger_raises=failure("the reaper is gone"))), tmp_path)

    assert ran.code is ExitCode.HARNESS
    assert ran.arena.calls == ["up", "settle", "collect", "down"], "neither a crash nor a power cut"
    assert "the reaper is gone" in ran.reasons


def test_a_run_whose_reaper_took_over_proves_nothing(tmp_path: Path) -> None:
    ran = Ran(ScriptedArena(Script(guard_lost="the reaper took the rig over")), tmp_path)

    assert ran.code is ExitCode.HARNESS
    assert "the reaper took the rig over" in ran.reasons


def test_a_kept_rig_stands_and_has_no_fault_in_it(tmp_path: Path) -> None:
    document = DOCUMENT[: DOCUMENT.index("rollbacks:")]
    ran = Ran(ScriptedArena(), tmp_path, document, keep_rig=True)

    assert ran.code is ExitCode.PASSED, ran.reasons
    assert ran.arena.calls[-1] == "keep"
    assert ran.arena.holds == set(), "the power that the method cut was given back from the ledger"


def test_a_probe_of_during_that_fails_once_breaks_the_run(tmp_path: Path) -> None:
    during = """
during:
  - type: probe
    name: web stays online
    interval: 50ms
    provider: {type: cluster, probe: groups-online, groups: [web]}
    tolerance: true
"""
    ran = Ran(ScriptedArena(), tmp_path, DOCUMENT + during)

    assert ran.code is ExitCode.BROKEN
    # Once for the crash and once for the power cut: the first one does not hide the second.
    assert ran.steps("during") == ["web stays online: failed"] * 2
    crash, cut = [step for step in ran.arena.history.of(StepEnded) if step.phase == "during"]
    assert 0 < crash.at_ns - crash.began_ns < 10**9 < cut.at_ns - cut.began_ns
    assert "expected true, answer False (web is Failed on node1, from 22:13:" in ran.reasons
    assert ran.steps("method")[-1] == "recovered: succeeded", "the method goes on"


def test_evidence_is_collected_only_when_somebody_will_read_it(tmp_path: Path) -> None:
    assert "collect" not in Ran(ScriptedArena(), tmp_path / "good").arena.calls
    assert "collect" in Ran(ScriptedArena(Script(never_recovers=True)), tmp_path / "bad").arena.calls


def test_a_file_that_is_refused_refuses_them_all_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(DOCUMENT)
    bad.write_text(DOCUMENT.replace("vm.crash", "vm.crush"))

    code = run_files([good, bad, tmp_path / "none.yaml"], options=RunOptions(out=tmp_path / "out"))

    told = capsys.readouterr().err
    assert code == 2
    assert f"{bad}:16: there is no fault 'vm.crush', expected vm.crash" in told
    assert "none.yaml: cannot be read" in told
    assert not (tmp_path / "out").exists()


def test_one_place_for_the_journals_of_several_runs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for file in files:
        file.write_text(DOCUMENT)

    code = run_files(files, options=RunOptions(out=tmp_path / "out", journal=tmp_path / "journal.json"))

    assert code == 2
    assert "a journal is of one run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_arena_that_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_files([tmp_path / "any.yaml"], options=RunOptions(arena="cloud"))

    assert code == 2
    assert "expected docker or sim" in capsys.readouterr().err


def test_no_file_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no file was named"):
        load_all([])
