"""Targets at the moment of injection: what resolves to what, and what is said when nothing fits."""

import random
from dataclasses import replace

import pytest

from chaos.experiment.targets import (
    ByLabel,
    ByName,
    ByPattern,
    Bystander,
    FromRegister,
    Majority,
    Minority,
    OwnerOf,
    OwnerOfVm,
    Sample,
    Surroundings,
    Target,
    Unresolved,
    Voter,
    needs_cluster,
    resolve,
)
from chaos.faults.kinds import TargetKind
from chaos.history.records import ClusterSeen, ContainerRole, ContainerSeen, GroupSeen, NodeSeen, ResourceSeen

NODE, VM = TargetKind.NODE, TargetKind.VM


def vm(name: str, node: str, *, running: bool = True) -> ContainerSeen:
    return ContainerSeen(
        at_ns=1, container=name, role=ContainerRole.VM, node=node, running=running, vm=name, group=name[:-3]
    )


AROUND = Surroundings(
    cluster=ClusterSeen(
        at_ns=1,
        quorum=True,
        nodes=(
            NodeSeen(name="node1", state="Up"),
            NodeSeen(name="node2", state="Down"),
            NodeSeen(name="node3", state="Up"),
            NodeSeen(name="node4", state="Up"),
        ),
        groups=(
            GroupSeen(
                name="web",
                owner="node1",
                state="Online",
                resources=(ResourceSeen(name="web-vm", type="virtual-machine", state="Online", wanted=True),),
            ),
            GroupSeen(name="lost", owner="", state="Offline"),
        ),
    ),
    containers=(
        vm("web-vm", "node1"),
        vm("mail-vm", "node1", running=False),
        ContainerSeen(at_ns=1, container="c3", role=ContainerRole.NODE, node="node3", running=True),
        ContainerSeen(at_ns=1, container="c1", role=ContainerRole.NODE, node="node1", running=False),
    ),
    registers={"victim": "node1", "empty": None, "victims": ("node1", "node4")},
    touched={"node3"},
    voters=("node1", "node2", "node3", "node4", "node5"),
)


@pytest.mark.parametrize(
    ("target", "kind", "name"),
    [
        (ByName(name="node2"), NODE, "node2"),
        (OwnerOf(group="web"), NODE, "node1"),
        (FromRegister(register="victim"), NODE, "node1"),
        (ByLabel(key="group", value="web"), VM, "web-vm"),
        (ByLabel(key="node", value="node1"), VM, "web-vm"),
        (ByLabel(key="node", value="node3"), NODE, "node3"),
        (Bystander(), NODE, "node1"),
        (Bystander(group="web"), NODE, "node4"),
        (OwnerOfVm(vm="web-vm"), NODE, "node1"),
        (Voter(), NODE, "node1"),
    ],
    ids=str,
)
def test_what_a_target_stands_for(target: Target, kind: TargetKind, name: str) -> None:
    assert resolve(target, kind, AROUND) == (name,)


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        (OwnerOf(group="lost"), NODE, "group lost has no owner now"),
        (OwnerOf(group="unheard-of"), NODE, "has no owner now"),
        (FromRegister(register="empty"), NODE, "the step that writes it did not come that far"),
        (ByLabel(key="group", value="mail"), VM, "no running VM has the label group=mail; running: web-vm"),
        (ByLabel(key="node", value="node9"), NODE, "no running node has the label node=node9; running: node3"),
    ],
    ids=str,
)
def test_what_is_said_when_nothing_fits(target: Target, kind: TargetKind, said: str) -> None:
    with pytest.raises(Unresolved, match=said):
        resolve(target, kind, AROUND)


def test_a_bystander_must_be_up_untouched_and_no_owner() -> None:
    crowded = Surroundings(cluster=AROUND.cluster, containers=(), registers={}, touched={"node3", "node4"})

    with pytest.raises(Unresolved, match="no Up node is a bystander; Up: node1, node3, node4, owner of web: node1"):
        resolve(Bystander(group="web"), NODE, crowded)


@pytest.mark.parametrize(
    ("target", "kind", "names"),
    [
        (FromRegister(register="victims"), NODE, ("node1", "node4")),
        (ByPattern(pattern="node*"), NODE, ("node1", "node3")),
        (ByPattern(pattern="*-vm"), VM, ("mail-vm", "web-vm")),
        (Sample(of=ByPattern(pattern="*"), count=2), NODE, ("node1", "node3")),
        (Sample(of=ByPattern(pattern="*"), percentage=100), NODE, ("node1", "node3")),
        (Sample(of=ByLabel(key="node", value="node1"), count=1), VM, ("web-vm",)),
    ],
    ids=str,
)
def test_what_a_target_of_several_stands_for(target: Target, kind: TargetKind, names: tuple[str, ...]) -> None:
    assert resolve(target, kind, AROUND) == names


@pytest.mark.parametrize(
    ("target", "size"),
    [
        (Minority(), 2),
        (Minority(group="web"), 2),
        (Majority(), 3),
        (Sample(of=Majority(), count=1), 1),
        (Sample(of=Majority(), percentage=34), 2),
        (Sample(of=Majority(), percentage=33), 1),
        (Sample(of=Majority(), percentage=1), 1),
    ],
    ids=str,
)
def test_how_many_a_draw_takes_and_that_the_seed_decides(target: Target, size: int) -> None:
    def drawn(seed: int) -> tuple[str, ...]:
        return resolve(target, NODE, replace(AROUND, rng=random.Random(seed)))

    draws = {drawn(seed) for seed in range(40)}

    assert all(len(names) == len(set(names)) == size and names == tuple(sorted(names)) for names in draws)
    assert all(set(names) <= set(AROUND.voters) for names in draws)
    assert len(draws) > 1
    assert drawn(7) == drawn(7)


def test_a_minority_with_an_owner_has_that_owner_in_it() -> None:
    assert all(
        "node1" in resolve(Minority(group="web"), NODE, replace(AROUND, rng=random.Random(seed))) for seed in range(20)
    )


@pytest.mark.parametrize(
    ("target", "voters", "said"),
    [
        (Minority(), ("node1",), "of 1 votes none may be lost"),
        (Minority(group="web"), ("node2", "node3", "node4"), "the owner of web, node1, has no vote"),
        (Majority(), (), "nothing to draw from"),
        (Voter(), ("node2", "node3"), "no Up node with a vote is untouched; Up with a vote: node3"),
        (OwnerOfVm(vm="no-vm"), (), "the cluster knows no VM no-vm"),
        (ByPattern(pattern="host*"), (), "no node is named like host"),
        (Sample(of=ByPattern(pattern="*"), count=3), (), "3 of [*] are wanted, and there are only node1, node3"),
        (FromRegister(register="missing"), (), "the step that writes it did not come that far"),
    ],
    ids=str,
)
def test_what_is_said_when_votes_or_names_do_not_do(target: Target, voters: tuple[str, ...], said: str) -> None:
    with pytest.raises(Unresolved, match=said):
        resolve(target, NODE, replace(AROUND, voters=voters))


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        (Minority(), False),
        (Minority(group="web"), True),
        (Majority(), False),
        (ByPattern(pattern="*"), False),
        (Voter(), True),
        (Sample(of=Bystander(), count=1), True),
        (Sample(of=Majority(), count=1), False),
    ],
    ids=str,
)
def test_only_what_depends_on_the_cluster_asks_it(target: Target, asked: bool) -> None:
    """A node can be named, and drawn by lot, when no node of the cluster answers any more."""
    assert needs_cluster(target) is asked
