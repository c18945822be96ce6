"""What `shrink` makes of a failing schedule: what goes, what must stay, and that it fails in the same way."""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from chaos.search.schedule_file import Schedule, read_schedule, topology_of, write_schedule
from chaos.search.search import Parts, Search, broken_by, play, schedule_of
from chaos.search.shrinker import Shrinking
from harness.errors import UsageError
from harness.simulation.plants import OwnerIsANode
from harness.simulation.plants_of_belief import (
    AKillIsAWish,
    AnswersForAnother,
    BallotsAreUsedTwice,
    DoubtEndsWithARead,
    ProvidersEndFirst,
)
from harness.simulation.world.administrator import drawn_command
from harness.simulation.world.composition import Composition
from harness.simulation.world.fault_kinds import FaultKind, Planned

ADDRESS: Mapping[str, Any] = {"type": "ip-address"}
VM: Mapping[str, Any] = {"type": "virtual-machine"}


class TwoRulesAreWeak(AKillIsAWish):
    """A kill is taken for a wish, and a read ends doubt."""

    service = DoubtEndsWithARead.service


def silent(_text: str) -> None:
    """Nobody listens."""


def fault(at_s: float, kind: FaultKind, target: str, lasts_s: float = 0.2) -> Planned:
    return Planned(at_us=round(at_s * 1e6), kind=kind, target=target, duration_us=round(lasts_s * 1e6))


def killed(vm: str) -> Planned:
    """What `AKillIsAWish` breaks at, whatever the rig."""
    return fault(12, FaultKind.VM_KILL, vm)


def endless(vm: str) -> Planned:
    """What no cluster comes to rest after, if the second restart is due in an hour."""
    return fault(41, FaultKind.VM_CRASH_LOOP, vm, 2)


def late_accept(node: str) -> Planned:
    """What `DoubtEndsWithARead` breaks at, if a group is on that node."""
    return fault(20, FaultKind.LATE_ACCEPT, node, 3.5)


def taken_offline(group: str, rig: Mapping[str, Any]) -> Planned:
    """What `ProvidersEndFirst` breaks at, if a VM of that group depends on an address."""
    commands = (fault(13, FaultKind.COMMAND, f"node1/{group}", after / 1000) for after in range(200, 1000))
    return next(
        command
        for command in commands
        if drawn_command(command.choice, topology_of(rig), "node1", group)[0] == "group.offline"
    )


def group(name: str, resources: Mapping[str, Mapping[str, Any]], **said: Any) -> dict[str, Any]:
    return {"name": name, **said, "resources": [{"name": of, **resource} for of, resource in resources.items()]}


def small_groups(count: int, **said: Any) -> list[dict[str, Any]]:
    return [group(f"web{number}", {f"vm{number}": {**VM, **said}}) for number in range(1, count + 1)]


def shrunk(rig: Mapping[str, Any], *faults: Planned, parts: Parts = AKillIsAWish) -> Schedule:
    """What is left, which fails again from its file."""
    smallest = Shrinking(Schedule(seed=0, rig=rig, faults=faults), say=silent, parts=parts).shrink()
    again = read_schedule(write_schedule(smallest), name="x.yaml")
    assert again == smallest
    assert play(again, parts).broken
    return smallest


def names_of(schedule: Schedule) -> list[list[str]]:
    return [[resource.name for resource in group.resources] for group in schedule.topology.groups]


def kinds_of(faults: Sequence[Planned]) -> list[FaultKind]:
    return [one.kind for one in faults]


def test_a_failing_schedule_is_made_small_and_still_fails_in_the_same_way() -> None:
    found = Search(first_seed=0, rig={"nodes": 3, "groups": 2}, parts=OwnerIsANode).search(lambda hunt: hunt.runs < 100)
    assert found.failure is not None

    smallest = Shrinking(found.failure.schedule, say=silent, parts=OwnerIsANode).shrink()

    assert len(smallest.faults) <= 2 < len(found.failure.schedule.faults)
    assert any("runs twice" in text for text in broken_by(play(smallest, OwnerIsANode)))


def test_a_schedule_that_breaks_nothing_is_not_made_small() -> None:
    with pytest.raises(UsageError, match="breaks nothing"):
        Shrinking(schedule_of(0, {"nodes": 3, "groups": 2}), say=silent)


def test_what_fails_with_one_of_three_seeds_fails() -> None:
    plays = count()
    schedule = Schedule(seed=0, rig={"nodes": 1, "groups": small_groups(2)}, faults=(killed("vm1"),))

    def weak_every_third_time() -> Composition:
        return Composition() if next(plays) % 3 else AKillIsAWish()

    smallest = Shrinking(schedule, say=silent, parts=weak_every_third_time).shrink()

    assert smallest.rig["groups"] == small_groups(1)


# Groups and VMs


def test_groups_that_nothing_needs_are_left_out() -> None:
    smallest = shrunk({"nodes": 1, "groups": small_groups(4)}, killed("vm1"))

    assert smallest.rig["groups"] == small_groups(1)


@pytest.mark.parametrize("written", [{"groups": 3}, {}], ids=["a number", "nothing"])
def test_groups_that_stand_for_a_number_are_left_out_one_by_one(written: Mapping[str, Any]) -> None:
    smallest = shrunk({"nodes": 1, **written}, killed("web2-vm"))

    assert names_of(smallest) == [["web2-vm"]]


def test_what_is_left_of_a_number_of_groups_is_what_it_was() -> None:
    rig = {"nodes": 1, "groups": 3}

    smallest = shrunk(rig, taken_offline("web1", rig), parts=ProvidersEndFirst)

    assert smallest.topology.groups == Schedule(seed=0, rig=rig, faults=()).topology.groups[:1]


def test_a_vm_goes_with_the_address_that_only_it_needs_and_without_the_rest_of_its_group() -> None:
    front = {**VM, "depends-on": ["ip-front"], "answers-on": 8080}
    back = {**VM, "depends-on": ["ip-back", "front"], "answers-on": 8080}
    shop = group("shop", {"ip-back": ADDRESS, "ip-front": ADDRESS, "front": front, "back": back})
    schedule = Schedule(seed=0, rig={"nodes": 1, "groups": [shop]}, faults=(killed("front"),))
    seen: list[list[list[str]]] = []
    reduction = Shrinking(schedule, say=lambda _text: seen.append(names_of(reduction.schedule)), parts=AKillIsAWish)

    reduction.shrink()

    # Without its address a VM could not answer: that is no rig.
    assert seen[0] == seen[-1] == [["ip-front", "front"]]


def test_what_depends_on_something_that_goes_depends_on_the_rest() -> None:
    needs = {"depends-on": "[vm2] and [ip1] and ([ip2] or [ip3])"}
    addresses, others = dict.fromkeys(("ip1", "ip2", "ip3"), ADDRESS), dict.fromkeys(("vm2", "vm3", "vm4"), VM)
    rig = {"nodes": 1, "groups": [group("web", {"vm1": {**VM, **needs}, **addresses, **others})]}
    schedule = Schedule(seed=0, rig=rig, faults=(taken_offline("web", rig),))
    seen: list[object] = []
    reduction = Shrinking(
        schedule,
        say=lambda _text: seen.append(reduction.schedule.rig["groups"][0]["resources"][0].get("depends-on")),
        parts=ProvidersEndFirst,
    )

    smallest = reduction.shrink()

    assert names_of(smallest) == [["vm1", "ip1"]]
    assert seen[0] == "[ip1] and ([ip2] or [ip3])"
    assert seen[-1] == ["ip1"]


# Nodes


@pytest.mark.parametrize(
    "rig",
    [{"nodes": 5}, {"nodes": 4, "voters": 3}, {"nodes": 2, "witness": True}, {}],
    ids=["counted", "with voters", "with a witness", "by default"],
)
def test_one_node_is_left_where_no_more_are_needed(rig: Mapping[str, Any]) -> None:
    smallest = shrunk({**rig, "groups": small_groups(1)}, killed("vm1"))

    assert smallest.rig == {"nodes": 1, "groups": small_groups(1)}


def test_nodes_that_are_listed_keep_their_names() -> None:
    web = group("web", {"vm1": VM}, **{"preferred-owners": ["gamma", "alpha"]})

    smallest = shrunk(
        {"nodes": ["alpha", "beta", "gamma"], "groups": [web]}, late_accept("gamma"), parts=DoubtEndsWithARead
    )

    assert smallest.rig["nodes"] == ["gamma"]
    assert smallest.rig["groups"][0]["preferred-owners"] == ["gamma"]
    assert [one.target for one in smallest.faults] == ["gamma"]


def test_nodes_that_are_counted_are_counted_anew() -> None:
    web = group("web", {"vm1": VM}, **{"possible-owners": ["node3"]})

    smallest = shrunk({"nodes": 3, "groups": [web]}, late_accept("node3"), parts=DoubtEndsWithARead)

    assert smallest.rig["nodes"] == 1
    assert smallest.rig["groups"][0]["possible-owners"] == ["node1"]
    assert [one.target for one in smallest.faults] == ["node1"]


def test_a_node_goes_with_its_faults() -> None:
    web = group("web", {"vm1": VM}, **{"preferred-owners": ["node3", "node1"]})
    # Neither fault does anything alone: the group is on node1 only because node3 is off, or is not there.
    off, late = fault(9, FaultKind.POWER_OFF, "node3", 30), late_accept("node1")

    smallest = shrunk({"nodes": 3, "groups": [web]}, off, late, parts=DoubtEndsWithARead)

    assert kinds_of(smallest.faults) == [FaultKind.LATE_ACCEPT]
    assert smallest.rig["nodes"] == 1


@pytest.mark.parametrize(
    ("parts", "nodes", "needed"),
    [
        (AnswersForAnother, 3, fault(20, FaultKind.MISROUTED, "node1", 8)),
        (BallotsAreUsedTwice, 2, fault(20, FaultKind.PARTIAL, "node2", 8)),
    ],
    ids=["voters", "nodes"],
)
def test_a_fault_between_two_keeps_both(parts: Parts, nodes: int, needed: Planned) -> None:
    smallest = shrunk({"nodes": nodes, "groups": small_groups(1)}, needed, parts=parts)

    assert kinds_of(smallest.faults) == [needed.kind]
    assert smallest.rig["nodes"] == nodes


# The same way


def test_a_schedule_that_violates_one_invariant_does_not_become_one_that_violates_another() -> None:
    rig = {"nodes": 1, "groups": small_groups(1)}
    assert "has acted on the group" in broken_by(
        play(Schedule(seed=0, rig=rig, faults=(late_accept("node1"),)), TwoRulesAreWeak)
    )[0]

    smallest = shrunk(rig, killed("vm1"), late_accept("node1"), parts=TwoRulesAreWeak)

    assert kinds_of(smallest.faults) == [FaultKind.VM_KILL]
    assert "and nobody asked" in broken_by(play(smallest, TwoRulesAreWeak))[0]


def test_a_schedule_that_does_not_come_to_rest_does_not_become_one_that_violates_something() -> None:
    rig = {"nodes": 1, "groups": small_groups(1, **{"restart-delay": "1h"})}
    # While the node is off its service proposes nothing; with the first two gone, it does.
    masked = (
        fault(18, FaultKind.VM_CRASH, "vm1"),
        fault(19, FaultKind.POWER_OFF, "node1", 6),
        late_accept("node1"),
    )

    smallest = shrunk(rig, *masked, endless("vm1"), parts=DoubtEndsWithARead)

    assert kinds_of(smallest.faults) == [FaultKind.VM_CRASH_LOOP]
    assert play(smallest, DoubtEndsWithARead).unconverged


def test_a_violation_is_the_same_whoever_it_is_about() -> None:
    groups = [group("east", {"left": VM}), group("west", {"right": VM})]
    later = replace(killed("right"), at_us=13_000_000)

    smallest = shrunk({"nodes": 1, "groups": groups}, killed("left"), later)

    assert [one.target for one in smallest.faults] == ["right"]


# Ctrl-C


def test_what_was_found_so_far_is_there_when_it_is_interrupted() -> None:
    def interrupt(_text: str) -> None:
        raise KeyboardInterrupt

    schedule = Schedule(seed=0, rig={"nodes": 1, "groups": small_groups(3)}, faults=(late_accept("node1"),))
    reduction = Shrinking(schedule, say=interrupt, parts=DoubtEndsWithARead)

    with pytest.raises(KeyboardInterrupt):
        reduction.shrink()

    assert len(reduction.schedule.topology.groups) < 3
    assert reduction.broken == broken_by(play(reduction.schedule, DoubtEndsWithARead)) != ()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_shrink_saves_the_smallest_so_far_and_says_so(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    rig = {"nodes": 5, "groups": small_groups(6, **{"restart-delay": "1h"})}
    schedule = Schedule(seed=0, rig=rig, faults=(endless("vm1"),))
    file = tmp_path / "crash.yaml"
    file.write_text(write_schedule(schedule))
    # Whoever runs the tests may have told them to ignore the signal, which is inherited.
    program = (
        "import signal; from chaos.cli.main import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); main()"
    )

    with subprocess.Popen(
        [sys.executable, "-c", program, "shrink", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "run " in process.stderr.readline()
        process.send_signal(number)
        told, _ = process.communicate(timeout=60)

    saved = tmp_path / "crash.min.yaml"
    assert process.returncode == code
    assert f"in {saved}: not yet minimal" in told
    text = saved.read_text()
    assert text.startswith("# interrupted: not yet minimal\n# not at rest a minute after the last fault: ")
    smaller = read_schedule(text, name="x.yaml")
    assert len(smaller.topology.groups) < 6
    assert play(smaller, Composition).broken
