"""Targets at the moment of injection: what resolves to what, and what is said when nothing fits."""

import pytest

from chaos.history import ClusterSeen, ContainerSeen, GroupSeen, NodeSeen, Role
from chaos.targets import (
    ByLabel,
    ByName,
    Bystander,
    FromRegister,
    OwnerOf,
    Surroundings,
    Target,
    TargetKind,
    Unresolved,
    resolve,
)

NODE, MACHINE = TargetKind.NODE, TargetKind.MACHINE


def machine(name: str, node: str, *, running: bool = True) -> ContainerSeen:
    return ContainerSeen(
        at_ns=1, container=name, role=Role.MACHINE, node=node, running=running, machine=name, group=name[:-3]
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
            GroupSeen(name="web", owner="node1", state="Online"),
            GroupSeen(name="lost", owner="", state="Offline"),
        ),
    ),
    containers=(
        machine("web-vm", "node1"),
        machine("mail-vm", "node1", running=False),
        ContainerSeen(at_ns=1, container="c3", role=Role.NODE, node="node3", running=True),
    ),
    registers={"victim": "node1", "empty": None},
    touched={"node3"},
)


@pytest.mark.parametrize(
    ("target", "kind", "name"),
    [
        (ByName(name="node2"), NODE, "node2"),
        (OwnerOf(group="web"), NODE, "node1"),
        (FromRegister(register="victim"), NODE, "node1"),
        (ByLabel(key="group", value="web"), MACHINE, "web-vm"),
        (ByLabel(key="node", value="node1"), MACHINE, "web-vm"),
        (ByLabel(key="node", value="node3"), NODE, "node3"),
        (Bystander(), NODE, "node1"),
        (Bystander(group="web"), NODE, "node4"),
    ],
    ids=str,
)
def test_what_a_target_stands_for(target: Target, kind: TargetKind, name: str) -> None:
    assert resolve(target, kind, AROUND) == name


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        (OwnerOf(group="lost"), NODE, "group lost has no owner now"),
        (OwnerOf(group="unheard-of"), NODE, "has no owner now"),
        (FromRegister(register="empty"), NODE, "the step that writes it did not come that far"),
        (ByLabel(key="group", value="mail"), MACHINE, "no running machine has the label group=mail; running: web-vm"),
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
