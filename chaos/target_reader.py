"""The reader of targets: what a fault may be aimed at, checked against the rig as far as a file can be.

A part of `activity_reader`. Names must exist, roles must fit the fault, and a register must have been written by an
earlier step and hold the right kind of thing.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from chaos.schema import TARGET_FORM
from chaos.targets import ByLabel, ByName, Bystander, FromRegister, OwnerOf, Target, TargetKind
from harness.model.topology import Topology
from harness.rig.section import Section
from harness.rig.yaml_source import nearest, shown

__all__ = ["MACHINE_TYPE", "TargetReader", "register_name"]

MACHINE_TYPE = "virtual-machine"

_VARIABLE = re.compile(r"\$\{\s*([^{}]*?)\s*\}")
_LABELS = ("group", "resource", "node", "session")
_NODE_ROLES = ("node", "owner-of", "bystander-of")
_ROLES = (*_NODE_ROLES, "machine", "label")


def register_name(value: str) -> str:
    """The register that `${name}` names, empty if `value` is not of that form."""
    match = _VARIABLE.fullmatch(value)
    return match[1] if match else ""


class TargetReader:
    """Reads targets against one topology and the registers written so far.

    Without a topology (it was refused) names are not checked.
    """

    def __init__(self, *, topology: Topology | None, registers: Mapping[str, TargetKind | None]) -> None:
        self._checked = topology is not None
        self._registers = registers
        self._nodes = [node.name for node in topology.nodes] if topology else []
        groups = topology.groups if topology else ()
        self._groups = [group.name for group in groups]
        self._machines = [entry.name for group in groups for entry in group.resources if entry.type == MACHINE_TYPE]

    def read(self, section: Section, key: str, kind: TargetKind, *, what: str) -> Target | None:
        """The target at `key` for something that is aimed at a `kind`; None when it was refused."""
        value = section.raw(key)
        if isinstance(value, str):
            return self._read_word(section, key, value, kind, what)
        if not isinstance(value, dict) or len(value) != 1:
            section.refuse(key, f"{key} is {shown(value)}", TARGET_FORM)
            return None
        inner = section.section(key, what="a target")
        role = next(iter(value))
        if role not in _ROLES:
            inner.refuse(role, f"there is no target {role!r}", nearest(str(role), _ROLES))
            return None
        if role != "label" and (role in _NODE_ROLES) != (kind is TargetKind.NODE):
            named = "node" if role in _NODE_ROLES else "machine"
            inner.refuse(role, f"{what} is aimed at a {kind}, {role} names a {named}", self._expected(kind))
            return None
        return self._read_role(inner, role, kind)

    def name_in(self, section: Section, key: str, known: Sequence[str], *, what: str) -> str:
        """The text at `key`, which must be one of `known`."""
        value = section.raw(key)
        if not isinstance(value, str) or not value:
            section.refuse(key, f"{key} is {shown(value)}", f"the name of a {what}")
            return ""
        if self._checked and value not in known:
            section.refuse(key, f"the rig has no {what} {value!r}", nearest(value, known))
        return value

    def _read_word(self, section: Section, key: str, value: str, kind: TargetKind, what: str) -> Target | None:
        register = register_name(value)
        if register:
            return self._read_register(section, key, register, kind, what)
        if "${" in value:
            section.refuse(key, f"{key} is {shown(value)}", "a name, or ${REGISTER} alone")
            return None
        if value == "bystander" and kind is TargetKind.NODE:
            return Bystander()
        known = self._nodes if kind is TargetKind.NODE else self._machines
        return ByName(name=self.name_in(section, key, known, what=kind.value))

    def _read_register(self, section: Section, key: str, register: str, kind: TargetKind, what: str) -> Target | None:
        if register not in self._registers:
            known = ", ".join(sorted(self._registers)) or "none yet"
            section.refuse(key, f"no earlier step registers {register!r}", f"one that is registered by then ({known})")
            return None
        holds = self._registers[register]
        if holds is not kind:
            held = f"a {holds}" if holds else "no target"
            section.refuse(key, f"{what} is aimed at a {kind}, ${{{register}}} holds {held}", self._expected(kind))
            return None
        return FromRegister(register=register)

    def _read_role(self, inner: Section, role: str, kind: TargetKind) -> Target | None:
        match role:
            case "node":
                return ByName(name=self.name_in(inner, role, self._nodes, what="node"))
            case "machine":
                return ByName(name=self.name_in(inner, role, self._machines, what="machine"))
            case "owner-of":
                return OwnerOf(group=self.name_in(inner, role, self._groups, what="group"))
            case "bystander-of":
                return Bystander(group=self.name_in(inner, role, self._groups, what="group"))
            case _:
                return self._read_label(inner, role, kind)

    def _read_label(self, inner: Section, role: str, kind: TargetKind) -> Target | None:
        value: Any = inner.raw(role)
        key, equals, wanted = value.partition("=") if isinstance(value, str) else ("", "", "")
        short = key.strip().removeprefix("io.blackstart.")
        labels = ("node",) if kind is TargetKind.NODE else _LABELS
        if not equals or short not in labels or not wanted.strip():
            inner.refuse(role, f"label is {shown(value)}", f"KEY=VALUE with KEY one of {', '.join(labels)}")
            return None
        known = {"node": self._nodes, "group": self._groups, "resource": self._machines}.get(short)
        if self._checked and known is not None and wanted.strip() not in known:
            inner.refuse(role, f"the rig has no {short} {wanted.strip()!r}", nearest(wanted.strip(), known))
        return ByLabel(key=short, value=wanted.strip())

    def _expected(self, kind: TargetKind) -> str:
        roles = "{node: NAME}, {owner-of: GROUP} or a bystander" if kind is TargetKind.NODE else "{machine: NAME}"
        return f"a {kind}, such as {roles}"
