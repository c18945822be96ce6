"""What a fault is aimed at: by name, by label, or by the part it plays when the fault is due.

A target is a record in the experiment and becomes a name (of a node or a machine) only at injection, against the
cluster and the engine's list of that moment. Where several fit, the first in the order of names is taken, so that a run
can be repeated.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from chaos.history import ClusterSeen, ContainerSeen, Role

__all__ = [
    "ByLabel",
    "ByName",
    "Bystander",
    "FromRegister",
    "OwnerOf",
    "Surroundings",
    "Target",
    "TargetKind",
    "Unresolved",
    "needs_cluster",
    "resolve",
]


class TargetKind(StrEnum):
    """What a fault can be aimed at."""

    NODE = "node"
    MACHINE = "machine"


class Unresolved(Exception):
    """Nothing fits the target now; says what was looked for and what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByName:
    """The node or machine of that name."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ByLabel:
    """A node or machine whose label `key` (group, resource, node, session: the rig's own) has that value."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"label {self.key}={self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerOf:
    """The node that owns a group."""

    group: str

    def __str__(self) -> str:
        return f"owner of {self.group}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bystander:
    """An Up node that no fault of this run has been aimed at, and that does not own `group` if one is given."""

    group: str = ""

    def __str__(self) -> str:
        return f"bystander of {self.group}" if self.group else "bystander"


@dataclass(frozen=True, slots=True, kw_only=True)
class FromRegister:
    """What an earlier step registered."""

    register: str

    def __str__(self) -> str:
        return f"${{{self.register}}}"


Target = ByName | ByLabel | OwnerOf | Bystander | FromRegister


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The moment against which a target is resolved. `touched` are the nodes that faults were aimed at."""

    cluster: ClusterSeen
    containers: tuple[ContainerSeen, ...]
    registers: Mapping[str, Any]
    touched: Collection[str] = ()


def needs_cluster(target: Target) -> bool:
    """Whether a node of the cluster must be asked: a name, a label and a register can be resolved when none answers."""
    return isinstance(target, OwnerOf | Bystander)


def resolve(target: Target, kind: TargetKind, around: Surroundings) -> str:
    """The name of the node or machine. Raises Unresolved when there is none."""
    match target:
        case ByName(name=name):
            return name
        case FromRegister(register=register):
            return _registered(register, around)
        case ByLabel(key=key, value=value):
            return _labelled(key, value, kind, around)
        case OwnerOf(group=group):
            return _owner(group, around)
        case Bystander(group=group):
            return _bystander(group, around)


def _registered(register: str, around: Surroundings) -> str:
    value = around.registers.get(register)
    if not isinstance(value, str) or not value:
        raise Unresolved(f"${{{register}}} holds {value!r}: the step that writes it did not come that far")
    return value


def _labelled(key: str, value: str, kind: TargetKind, around: Surroundings) -> str:
    role = Role.NODE if kind is TargetKind.NODE else Role.MACHINE
    names = sorted(
        seen.node if kind is TargetKind.NODE else seen.machine
        for seen in around.containers
        if seen.role is role and seen.running and _label(seen, key) == value
    )
    if not names:
        running = sorted(seen.machine or seen.node for seen in around.containers if seen.role is role and seen.running)
        raise Unresolved(f"no running {kind} has the label {key}={value}; running: {', '.join(running) or 'none'}")
    return names[0]


def _label(seen: ContainerSeen, key: str) -> str:
    labels = {"node": seen.node, "group": seen.group, "resource": seen.machine, "session": seen.session}
    return labels.get(key.removeprefix("io.blackstart."), "")


def _owner(group: str, around: Surroundings) -> str:
    seen = around.cluster.group(group)
    if seen is None or not seen.owner:
        raise Unresolved(f"group {group} has no owner now")
    return seen.owner


def _bystander(group: str, around: Surroundings) -> str:
    seen = around.cluster.group(group) if group else None
    owner = seen.owner if seen is not None else ""
    up = sorted(node.name for node in around.cluster.nodes if node.state == "Up")
    free = [name for name in up if name != owner and name not in around.touched]
    if not free:
        raise Unresolved(
            f"no Up node is a bystander; Up: {', '.join(up) or 'none'}, "
            f"owner of {group or 'nothing'}: {owner or 'none'}, touched: {', '.join(sorted(around.touched)) or 'none'}"
        )
    return free[0]
