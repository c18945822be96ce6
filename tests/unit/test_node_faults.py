"""The faults on nodes, networks and the engine in a scripted world: what each does, what its receipt says of a world
that lies, and that each is undone from the ledger.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from scripted_arena import SECOND, Script, ScriptedArena

from chaos.arena.docker.network_effects import rules_of_cut
from chaos.arena.port import Direction, IsolateNode, JoinNetwork, ResumeEngine, ThawNode
from chaos.experiment.records import FaultCall
from chaos.experiment.targets import ByName
from chaos.faults import FAULTS
from chaos.history.records import FaultMoment
from chaos.history.recovery import read_recoveries
from chaos.reaper.ledger import Ledger
from chaos.run.injection import Injected, Injector, NotInjected
from harness.document.topology import default_topology


class Trial:
    """A world that is up, and an injector with its ledger."""

    def __init__(self, script: Script | None = None) -> None:
        self.arena = ScriptedArena(script)
        self.ledger = Ledger(rig="test", keep=self.arena.keep_ledger_line)
        self.injector = Injector(self.arena, self.ledger)
        self.arena.drive(self.arena.up(default_topology(), say=lambda _: None))

    def inject(self, fault: str, *, node: str = "node1", arguments: Mapping[str, Any] | None = None) -> Injected:
        call = FaultCall(fault=fault, target=ByName(name=node), arguments=arguments or {})
        injected: Injected = self.arena.drive(self.injector.inject(call, {}))
        return injected

    def refused(self, fault: str, **more: Any) -> str:
        with pytest.raises(NotInjected) as refusal:
            self.inject(fault, **more)
        self.arena.errors.clear()
        return str(refusal.value)

    def wait(self, seconds: float) -> None:
        self.arena.drive(self.arena.runtime.sleep(int(seconds * SECOND)))

    def open(self) -> list[str]:
        return [entry.fault for entry in self.injector.open_faults()]


CURES = {
    "node.hang": ("node.thaw", ThawNode),
    "node.isolate": ("node.join-network", JoinNetwork),
    "engine.stall": ("engine.resume", ResumeEngine),
}


@pytest.mark.parametrize("fault", CURES)
def test_a_fault_is_confirmed_open_until_it_is_cured_and_cured_once(fault: str) -> None:
    trial = Trial()
    cure, _ = CURES[fault]

    injected = trial.inject(fault)

    assert injected.receipt.outcome is FaultMoment.CONFIRMED, injected.receipt.seen
    assert trial.open() == [fault]
    assert "already" in trial.refused(fault)
    healed = trial.inject(cure)
    assert healed.receipt.outcome is FaultMoment.CONFIRMED, healed.receipt.seen
    assert trial.open() == []
    assert "not" in trial.refused(cure) or "nothing" in trial.refused(cure)


@pytest.mark.parametrize("fault", CURES)
def test_what_a_run_leaves_open_is_undone_from_the_ledger(fault: str) -> None:
    trial = Trial()
    trial.inject(fault)

    problems = trial.arena.drive(trial.injector.undo_all())

    assert problems == []
    assert trial.open() == []
    assert trial.arena.calls[-1] == f"{CURES[fault][1].__name__} node1"


def test_defect_in_one_cure_skips_no_other() -> None:
    trial = Trial(Script(power_on_raises=ZeroDivisionError("a defect")))
    trial.inject("node.isolate", node="node2")
    trial.inject("node.power-off")

    (problem,) = trial.arena.drive(trial.injector.undo_all())

    assert "node.power-off on node1 could not be undone by node.power-on: ZeroDivisionError" in problem
    assert trial.open() == ["node.power-off"]


@pytest.mark.parametrize(
    ("fault", "script", "seen"),
    [
        ("node.hang", Script(hang_spares_vms=True), "after 10 s web1-vm, web4-vm on node1 did not freeze"),
        ("node.reset", Script(reset_is_a_kill=True), "node node1 was killed through the engine before it reset itself"),
        ("node.reset", Script(reset_stays_off=True), "after 10 s node node1 stays off"),
        ("node.isolate", Script(isolate_does_nothing=True), "after 10 s no rule drops packets in node1"),
        ("engine.stall", Script(stall_does_nothing=True), "after 10 s the engine of node1 is not stalled"),
    ],
)
def test_a_fault_that_did_not_happen_is_a_mismatch(fault: str, script: Script, seen: str) -> None:
    receipt = Trial(script).inject(fault).receipt

    assert (receipt.outcome, receipt.seen) == (FaultMoment.MISMATCH, seen)


@pytest.mark.parametrize(
    ("fault", "script", "seen"),
    [
        ("node.isolate", Script(join_does_nothing=True), "still to be cut off in its next life"),
        ("engine.stall", Script(resume_does_nothing=True), "the engine of node1 is still stalled"),
    ],
)
def test_a_cure_that_did_not_work_leaves_the_fault_open(
    fault: str, script: Script, seen: str
) -> None:
    trial = Trial(script)
    trial.inject(fault)

    (problem,) = trial.arena.drive(trial.injector.undo_all())

    assert seen in problem
    assert trial.open() == [fault]


def test_a_stall_that_nobody_can_see_from_inside_is_inconclusive() -> None:
    receipt = Trial(Script(nobody_to_ask=True)).inject("engine.stall").receipt

    assert receipt.outcome is FaultMoment.INCONCLUSIVE
    assert receipt.seen == "after 10 s nobody in node1 could ask the engine"


def test_a_node_that_was_fenced_while_it_was_frozen_has_nothing_left_to_thaw() -> None:
    trial = Trial()
    trial.inject("node.hang")
    trial.wait(5)

    thawed = trial.inject("node.thaw")

    assert thawed.receipt.outcome is FaultMoment.CONFIRMED
    assert "killed while it was frozen (by a fence, or a power cut): nothing was left to thaw" in thawed.receipt.seen
    assert trial.open() == []


def test_a_node_that_was_never_frozen_cannot_be_thawed() -> None:
    assert "nothing of node node1 is frozen" in Trial().refused("node.thaw")


def test_a_reset_is_a_death_without_a_kill_and_a_new_life() -> None:
    trial = Trial()

    receipt = trial.inject("node.reset").receipt

    assert receipt.outcome is FaultMoment.CONFIRMED
    assert "no kill before it, and has a new life 0.5 s later" in receipt.seen
    assert trial.open() == []


def test_a_cut_outlives_the_fence_of_its_node() -> None:
    trial = Trial()
    receipt = trial.inject("node.isolate").receipt
    trial.wait(5)

    still = trial.arena.drive(trial.arena.network("node1"))
    trial.inject("node.join-network")

    assert receipt.seen.startswith("node node1 has dropped 3 packets after ")
    assert receipt.seen.endswith("does not answer node2")
    assert still.cut
    assert trial.arena.cuts == {}


def test_a_partial_cut_says_from_whom_and_which_way_and_costs_no_vm() -> None:
    trial = Trial()

    trial.inject("node.isolate", arguments={"from": ("node2", "node3"), "direction": "in"})

    expected = IsolateNode(node="node1", peers=("node2", "node3"), direction=Direction.IN)
    assert trial.arena.cuts["node1"] == expected
    assert read_recoveries(trial.arena.history) == []
    assert "cannot be cut off from itself" in trial.refused("node.isolate", node="node2", arguments={"from": ["node2"]})


def test_held_calls_are_forwarded_unless_the_file_drops_them() -> None:
    resumed: list[ResumeEngine] = []

    class Listening(ScriptedArena):
        async def apply(self, effect: Any) -> int:
            if isinstance(effect, ResumeEngine):
                resumed.append(effect)
            return await super().apply(effect)

    trial = Trial()
    trial.arena.__class__ = Listening
    for arguments in ({}, {"then": "forward"}, {"then": "drop"}):
        trial.inject("engine.stall")
        trial.inject("engine.resume", arguments=arguments)

    assert [effect.drop for effect in resumed] == [False, False, True]


@pytest.mark.parametrize("fault", ["node.hang", "node.reset", "node.isolate", "engine.stall"])
def test_a_node_that_is_off_is_refused(fault: str) -> None:
    trial = Trial()
    trial.inject("node.power-off")

    assert "node node1 is off" in trial.refused(fault)


def test_a_frozen_node_is_refused_what_it_could_not_do() -> None:
    trial = Trial()
    trial.inject("node.hang")

    assert "frozen" in trial.refused("node.reset")
    assert "frozen" in trial.refused("node.isolate")
    assert "frozen" in trial.refused("engine.stall")


def test_every_cure_heals_what_names_it() -> None:
    undone = {fault.name: FAULTS[fault.undo].heals for fault in FAULTS.values() if fault.undo}

    assert undone
    assert all(name in heals for name, heals in undone.items())


def test_the_rules_of_a_cut_spare_loopback_and_the_node_api() -> None:
    rules = rules_of_cut(peers=(), direction=Direction.BOTH).splitlines()

    for chain, near, port in (("IN", "-i lo", "--dport 7637"), ("OUT", "-o lo", "--sport 7637")):
        mine = [rule for rule in rules if rule.startswith(f"-A BLACKSTART-CUT-{chain} ")]
        assert [rule.split(" ", 2)[2] for rule in mine] == [f"{near} -j RETURN", f"-p tcp {port} -j RETURN", "-j DROP"]
    assert rules[0] == "*filter"
    assert rules[-1] == "COMMIT"


@pytest.mark.parametrize(
    ("direction", "drops"),
    [
        (Direction.IN, ["IN -s 10.87.0.12"]),
        (Direction.OUT, ["OUT -d 10.87.0.12"]),
        (Direction.BOTH, ["IN -s 10.87.0.12", "OUT -d 10.87.0.12"]),
    ],
)
def test_the_rules_of_a_partial_cut_drop_what_it_says(direction: Direction, drops: list[str]) -> None:
    rules = rules_of_cut(peers=["10.87.0.12"], direction=direction).splitlines()

    found = [rule for rule in rules if rule.endswith("DROP")]
    assert found == [f"-A BLACKSTART-CUT-{drop} -j DROP" for drop in drops]
