"""The faults on VMs, on a node's programs and on voters in a scripted world: what each does, what its receipt says
of a world that does not obey, how each is healed, and when.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from scripted_arena import MS, SECOND, ScriptedArena

from chaos.arena.process_effects import HangVm, NodeProgram, ProgramSeen, StartVm
from chaos.experiment.records import FaultCall
from chaos.experiment.targets import ByName
from chaos.faults import FAULTS
from chaos.faults.kinds import TargetKind
from chaos.history.records import FaultMoment, FaultRecord
from chaos.history.recovery import read_recoveries
from chaos.reaper.ledger import Ledger
from chaos.run.injection import Injected, Injector, NotInjected
from harness.document.topology import default_topology

VM = "web1-vm"
CURES = {
    "vm.stop": "vm.start",
    "vm.hang": "vm.thaw",
    "service.hang": "service.thaw",
    "rhs.hang": "rhs.thaw",
    "vmms.hang": "vmms.thaw",
    "voter.hang": "voter.thaw",
    "voter.disk-full": "voter.free-disk",
}
WITHOUT_CURE = ("vm.kill", "service.kill", "rhs.kill", "vmms.kill", "voter.kill", "voter.wipe")


class Trial:
    """A world that is up, and an injector with its ledger."""

    def __init__(self) -> None:
        self.arena = ScriptedArena()
        self.ledger = Ledger(rig="test", keep=self.arena.keep_ledger_line)
        self.injector = Injector(self.arena, self.ledger)
        self.arena.drive(self.arena.up(default_topology(), say=lambda _: None))

    def inject(
        self, fault: str, *, duration_us: int = 0, arguments: Mapping[str, Any] | None = None
    ) -> Injected:
        on_node = FAULTS[fault].target is TargetKind.NODE
        call = FaultCall(
            fault=fault,
            target=ByName(name="node1" if on_node else VM),
            duration_us=duration_us,
            arguments=arguments or {},
        )
        injected: Injected = self.arena.drive(self.injector.inject(call, {}))
        return injected

    def refused(self, fault: str) -> str:
        with pytest.raises(NotInjected) as refusal:
            self.inject(fault)
        self.arena.errors.clear()
        return str(refusal.value)

    def wait(self, seconds: float) -> None:
        self.arena.drive(self.arena.runtime.sleep(int(seconds * SECOND)))

    def undo_all(self) -> list[str]:
        problems: list[str] = self.arena.drive(self.injector.undo_all())
        return problems

    def open(self) -> list[str]:
        return [entry.fault for entry in self.injector.open_faults()]

    def moments(self, fault: str) -> list[FaultMoment]:
        return [record.moment for record in self.arena.history.of(FaultRecord) if record.fault == fault]

    def program(self, program: NodeProgram) -> ProgramSeen:
        return self.arena.processes.node("node1").programs[program]


@pytest.mark.parametrize(("fault", "cure"), CURES.items())
def test_a_fault_with_a_cure_is_confirmed_and_open_until_its_cure_is_confirmed(
    fault: str, cure: str
) -> None:
    trial = Trial()

    injected = trial.inject(fault)
    opened = trial.open()
    healed = trial.inject(cure)

    assert injected.receipt.outcome is FaultMoment.CONFIRMED, injected.receipt.seen
    assert opened == [fault]
    assert healed.receipt.outcome is FaultMoment.CONFIRMED, healed.receipt.seen
    assert trial.open() == []


@pytest.mark.parametrize("fault", WITHOUT_CURE)
def test_a_fault_without_a_cure_is_confirmed_and_not_open(fault: str) -> None:
    trial = Trial()

    injected = trial.inject(fault)

    assert injected.receipt.outcome is FaultMoment.CONFIRMED, injected.receipt.seen
    assert trial.open() == []


@pytest.mark.parametrize("fault", [*CURES, *WITHOUT_CURE])
def test_a_fault_that_had_no_effect_is_never_confirmed(fault: str) -> None:
    trial = Trial()
    trial.arena.processes.obey = False

    injected = trial.inject(fault)

    assert injected.receipt.outcome in (FaultMoment.MISMATCH, FaultMoment.INCONCLUSIVE), injected.receipt.seen
    assert injected.receipt.seen


@pytest.mark.parametrize("fault", CURES)
def test_what_a_run_leaves_open_is_undone_and_what_cannot_be_stays_open(fault: str) -> None:
    trial = Trial()
    trial.inject(fault)
    trial.arena.processes.obey = False

    (problem,) = trial.undo_all()
    still = trial.open()
    trial.arena.processes.obey = True

    assert f"could not be undone by {CURES[fault]}" in problem
    assert still == [fault]
    assert trial.undo_all() == []
    assert trial.open() == []


@pytest.mark.parametrize("fault", CURES)
def test_a_fault_with_a_duration_is_healed_when_it_is_over_and_not_before(fault: str) -> None:
    trial = Trial()

    trial.inject(fault, duration_us=5 * SECOND)
    (entry,) = trial.arena.open_in_ledger()
    trial.wait(4)
    before = trial.open()
    trial.wait(2)

    assert before == [fault]
    assert trial.open() == []
    assert trial.moments(fault)[-1] is FaultMoment.HEALED
    assert entry.deadline_ns <= trial.arena.unix_ns(), "due by now"


def test_a_fault_that_is_healed_by_hand_is_not_healed_again_when_its_duration_is_over() -> None:
    trial = Trial()
    trial.inject("voter.hang", duration_us=5 * SECOND)
    trial.inject("voter.thaw")

    trial.wait(10)

    assert trial.moments("voter.hang").count(FaultMoment.HEALED) == 1
    assert trial.arena.calls.count("SignalProgram node1") == 2


def test_a_fault_that_cannot_be_healed_in_time_is_told_and_undone_at_the_end() -> None:
    trial = Trial()
    trial.inject("voter.hang", duration_us=SECOND)
    trial.arena.processes.obey = False
    trial.wait(20)
    told = [record.seen for record in trial.arena.history.of(FaultRecord) if record.moment is FaultMoment.FAILED]
    trial.arena.processes.obey = True

    problems = trial.undo_all()

    assert told == [
        "not healed when its duration was over: after 10 s the voter of node1 is stopped "
        f"(process {trial.program(NodeProgram.VOTER).pid})"
    ]
    assert problems == []
    assert trial.open() == []


def test_the_end_of_the_run_waits_for_no_duration() -> None:
    trial = Trial()
    trial.inject("rhs.hang", duration_us=600 * SECOND)
    began_us = trial.arena.clock.now_us

    assert trial.undo_all() == []

    assert trial.open() == []
    assert trial.arena.clock.now_us - began_us < 5 * SECOND


def test_a_vm_hangs_by_a_signal_when_it_is_asked_for() -> None:
    trial = Trial()

    injected = trial.inject("vm.hang", arguments={"how": "sigstop"})

    assert injected.receipt.seen == "web1-vm is stopped by a signal, every process"
    assert trial.arena.processes.paused == set()
    assert trial.inject("vm.thaw").receipt.outcome is FaultMoment.CONFIRMED


def test_a_vm_that_ends_while_it_hangs_is_thawed_enough() -> None:
    trial = Trial()
    trial.inject("vm.hang")
    trial.arena.processes.end_vm(VM)

    assert trial.undo_all() == []
    assert trial.open() == []


def test_a_vm_stopped_by_hand_is_started_by_hand_on_its_owner() -> None:
    trial = Trial()
    trial.inject("vm.stop")

    plan = trial.arena.drive(FAULTS["vm.start"].plan(trial.arena, VM))

    assert isinstance(plan.effect, StartVm)
    assert plan.effect.node == "node1"
    assert plan.affected == ()


@pytest.mark.parametrize("fault", ["vm.kill", "vm.stop", "vm.hang"])
def test_a_vm_that_does_not_run_cannot_be_struck(fault: str) -> None:
    trial = Trial()
    trial.arena.processes.end_vm(VM)

    assert "VM web1-vm has 1 containers, none running; exactly one must run" in trial.refused(fault)
    assert trial.arena.calls == ["up"]


def full(arena: ScriptedArena) -> None:
    arena.drive(arena.runtime.sleep(MS))
    arena.processes.limited = False


def hang(program: NodeProgram) -> Callable[[ScriptedArena], None]:
    def happen(arena: ScriptedArena) -> None:
        seen = arena.processes.node("node1").programs[program]
        arena.processes.node("node1").programs[program] = ProgramSeen(pid=seen.pid, started=seen.started, state="T")

    return happen


@pytest.mark.parametrize(
    ("fault", "before", "why"),
    [
        ("voter.disk-full", full, "has no size of its own, so filling it would fill the engine's"),
        ("voter.hang", hang(NodeProgram.VOTER), "the voter of node1 is stopped already"),
        ("voter.wipe", hang(NodeProgram.VOTER), "voter.thaw first"),
        ("service.thaw", lambda _: None, "the cluster service of node1 does not hang"),
        ("voter.free-disk", lambda _: None, "the voter's disk of node1 is not full"),
        ("vm.thaw", lambda _: None, "VM web1-vm does not hang: it runs"),
        ("vm.start", lambda _: None, "VM web1-vm runs on node1 already"),
        ("vmms.hang", lambda arena: arena.processes.deaf.add(NodeProgram.VMMS), "does not answer as it is"),
        ("rhs.kill", lambda arena: arena.nodes.update(node1=False), "node node1 is off"),
        ("rhs.kill", lambda arena: arena.frozen.add("node1"), "node node1 is frozen"),
        ("rhs.kill", lambda arena: arena.processes.node("node1").programs.clear(), "no resource host runs on node1"),
    ],
)
def test_a_fault_that_would_do_nothing_is_refused_before_anything_is_done(
    fault: str, before: Callable[[ScriptedArena], None], why: str
) -> None:
    trial = Trial()
    before(trial.arena)

    assert why in trial.refused(fault)
    assert trial.arena.calls == ["up"]
    assert trial.open() == []


def test_a_service_that_hangs_too_long_for_a_look_is_confirmed_by_the_reset_of_its_node() -> None:
    trial = Trial()
    arena = trial.arena
    arena.clock.after(250 * MS, lambda: arena._power_off("node1"))

    injected = trial.inject("service.hang")

    assert injected.receipt.outcome is FaultMoment.CONFIRMED
    assert "node1 was reset" in injected.receipt.seen


def test_a_service_that_hangs_shortly_hits_no_vm_and_one_that_hangs_long_hits_all_of_its_node() -> None:
    trial = Trial()
    trial.inject("service.hang")
    short = read_recoveries(trial.arena.history)

    trial.arena._power_off("node1")

    assert short == []
    assert {row.vm for row in read_recoveries(trial.arena.history)} == {"web1-vm", "web4-vm"}


def test_the_freezing_of_a_vm_is_a_choice_of_the_fault() -> None:
    trial = Trial()
    plan = trial.arena.drive(FAULTS["vm.hang"].plan(trial.arena, VM))

    assert isinstance(plan.effect, HangVm)
    assert plan.effect.how == "pause"


def test_hung_program_of_a_frozen_node_is_not_healed() -> None:
    """Its process stays stopped, and nothing can reach it: that is no proof that there is nothing to heal."""
    trial = Trial()
    trial.inject("voter.hang")
    trial.arena.frozen.add("node1")

    (problem,) = trial.arena.drive(trial.injector.undo_all())
    open_while_frozen = trial.open()
    trial.arena.frozen.clear()

    assert "cannot be reached: the node is frozen" in problem
    assert open_while_frozen == ["voter.hang"]
    assert trial.arena.drive(trial.injector.undo_all()) == []
    assert trial.open() == []


def test_full_disk_of_a_node_without_power_is_not_healed() -> None:
    trial = Trial()
    trial.inject("voter.disk-full")
    trial.arena.nodes["node1"] = False

    (problem,) = trial.arena.drive(trial.injector.undo_all())

    assert "cannot be reached: the node is off" in problem
    assert trial.open() == ["voter.disk-full"]
