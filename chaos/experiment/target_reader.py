"""The reader of targets: what a fault may be aimed at, checked against the rig as far as a file can be.

A part of `activity_reader`. Names must exist, patterns must match something, roles must fit the fault and the rig, and
a register must have been written by an earlier step and hold the right kind of thing.
"""

import fnmatch
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from chaos.experiment.schema import TARGET_FORM
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
    Target,
    Voter,
)
from chaos.experiment.targets import several as may_be_several
from chaos.faults.kinds import TargetKind
from harness.document.mapping_reader import MappingReader
from harness.document.refusals import listed, nearest, shown
from harness.model.topology import Topology

__all__ = ["VM_TYPE", "Registered", "TargetReader", "register_name"]

VM_TYPE = "virtual-machine"

MAX_PATTERN_CHARACTERS = 64
"""Twice the longest name: a longer pattern matches nothing that a shorter one does not."""

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_LABELS = ("group", "resource", "node", "session")
_NODE_WORDS: Mapping[str, Target] = {
    "bystander": Bystander(),
    "voter": Voter(),
    "minority": Minority(),
    "majority": Majority(),
}
_NODE_ROLES = ("node", "owner-of", "owner-of-vm", "bystander-of", "minority-with", "voter-of")
_ROLES = (*_NODE_ROLES, "vm", "label")
_DRAWS = ("count", "percentage")
_NO_COORDINATOR = "this cluster has no coordinator: every node may decide, a majority of votes at a time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """What a register will hold: names of that kind, or something else (None); and whether there may be several."""

    kind: TargetKind | None
    several: bool = False


def register_name(value: str) -> str:
    """The register that `${name}` names, empty if `value` is not of that form."""
    match = _VARIABLE.fullmatch(value)
    return match[1].strip() if match else ""


class TargetReader:
    """Reads targets against one topology and the registers written so far.

    Without a topology (it was refused) names are not checked.
    """

    def __init__(self, *, topology: Topology | None, registers: Mapping[str, Registered]) -> None:
        self._checked = topology is not None
        self._registers = registers
        groups = topology.groups if topology else ()
        vms = (entry.name for group in groups for entry in group.resources if entry.type == VM_TYPE)
        # Names in the rig's order, each found at once.
        self._nodes = dict.fromkeys(node.name for node in topology.nodes) if topology else {}
        self._voters = dict.fromkeys(node.name for node in topology.nodes if node.voter) if topology else {}
        self._groups = dict.fromkeys(group.name for group in groups)
        self._vms = dict.fromkeys(vms)

    def read(
        self, section: MappingReader, key: str, kind: TargetKind, *, what: str, several: bool = True
    ) -> Target | None:
        """The target at `key` for something that is aimed at a `kind`; None when it was refused.

        Without `several` it must stand for one node or VM.
        """
        target = self._read(section, key, kind, what, several)
        if target is not None and not several and may_be_several(target):
            section.refuse(key, f"{key} is {target}, which may be several {kind.noun}s", f"one {kind.noun}")
            return None
        return target

    def _read(self, section: MappingReader, key: str, kind: TargetKind, what: str, several: bool) -> Target | None:
        value = section.raw(key)
        if isinstance(value, str):
            return self._read_word(section, key, value, kind, what, several)
        if not isinstance(value, dict) or not value:
            section.refuse(key, f"{key} is {shown(value)}", TARGET_FORM)
            return None
        inner = section.section(key, what="a target")
        draw = next((word for word in _DRAWS if word in value), "")
        if draw and several:
            return self._read_sample(inner, draw, kind, what)
        if len(value) != 1:
            section.refuse(key, f"{key} is {shown(value)}", TARGET_FORM)
            return None
        role = next(iter(value))
        if role not in _ROLES:
            inner.refuse(role, f"there is no target {shown(role)}", nearest(role, (*_ROLES, *_DRAWS)))
            return None
        if role != "label" and (role in _NODE_ROLES) != (kind is TargetKind.NODE):
            named = "node" if role in _NODE_ROLES else "VM"
            inner.refuse(role, f"{what} is aimed at a {kind.noun}, {role} names a {named}", self._expected(kind))
            return None
        return self._read_role(inner, role, kind, several)

    def name_in(self, section: MappingReader, key: str, known: Collection[str], *, what: str) -> str:
        """The text at `key`, which must be one of `known`."""
        value = section.raw(key)
        if not isinstance(value, str) or not value:
            section.refuse(key, f"{key} is {shown(value)}", f"the name of a {what}")
            return ""
        if self._checked and value not in known:
            section.refuse(key, f"the rig has no {what} {shown(value)}", nearest(value, known))
        return value

    def _read_word(
        self, section: MappingReader, key: str, value: str, kind: TargetKind, what: str, several: bool
    ) -> Target | None:
        register = register_name(value)
        if register:
            return self._read_register(section, key, register, kind, what, several)
        if "${" in value:
            section.refuse(key, f"{key} is {shown(value)}", "a name, or ${REGISTER} alone")
            return None
        if kind is TargetKind.NODE and value == "coordinator":
            section.refuse(key, _NO_COORDINATOR, "{owner-of: GROUP}, voter, minority or majority")
            return None
        if kind is TargetKind.NODE and value in _NODE_WORDS and value not in self._nodes:
            return self._checked_votes(section, key, _NODE_WORDS[value])
        return self._read_name(section, key, kind, several)

    def _read_name(self, section: MappingReader, key: str, kind: TargetKind, several: bool) -> Target | None:
        """A name, or a pattern that some name matches."""
        known = self._nodes if kind is TargetKind.NODE else self._vms
        value = section.raw(key)
        if not isinstance(value, str) or not any(sign in value for sign in "*?["):
            return ByName(name=self.name_in(section, key, known, what=kind.noun))
        if not several:
            section.refuse(key, f"{key} is the pattern {shown(value)}", f"the name of one {kind.noun}")
            return None
        if len(value) > MAX_PATTERN_CHARACTERS:
            found = f"{key} is a pattern of {len(value):,} characters"
            section.refuse(key, found, f"at most {MAX_PATTERN_CHARACTERS}: no name is longer")
            return None
        if self._checked and not any(fnmatch.fnmatchcase(name, value) for name in known):
            section.refuse(
                key, f"no {kind.noun} of the rig is named like {shown(value)}", f"a pattern of {listed(known)}"
            )
        return ByPattern(pattern=value)

    def _read_register(
        self, section: MappingReader, key: str, register: str, kind: TargetKind, what: str, several: bool
    ) -> Target | None:
        if register not in self._registers:
            known = ", ".join(sorted(self._registers)) or "none yet"
            what = f"no earlier step registers {shown(register)}"
            section.refuse(key, what, f"one that is registered by then ({known})")
            return None
        holds = self._registers[register]
        if holds.kind is not kind:
            held = f"a {holds.kind.noun}" if holds.kind else "no target"
            section.refuse(key, f"{what} is aimed at a {kind.noun}, ${{{register}}} holds {held}", self._expected(kind))
            return None
        if holds.several and not several:
            section.refuse(key, f"${{{register}}} may hold several {kind.noun}s", f"one {kind.noun}")
            return None
        return FromRegister(register=register)

    def _read_role(self, inner: MappingReader, role: str, kind: TargetKind, several: bool) -> Target | None:
        match role:
            case "node" | "vm":
                return self._read_name(inner, role, kind, several)
            case "owner-of":
                return OwnerOf(group=self.name_in(inner, role, self._groups, what="group"))
            case "owner-of-vm":
                return OwnerOfVm(vm=self.name_in(inner, role, self._vms, what="VM"))
            case "bystander-of":
                return Bystander(group=self.name_in(inner, role, self._groups, what="group"))
            case "minority-with":
                group = self.name_in(inner, role, self._groups, what="group")
                return self._checked_votes(inner, role, Minority(group=group))
            case "voter-of":
                return self._read_voter_of(inner, role)
            case _:
                return self._read_label(inner, role, kind)

    def _read_voter_of(self, inner: MappingReader, role: str) -> Target:
        name = self.name_in(inner, role, self._nodes, what="node")
        if name in self._nodes and name not in self._voters:
            inner.refuse(role, f"{name} has no vote", f"one of {', '.join(self._voters)}")
        return ByName(name=name)

    def _checked_votes(self, section: MappingReader, key: str, target: Target) -> Target | None:
        if self._checked and isinstance(target, Minority) and len(self._voters) < 3:
            votes = f"{len(self._voters)} vote{'s' if len(self._voters) > 1 else ''}"
            section.refuse(key, f"a minority of {votes}: none may be lost", "a rig with three votes or more")
            return None
        return target

    def _read_sample(self, inner: MappingReader, draw: str, kind: TargetKind, what: str) -> Target | None:
        of: Target | None = _EVERYBODY
        if "of" in inner:
            of = self.read(inner, "of", kind, what=what)
        inner.known("of")
        if isinstance(of, Sample):
            inner.refuse("of", f"a draw from {of}, which is a draw itself", "a pattern, a label, minority or majority")
            return None
        if draw == "count":
            known = self._nodes if kind is TargetKind.NODE else self._vms
            high = len(known) if self._checked and known else 1_000_000
            sample = Sample(of=of or _EVERYBODY, count=inner.integer("count", 1, low=1, high=high))
        else:
            sample = Sample(of=of or _EVERYBODY, percentage=self._read_percentage(inner))
        inner.finish()
        return sample if of is not None else None

    @staticmethod
    def _read_percentage(inner: MappingReader) -> float:
        value = inner.raw("percentage")
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 100:
            return float(value)
        inner.refuse("percentage", f"percentage is {shown(value)}", "a number above 0, at most 100")
        return 100.0

    def _read_label(self, inner: MappingReader, role: str, kind: TargetKind) -> Target | None:
        value: Any = inner.raw(role)
        key, equals, wanted = value.partition("=") if isinstance(value, str) else ("", "", "")
        short = key.strip().removeprefix("io.blackstart.")
        labels = ("node",) if kind is TargetKind.NODE else _LABELS
        if not equals or short not in labels or not wanted.strip():
            inner.refuse(role, f"label is {shown(value)}", f"KEY=VALUE with KEY one of {', '.join(labels)}")
            return None
        known = {"node": self._nodes, "group": self._groups, "resource": self._vms}.get(short)
        if self._checked and known is not None and wanted.strip() not in known:
            inner.refuse(role, f"the rig has no {short} {shown(wanted.strip())}", nearest(wanted.strip(), known))
        return ByLabel(key=short, value=wanted.strip())

    def _expected(self, kind: TargetKind) -> str:
        roles = "{node: NAME}, {owner-of: GROUP} or a bystander" if kind is TargetKind.NODE else "{vm: NAME}"
        return f"a {kind.noun}, such as {roles}"


_EVERYBODY = ByPattern(pattern="*")
