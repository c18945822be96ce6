"""What a fault is aimed at: by name, pattern or label, by the part it plays when the fault is due, or by lot.

A target is a record in the experiment and becomes names (of nodes or VMs) only at injection, against the cluster
and the engine's list of that moment. Where one of several is meant, the first in the order of names is taken, or the
run's seed decides, so that a run can be repeated.
"""

import fnmatch
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.faults.kinds import TargetKind
from chaos.history.records import ClusterSeen, ContainerRole, ContainerSeen

__all__ = [
    "ByLabel",
    "ByName",
    "ByPattern",
    "Bystander",
    "FromRegister",
    "Majority",
    "Minority",
    "OwnerOf",
    "OwnerOfVm",
    "Sample",
    "Surroundings",
    "Target",
    "Unresolved",
    "Voter",
    "needs_cluster",
    "resolve",
    "several",
]


class Unresolved(Exception):
    """Nothing fits the target now; says what was looked for and what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByName:
    """The node or VM of that name."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ByPattern:
    """Every node or VM whose name matches a shell pattern; `*` is all of them."""

    pattern: str

    def __str__(self) -> str:
        return self.pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class ByLabel:
    """A node or VM whose label `key` (group, resource, node, session: the rig's own) has that value."""

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
class OwnerOfVm:
    """The node that owns the group of a VM."""

    vm: str

    def __str__(self) -> str:
        return f"owner of {self.vm}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bystander:
    """An Up node that no fault of this run has been aimed at, and that does not own `group` if one is given."""

    group: str = ""

    def __str__(self) -> str:
        return f"bystander of {self.group}" if self.group else "bystander"


@dataclass(frozen=True, slots=True, kw_only=True)
class Voter:
    """An Up node with a vote that no fault of this run has been aimed at."""

    def __str__(self) -> str:
        return "voter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Minority:
    """As many nodes with a vote as may be lost at once; the owner of `group` is one of them if one is given."""

    group: str = ""

    def __str__(self) -> str:
        return f"minority with the owner of {self.group}" if self.group else "minority"


@dataclass(frozen=True, slots=True, kw_only=True)
class Majority:
    """The fewest nodes with a vote without which the others have no quorum."""

    def __str__(self) -> str:
        return "majority"


@dataclass(frozen=True, slots=True, kw_only=True)
class FromRegister:
    """What an earlier step registered: one name or several."""

    register: str

    def __str__(self) -> str:
        return f"${{{self.register}}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """So many of those that `of` names, or so many per cent of them (rounded up), drawn by the run's seed."""

    of: "Target"
    count: int = 0
    percentage: float = 0.0

    def __str__(self) -> str:
        return f"{self.percentage:g} % of {self.of}" if self.percentage else f"{self.count} of {self.of}"


Target = (
    ByName
    | ByPattern
    | ByLabel
    | OwnerOf
    | OwnerOfVm
    | Bystander
    | Voter
    | Minority
    | Majority
    | FromRegister
    | Sample
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The moment against which a target is resolved.

    `touched` are the nodes that faults were aimed at, `voters` those with a vote; `rng` draws by the run's seed.
    """

    cluster: ClusterSeen
    containers: tuple[ContainerSeen, ...]
    registers: Mapping[str, Any]
    touched: Collection[str] = ()
    voters: Sequence[str] = ()
    rng: random.Random = field(default_factory=lambda: random.Random(0))


def needs_cluster(target: Target) -> bool:
    """Whether a node of the cluster must be asked: a name, a label and a register can be resolved when none answers."""
    match target:
        case Sample(of=of):
            return needs_cluster(of)
        case Minority(group=group):
            return bool(group)
    return isinstance(target, OwnerOf | OwnerOfVm | Bystander | Voter)


def several(target: Target) -> bool:
    """Whether the target may stand for more than one node or VM. A register stands for what was written to it."""
    return isinstance(target, ByPattern | Minority | Majority | Sample)


def resolve(target: Target, kind: TargetKind, around: Surroundings) -> tuple[str, ...]:
    """The names of the nodes or VMs, at least one, in order. Raises Unresolved when there is none."""
    match target:
        case ByName(name=name):
            return (name,)
        case ByPattern(pattern=pattern):
            return _matching(pattern, kind, around)
        case FromRegister(register=register):
            return _registered(register, around)
        case ByLabel(key=key, value=value):
            return _labelled(key, value, kind, around)[:1]
        case OwnerOf(group=group):
            return (_owner(group, around),)
        case OwnerOfVm(vm=vm):
            return (_owner_of_vm(vm, around),)
        case Bystander(group=group):
            return (_bystander(group, around),)
        case Voter():
            return (_untouched_voter(around),)
        case Minority(group=group):
            return _minority(group, around)
        case Majority():
            return _drawn(around.voters, len(around.voters) // 2 + 1, around)
        case Sample():
            return _sample(target, kind, around)


def _registered(register: str, around: Surroundings) -> tuple[str, ...]:
    value = around.registers.get(register)
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, tuple | list) or not names or not all(isinstance(name, str) and name for name in names):
        raise Unresolved(f"${{{register}}} holds {value!r}: the step that writes it did not come that far")
    return tuple(names)


def _matching(pattern: str, kind: TargetKind, around: Surroundings) -> tuple[str, ...]:
    known = _known(kind, around)
    names = tuple(name for name in known if fnmatch.fnmatchcase(name, pattern))
    if not names:
        raise Unresolved(f"no {kind.noun} is named like {pattern}; there are {', '.join(known) or 'none'}")
    return names


def _known(kind: TargetKind, around: Surroundings) -> list[str]:
    """Every node that the engine lists, or every VM that it has a container of."""
    role = ContainerRole.NODE if kind is TargetKind.NODE else ContainerRole.VM
    return sorted({_name(seen, kind) for seen in around.containers if seen.role is role})


def _name(seen: ContainerSeen, kind: TargetKind) -> str:
    return seen.node if kind is TargetKind.NODE else seen.vm


def _labelled(key: str, value: str, kind: TargetKind, around: Surroundings) -> tuple[str, ...]:
    role = ContainerRole.NODE if kind is TargetKind.NODE else ContainerRole.VM
    mine = [seen for seen in around.containers if seen.role is role and seen.running]
    names = sorted({_name(seen, kind) for seen in mine if _label(seen, key) == value})
    if not names:
        running = sorted(_name(seen, kind) for seen in mine)
        raise Unresolved(f"no running {kind.noun} has the label {key}={value}; running: {', '.join(running) or 'none'}")
    return tuple(names)


def _label(seen: ContainerSeen, key: str) -> str:
    labels = {"node": seen.node, "group": seen.group, "resource": seen.vm, "session": seen.session}
    return labels.get(key.removeprefix("io.blackstart."), "")


def _owner(group: str, around: Surroundings) -> str:
    seen = around.cluster.group(group)
    if seen is None or not seen.owner:
        raise Unresolved(f"group {group} has no owner now")
    return seen.owner


def _owner_of_vm(vm: str, around: Surroundings) -> str:
    for group in around.cluster.groups:
        if any(resource.name == vm for resource in group.resources):
            return _owner(group.name, around)
    raise Unresolved(f"the cluster knows no VM {vm}")


def _up(around: Surroundings) -> list[str]:
    return sorted(node.name for node in around.cluster.nodes if node.state == "Up")


def _bystander(group: str, around: Surroundings) -> str:
    seen = around.cluster.group(group) if group else None
    owner = seen.owner if seen is not None else ""
    up = _up(around)
    free = [name for name in up if name != owner and name not in around.touched]
    if not free:
        raise Unresolved(
            f"no Up node is a bystander; Up: {', '.join(up) or 'none'}, "
            f"owner of {group or 'nothing'}: {owner or 'none'}, touched: {', '.join(sorted(around.touched)) or 'none'}"
        )
    return free[0]


def _untouched_voter(around: Surroundings) -> str:
    up = [name for name in _up(around) if name in around.voters]
    free = [name for name in up if name not in around.touched]
    if not free:
        raise Unresolved(
            f"no Up node with a vote is untouched; Up with a vote: {', '.join(up) or 'none'}, "
            f"touched: {', '.join(sorted(around.touched)) or 'none'}"
        )
    return free[0]


def _minority(group: str, around: Surroundings) -> tuple[str, ...]:
    size = (len(around.voters) - 1) // 2
    if not size:
        raise Unresolved(f"of {len(around.voters)} votes none may be lost: there is no minority")
    if not group:
        return _drawn(around.voters, size, around)
    owner = _owner(group, around)
    if owner not in around.voters:
        raise Unresolved(f"the owner of {group}, {owner}, has no vote: it is in no minority of votes")
    others = [name for name in around.voters if name != owner]
    return tuple(sorted((owner, *(_drawn(others, size - 1, around) if size > 1 else ()))))


def _sample(sample: Sample, kind: TargetKind, around: Surroundings) -> tuple[str, ...]:
    of = sample.of
    names = _labelled(of.key, of.value, kind, around) if isinstance(of, ByLabel) else resolve(of, kind, around)
    count = sample.count or -int(-len(names) * sample.percentage // 100)
    if count > len(names):
        raise Unresolved(f"{sample} are wanted, and there are only {', '.join(names)}")
    return _drawn(names, count, around)


def _drawn(names: Sequence[str], count: int, around: Surroundings) -> tuple[str, ...]:
    if not names:
        raise Unresolved("there is nothing to draw from")
    return tuple(sorted(around.rng.sample(sorted(names), count)))
