"""Making a failing schedule small: fewer faults, groups and nodes, shorter, as long as it still fails in the same way.

Delta debugging over the faults, then over what the rig has. What goes takes along what is nothing without it: its
faults, and of a VM the addresses that nothing else needs. A change moves everything that the simulator draws
afterwards, so each candidate gets a few seeds; the seed with which it failed becomes its own.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from chaos.search.schedule_file import Schedule, targets_of, topology_of
from chaos.search.search import Parts, broken_by, play
from harness.errors import UsageError
from harness.model.topology import ResourceSpec, Topology
from harness.simulation.faults.injection import vm_names
from harness.simulation.world.composition import Composition
from harness.simulation.world.fault_kinds import ABOUT_VMS, FaultKind, Planned, has_others

__all__ = ["Shrinking"]

SEEDS_TRIED = 3
MIN_DURATION_US = 100_000
VM = "virtual-machine"

_REGISTER = re.compile(r"^register \S+: ")
_CLAUSE_END = re.compile(r"[:;] ")
_FILLERS = frozenset({"and", "or", "None"})
"""What joins the names of a list, and what stands for a name."""

Part = TypeVar("Part")


class Shrinking:
    """One reduction. `schedule` is the smallest that was seen to fail, `broken` what it broke, as sentences; `runs` how
    many it took. They hold while `shrink` is under way, too.
    """

    def __init__(
        self, schedule: Schedule, *, say: Callable[[str], None], parts: Parts = Composition
    ) -> None:
        """Raises UsageError when the schedule does not fail."""
        self.schedule = schedule
        self.runs = 1
        self._say = say
        self._parts = parts
        outcome = play(schedule, parts)
        if not outcome.broken:
            raise UsageError("this schedule breaks nothing: there is nothing to make small")
        self.broken = broken_by(outcome)
        self._names = _Names(schedule.topology)
        # What broke first is what is looked for. No rest has no first: its sentences stand in the order of the rig.
        self._kinds = self._names.kinds(outcome.violations[:1] or outcome.unconverged)
        # One of 32 bytes for each run: most of what a round asks, the round before has asked as well.
        self._in_vain: set[bytes] = set()

    def shrink(self) -> Schedule:
        """Until nothing can be left out any more."""
        before = None
        while before is not self.schedule:
            before = self.schedule
            self._leave_out(lambda schedule: range(len(schedule.faults)), _without_faults)
            self._leave_out(lambda schedule: [group.name for group in schedule.topology.groups], _without_groups)
            self._leave_out(lambda schedule: list(_resources(schedule.topology)), _without_resources)
            self._leave_out(lambda schedule: [node.name for node in schedule.topology.nodes], _without_nodes)
            self._try(_without_witness(self.schedule))
            for index in range(len(self.schedule.faults)):
                while self._try(_shorter(self.schedule, index)):
                    pass
        return self.schedule

    def _leave_out(
        self,
        parts: Callable[[Schedule], Sequence[Part]],
        without: Callable[[Schedule, Sequence[Part]], Schedule | None],
    ) -> None:
        """All of them, then ever smaller parts, down to each alone. What must stay is asked for again in the next round
        only.
        """
        length = len(parts(self.schedule))
        while length:
            begin = 0
            while gone := parts(self.schedule)[begin : begin + length]:
                if not self._try(without(self.schedule, gone)):
                    begin += length
            length = (length + 1) // 2 if length > 1 else 0

    def _try(self, candidate: Schedule | None) -> bool:
        """Whether it fails in the same way; it is the smallest then. None: there is no such rig."""
        if candidate is None:
            return False
        seeds = dict.fromkeys((candidate.seed, *range(SEEDS_TRIED)))
        for seed in list(seeds)[:SEEDS_TRIED]:
            tried = replace(candidate, seed=seed)
            key = hashlib.sha256(repr(tried).encode()).digest()
            if key in self._in_vain:
                continue
            self.runs += 1
            outcome = play(tried, self._parts)
            if self._kinds & self._names.kinds(outcome.violations or outcome.unconverged):
                self.schedule, self.broken = tried, broken_by(outcome)
                self._say(f"run {self.runs}: {_told(tried)}")
                return True
            self._in_vain.add(key)
        return False


class _Names:
    """The names of a rig, which tell who broke something and not what."""

    def __init__(self, topology: Topology) -> None:
        names = {group.name for group in topology.groups} | set(_resources(topology))
        names |= {spec.name for spec in topology.everybody}
        anyone = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        self._anyone = re.compile(rf"(?<![a-z0-9])(?:{anyone})(?![a-z0-9])")

    def kinds(self, sentences: Collection[str]) -> frozenset[str]:
        """What they tell of, each as a key that does not depend on who, when, how often and in which register: the
        words of its first clause, each once, without names, ids and numbers.
        """
        return frozenset(self._kind(sentence) for sentence in sentences)

    def _kind(self, sentence: str) -> str:
        clause = _CLAUSE_END.split(_REGISTER.sub("", sentence))[0]
        words = [word.strip(",()") for word in clause.split()]
        return " ".join(dict.fromkeys(word for word in words if self._says_what(word)))

    def _says_what(self, word: str) -> bool:
        return not (word in _FILLERS or any(map(str.isdigit, word)) or self._anyone.search(word))


def _told(schedule: Schedule) -> str:
    topology = schedule.topology
    rig = f"{len(topology.groups)} groups, {len(vm_names(topology))} VMs, {len(topology.nodes)} nodes"
    return f"{len(schedule.faults)} faults, {rig}, seed {schedule.seed}"


def _without_faults(schedule: Schedule, gone: Sequence[int]) -> Schedule:
    faults = enumerate(schedule.faults)
    return replace(schedule, faults=tuple(fault for index, fault in faults if index not in gone))


def _shorter(schedule: Schedule, index: int) -> Schedule | None:
    faults = list(schedule.faults)
    half_us = faults[index].duration_us // 2
    faults[index] = replace(faults[index], duration_us=half_us)
    return replace(schedule, faults=tuple(faults)) if half_us >= MIN_DURATION_US else None


# Groups and resources


def _without_groups(schedule: Schedule, gone: Sequence[str]) -> Schedule | None:
    groups = [group for group in _groups(schedule) if group["name"] not in gone]
    return _candidate({**schedule.rig, "groups": groups}, schedule)


def _without_resources(schedule: Schedule, gone: Sequence[str]) -> Schedule | None:
    """Nor with addresses that only they need. What depends on them does so no longer; a group left empty goes, too."""
    specs = _resources(schedule.topology)
    lost = {*gone, *_orphans(gone, specs)}
    groups = []
    for group in _groups(schedule):
        left = [
            _without_providers(resource, specs[resource["name"]], lost)
            for resource in group["resources"]
            if resource["name"] not in lost
        ]
        groups += [{**group, "resources": left}] if left else []
    return _candidate({**schedule.rig, "groups": groups}, schedule)


def _resources(topology: Topology) -> dict[str, ResourceSpec]:
    return {resource.name: resource for group in topology.groups for resource in group.resources}


def _orphans(gone: Sequence[str], specs: Mapping[str, ResourceSpec]) -> set[str]:
    """The addresses that they depend on, and nothing that stays does. A VM may be what it is all about."""
    needed = {provider for name in specs.keys() - set(gone) for provider in _providers(specs[name])}
    had = {provider for name in gone for provider in _providers(specs[name])}
    return {name for name in had - needed if specs[name].type != VM}


def _providers(spec: ResourceSpec) -> set[str]:
    return {name for alternatives in spec.depends_on for name in alternatives}


def _without_providers(resource: Mapping[str, Any], spec: ResourceSpec, lost: set[str]) -> Mapping[str, Any]:
    if not lost & _providers(spec):
        return resource
    kept = [[name for name in alternatives if name not in lost] for alternatives in spec.depends_on]
    return {**{key: value for key, value in resource.items() if key != "depends-on"}, **_depends_on(kept)}


def _depends_on(conditions: Iterable[Sequence[str]]) -> Mapping[str, Any]:
    """As a person writes it: a list of names, an expression where there are alternatives, nothing for nothing."""
    clauses = [names for names in conditions if names]
    if not clauses:
        return {}
    if all(len(names) == 1 for names in clauses):
        return {"depends-on": [name for names in clauses for name in names]}
    alternatives = (" or ".join(f"[{name}]" for name in names) for names in clauses)
    return {"depends-on": " and ".join(f"({names})" if " or " in names else names for names in alternatives)}


def _groups(schedule: Schedule) -> Sequence[Mapping[str, Any]]:
    """The groups of its rig as a list, also where a person has written how many there are or nothing at all."""
    written = schedule.rig.get("groups")
    if isinstance(written, list):
        return written
    return [
        {"name": group.name, "resources": [_document(resource) for resource in group.resources]}
        for group in schedule.topology.groups
    ]


def _document(spec: ResourceSpec) -> Mapping[str, Any]:
    """Of a resource that a number stands for: what else it has the reader gives to any resource."""
    return {"name": spec.name, "type": spec.type, **_depends_on(spec.depends_on)}


# Nodes and the witness


def _without_nodes(schedule: Schedule, gone: Sequence[str]) -> Schedule | None:
    """Where the rig has but their number, those that stay are counted anew, and faults and groups follow."""
    stay = [node.name for node in schedule.topology.nodes if node.name not in gone]
    listed = isinstance(schedule.rig.get("nodes"), list)
    now = {name: name if listed else f"node{number}" for number, name in enumerate(stay, start=1)}
    rig = {**schedule.rig, "nodes": stay if listed else len(stay)}
    if isinstance(rig.get("groups"), list):
        rig["groups"] = [_with_owners(group, now) for group in rig["groups"]]
    return _candidate(rig, replace(schedule, faults=tuple(_followed(schedule.faults, now))))


def _with_owners(group: Mapping[str, Any], now: Mapping[str, str]) -> Mapping[str, Any]:
    written = dict(group)
    for key in {"preferred-owners", "possible-owners"} & group.keys():
        written[key] = [now[owner] for owner in group[key] if owner in now]
        if not written[key]:
            del written[key]
    return written


def _followed(faults: Sequence[Planned], now: Mapping[str, str]) -> Iterator[Planned]:
    for fault in faults:
        node, slash, group = fault.target.partition("/")
        if fault.kind in ABOUT_VMS:
            yield fault
        elif node in now:
            yield replace(fault, target=f"{now[node]}{slash}{group}")


def _without_witness(schedule: Schedule) -> Schedule | None:
    if schedule.topology.witness is None:
        return None
    return _candidate({key: value for key, value in schedule.rig.items() if key != "witness"}, schedule)


# Candidates


def _candidate(rig: Mapping[str, Any], schedule: Schedule) -> Schedule | None:
    """The schedule in that rig, without the faults that have no target there. What the rig has too few nodes for goes:
    the number of voters that was written, the witness. None: it is no valid rig.
    """
    for left_out in ((), ("voters",), ("witness",), ("voters", "witness")):
        smaller = {key: value for key, value in rig.items() if key not in left_out}
        try:
            topology = topology_of(smaller)
        except UsageError:
            continue
        faults = tuple(fault for fault in schedule.faults if _has_target(fault, topology))
        return replace(schedule, rig=smaller, faults=faults)
    return None


def _has_target(fault: Planned, topology: Topology) -> bool:
    """Whether it can strike there, and has something to do."""
    if fault.kind is FaultKind.COMMAND and not topology.groups:
        return False
    if fault.kind is FaultKind.WITNESS_KILL and topology.witness is None:
        return False
    return fault.target in targets_of(fault.kind, topology) and has_others(fault.kind, topology)
