"""Runs in a scripted world with the language's further words: faults on several, steps in the background, probes held
during a step, rollbacks that fail, what must be restored, violations that are wanted.
"""

import signal
from collections.abc import Callable
from pathlib import Path

from scripted_arena import MS, SECOND, Script, ScriptedArena, failure, interrupt_at
from scripted_run import Ran

from chaos.history.records import FaultMoment, FaultRecord, StepEnded
from chaos.history.verdict import ExitCode

HEAD = """
title: A test
rig:
  nodes: 5
  groups:
    - {name: web, resources: [{name: web-vm, type: virtual-machine}]}
    - {name: data, resources: [{name: data-vm, type: virtual-machine}]}
steady-state-hypothesis:
  title: all is well
  probes:
    - {type: probe, name: five up, provider: {type: cluster, probe: nodes-up}, tolerance: 5}
"""


def action(name: str, fault: str, target: str, more: str = "") -> str:
    return f"  - {{type: action, name: '{name}', provider: {{type: fault, fault: {fault}, target: {target}}}{more}}}\n"


def run(directory: Path, method: str, *, rollbacks: str = "", script: Script | None = None, top: str = "") -> Ran:
    document = HEAD + top + "method:\n" + method + (f"rollbacks:\n{rollbacks}" if rollbacks else "")
    return Ran(ScriptedArena(script), directory, document)


def confirmed(ran: Ran) -> list[tuple[str, str]]:
    records = ran.arena.history.of(FaultRecord)
    return [(record.fault, record.target) for record in records if record.moment is FaultMoment.CONFIRMED]


def test_a_fault_on_several_is_one_step_with_a_receipt_each_at_one_time(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        action("cut", "node.isolate", "minority", ", register: cut") + action("join", "node.join-network", "'${cut}'"),
    )

    assert ran.code is ExitCode.PASSED, ran.reasons
    assert ran.steps("method") == ["cut: succeeded", "join: succeeded"]
    cut = [target for fault, target in confirmed(ran) if fault == "node.isolate"]
    assert len(set(cut)) == 2
    assert sorted(target for fault, target in confirmed(ran) if fault == "node.join-network") == sorted(cut)
    injected = [record for record in ran.arena.history.of(FaultRecord) if record.moment is FaultMoment.INJECTED]
    assert injected[0].at_ns == injected[1].at_ns
    assert injected[0].batch == injected[1].batch == 1
    assert injected[2].batch == 3
    (step, _) = [step for step in ran.arena.history.of(StepEnded) if step.phase == "method"]
    assert sorted(step.output) == sorted(cut)


def test_a_fault_that_fails_on_one_of_several_is_undone_on_all(tmp_path: Path) -> None:
    ran = run(tmp_path, action("cut", "node.power-off", "minority"), script=Script(power_off_raises=failure("no")))

    assert ran.code is ExitCode.HARNESS
    assert sum(call.startswith("PowerOn") for call in ran.arena.calls) == 2
    assert ran.arena.holds == set()


def test_a_fault_that_one_of_several_refuses_is_injected_nowhere_and_a_cure_where_it_can(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        action("off", "node.power-off", "node1") + action("reset", "node.reset", "'node[12]'"),
        rollbacks=action("on", "node.power-on", "'node*'"),
    )

    assert ran.code is ExitCode.INCONCLUSIVE
    assert "not injected: node.reset on node[12]: node node1 is off: it cannot reset itself" in ran.reasons
    assert not any(call.startswith("ResetNode") for call in ran.arena.calls)
    assert ran.steps("rollbacks") == ["on: succeeded"]
    assert ("node.power-on", "node1") in confirmed(ran)


def test_the_seed_decides_and_is_in_the_journal(tmp_path: Path) -> None:
    def struck(seed: int, directory: Path) -> list[str]:
        document = HEAD + "method:\n" + action("crash", "node.reset", "{count: 1}")
        ran = Ran(ScriptedArena(), directory, document, seed=seed)
        assert ran.journal()["blackstart"]["seed"] == seed
        return [target for _, target in confirmed(ran)]

    assert struck(3, tmp_path / "a") == struck(3, tmp_path / "b")
    assert len({tuple(struck(seed, tmp_path / str(seed))) for seed in range(6)}) > 1


def test_the_next_step_does_not_wait_for_one_in_the_background_but_the_end_does(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        action("later", "vm.crash", "web-vm", ", background: true, pauses: {before: 2s}")
        + action("now", "vm.crash", "data-vm"),
    )

    assert ran.code is ExitCode.PASSED, ran.reasons
    assert ran.steps("method") == ["now: succeeded", "later: succeeded"]


def test_a_step_in_the_background_that_fails_breaks_the_run(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        action("bad", "node.thaw", "node1", ", background: true, pauses: {before: 100ms}")
        + action("slow", "vm.crash", "web-vm", ", pauses: {after: 1s}")
        + action("never", "vm.crash", "data-vm"),
    )

    assert ran.code is ExitCode.INCONCLUSIVE
    assert "nothing of node node1 is frozen" in ran.reasons
    assert ran.steps("method") == ["slow: succeeded", "bad: failed"]


def test_a_fault_that_is_only_to_strike_if_possible_is_skipped_where_it_is_not(tmp_path: Path) -> None:
    steps = action("thaw", "node.thaw", "node1", ", if-possible: true") + action("crash", "vm.crash", "web-vm")
    ran = run(tmp_path, steps)

    assert ran.code is ExitCode.PASSED, ran.reasons
    assert ran.steps("method") == ["thaw: skipped", "crash: succeeded"]


def test_a_signal_ends_a_step_that_waits_in_the_background_and_what_it_did_is_undone(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        action("hang", "engine.stall", "node1", ", background: true, pauses: {after: 300s}")
        + action("crash", "vm.crash", "web-vm", ", pauses: {after: 300s}"),
        script=Script(at=interrupt_at(2 * SECOND, signal.SIGTERM)),
    )

    assert ran.code is ExitCode.TERMINATED
    assert ran.arena.stalled == set()
    assert ran.faults()[-1] == "engine.stall healed"


def test_probes_of_a_step_are_asked_as_long_as_it_lasts(tmp_path: Path) -> None:
    def held(name: str) -> str:
        asks = "interval: 20ms, provider: {type: cluster, probe: groups-online}, tolerance: true"
        return f", pauses: {{after: 1s}}, during: [{{type: probe, name: {name}, {asks}}}]"

    ran = run(
        tmp_path,
        action("stall", "engine.stall", "node1", held("quiet"))
        + action("crash", "vm.crash", "web-vm", held("loud"))
        + action("resume", "engine.resume", "node1"),
    )

    assert ran.code is ExitCode.BROKEN
    assert ran.steps("during") == ["quiet: succeeded", "loud: failed"]
    assert ran.steps("method")[-1] == "resume: succeeded"
    quiet, loud = [step for step in ran.arena.history.of(StepEnded) if step.phase == "during"]
    assert "held each time" in quiet.reason
    assert quiet.at_ns < loud.began_ns
    assert "loud: expected true, answer False (web is Failed on node1, from " in ran.reasons


def test_violations_of_one_probe_are_told_up_to_a_limit(tmp_path: Path) -> None:
    flaps = {1000 * MS + number * 200 * MS: _flap(number % 2 == 0) for number in range(60)}
    during = """
during:
  - type: probe
    name: five stay up
    interval: 20ms
    provider: {type: cluster, probe: nodes-up}
    tolerance: 5
"""
    ran = run(
        tmp_path,
        action("wait", "vm.crash", "web-vm", ", pauses: {before: 15s}"),
        script=Script(at=flaps),
        top=during,
    )

    assert ran.code is ExitCode.BROKEN
    assert ran.steps("during") == ["five stay up: failed"] * 20
    assert "five stay up: violated 10 times more" in ran.reasons


def _flap(off: bool) -> Callable[[ScriptedArena], None]:
    return lambda arena: arena.nodes.update(node5=not off)


def test_every_rollback_is_tried_in_order_and_one_that_fails_is_5(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        action("stall", "engine.stall", "node2") + action("off", "node.power-off", "node1", ", register: gone"),
        rollbacks=action("resume", "engine.resume", "node2")
        + action("on", "node.power-on", "'${gone}'")
        + action("thaw", "node.thaw", "node3"),
        script=Script(resume_does_nothing=True),
    )

    assert ran.code is ExitCode.CLEANUP
    assert ran.steps("rollbacks") == ["resume: failed", "on: succeeded", "thaw: skipped"]
    assert "rollback failed: resume: the fault engine.resume is not confirmed (mismatch)" in ran.reasons


def test_a_rollback_that_raises_is_reported_and_the_next_one_runs(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        action("off", "node.power-off", "node1") + action("stall", "engine.stall", "node2"),
        rollbacks=action("on", "node.power-on", "node1") + action("resume", "engine.resume", "node2"),
        script=Script(power_on_raises=failure("the engine is busy")),
    )

    assert ran.code is ExitCode.CLEANUP
    assert ran.steps("rollbacks") == ["on: failed", "resume: succeeded"]
    assert "rollback failed: on: the engine is busy" in ran.reasons


def test_the_steady_state_is_asked_again_once_the_rollbacks_have_run(tmp_path: Path) -> None:
    ran = run(
        tmp_path, action("off", "node.power-off", "node1"), rollbacks=action("on", "node.power-on", "node1")
    )

    # Before the rollback the method has left a node off, which is what the file says must not be.
    assert ran.steps("after") == ["five up: failed"]
    assert ran.steps("restored") == ["five up: succeeded"]
    steady = ran.journal()["steady_states"]
    assert [steady[moment]["steady_state_met"] for moment in ("before", "after", "restored")] == [True, False, True]


def test_a_steady_state_that_rollbacks_do_not_bring_back_breaks_the_run(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        action("crash", "vm.crash", "web-vm"),
        rollbacks=action("crash again", "vm.crash", "web-vm", ", pauses: {before: 3s}"),
        script=Script(at={2 * SECOND: _flap(True)}),
    )

    assert ran.code is ExitCode.BROKEN
    assert "five up: expected 5 within 60 s, last answer 4" in ran.reasons


def test_nothing_is_asked_again_when_nothing_was_to_be_undone(tmp_path: Path) -> None:
    ran = run(tmp_path, action("crash", "vm.crash", "web-vm"))

    assert ran.steps("restored") == []
    assert ran.journal()["steady_states"]["restored"] is None


def test_an_expected_violation_passes_and_one_that_does_not_come_fails(tmp_path: Path) -> None:
    method, expects = action("off", "node.power-off", "{owner-of: web}"), "expects-violation: true\n"
    back = action("on", "node.power-on", "'node*'")
    head = HEAD.replace("nodes-up}, tolerance: 5", "nodes-up}, tolerance: [4, 5]")

    def outcome(script: Script, name: str) -> Ran:
        document = f"{head}{expects}method:\n{method}rollbacks:\n{back}"
        return Ran(ScriptedArena(script), tmp_path / name, document)

    violated, safe = outcome(Script(starts_before_fence=True), "violated"), outcome(Script(), "safe")

    assert violated.code is ExitCode.PASSED, violated.reasons
    assert safe.code is ExitCode.BROKEN
    assert "a violation of a safety invariant was expected, and no checker found one" in safe.reasons


def test_choices_of_the_reader_are_shown_and_in_the_journal(tmp_path: Path) -> None:
    ran = run(tmp_path, action("stall", "engine.stall", "node1") + action("resume", "engine.resume", "node1"))

    assert ran.code is ExitCode.PASSED, ran.reasons
    assert "chosen: engine-proxy: true, because line" in ran.screen.getvalue()
    (choice,) = ran.journal()["blackstart"]["choices"]
    assert choice.endswith("stalls an engine")
