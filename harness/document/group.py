"""The `groups` of a rig's document: what a person writes about groups and resources, as records.

What a driver reads are its resource's properties, all texts:

    ip-address        address
    virtual-machine   those of `vm_document`; user (its uid, no two VMs share one); address, if it depends on
                      an ip-address

Addresses that the document leaves out are given in order, so that the same document always makes the same rig.
"""

import dataclasses
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from harness.document.address_plan import MAX_VMS, reserved_for_vms, vm_address
from harness.document.dependency import DEPENDENCY_FORM, Clauses, circle, parse_dependency
from harness.document.mapping_reader import MappingReader
from harness.document.refusals import nearest, shown
from harness.document.vm import FIRST_USER, LAST_USER, read_vm
from harness.model.topology import (
    SECOND_US,
    GroupSpec,
    ResourcePolicy,
    ResourceSpec,
)
from harness.model.workload import GUEST_IMAGE

__all__ = ["DEFAULT_GROUPS", "default_groups", "read_groups"]

DEFAULT_GROUPS = 6

MAX_RESTARTS = 50
"""A group's register remembers 64 restarts; a threshold beyond that could never be reached."""

_HOUR_US = 3600 * SECOND_US


@dataclass(slots=True, kw_only=True)
class _Draft:
    """A resource whose dependencies and address are not settled yet."""

    section: MappingReader
    name: str
    type: str
    clauses: Clauses
    policy: ResourcePolicy
    properties: dict[str, str] = field(default_factory=dict)


def default_groups(count: int, subnet: str) -> tuple[GroupSpec, ...]:
    """`count` groups web1, web2 ..., each an address and a VM that answers there."""
    return tuple(_default_group(index, vm_address(subnet, index)) for index in range(count))


def read_groups(section: MappingReader, *, nodes: Sequence[str], subnet: str) -> tuple[GroupSpec, ...]:
    """The groups of a rig. Refusals go to the section: what is returned counts only if there are none."""
    value = section.raw("groups", DEFAULT_GROUPS)
    if isinstance(value, int) and not isinstance(value, bool):
        return default_groups(section.integer("groups", DEFAULT_GROUPS, low=0, high=MAX_VMS), subnet)
    groups = [_read_group(group, nodes) for group in section.sections("groups", what="a group")]
    drafts = [draft for _, members in groups for draft in members]
    _refuse_repeated(groups, nodes)
    everywhere = {draft.name for draft in drafts}
    for _, members in groups:
        _check_dependencies(members, everywhere)
    _give_addresses(drafts, subnet)
    _give_users([draft for draft in drafts if draft.type == "virtual-machine"])
    return tuple(
        dataclasses.replace(group, resources=tuple(_finished(draft) for draft in members)) for group, members in groups
    )


def _default_group(index: int, address: str) -> GroupSpec:
    name = f"web{index + 1}"
    vm = {"image": GUEST_IMAGE, "user": str(FIRST_USER + index), "address": address}
    return GroupSpec(
        name=name,
        resources=(
            ResourceSpec(name=f"{name}-ip", type="ip-address", properties={"address": address}),
            ResourceSpec(
                name=f"{name}-vm", type="virtual-machine", depends_on=((f"{name}-ip",),), properties=vm
            ),
        ),
    )


def _read_group(section: MappingReader, nodes: Sequence[str]) -> tuple[GroupSpec, list[_Draft]]:
    default = GroupSpec(name="")
    threshold = None
    if "failover-threshold" in section:
        threshold = section.integer("failover-threshold", 0, low=0, high=100)
    group = GroupSpec(
        name=section.name("name"),
        preferred_owners=_owners(section, "preferred-owners", nodes),
        possible_owners=_owners(section, "possible-owners", nodes),
        priority=section.choice("priority", default.priority),
        failover_threshold=threshold,
        failover_period_us=section.duration_us(
            "failover-period", default.failover_period_us, low=SECOND_US, high=720 * _HOUR_US
        ),
        failback=section.choice("failback", default.failback),
        failback_window=_read_window(section),
    )
    drafts = [_read_resource(resource) for resource in section.sections("resources", what="a resource")]
    section.finish()
    section.demand("resources", "a list of at least one resource", bool(drafts))
    barred = set(group.preferred_owners) - set(group.possible_owners)
    if group.possible_owners and barred:
        section.refuse(
            "preferred-owners", f"{', '.join(sorted(barred))} is preferred and not possible", "possible owners only"
        )
    return group, drafts


def _read_window(section: MappingReader) -> tuple[int, int] | None:
    """Two hours of the day, from and up to; None without the key."""
    value = section.raw("failback-window")
    if "failback-window" not in section:
        return None
    hours = value if isinstance(value, list) else []
    if len(hours) == 2 and all(type(hour) is int and 0 <= hour <= 23 for hour in hours) and hours[0] != hours[1]:
        return hours[0], hours[1]
    section.refuse("failback-window", f"failback-window is {shown(value)}", "two hours of the day, such as [22, 6]")
    return None


def _owners(section: MappingReader, key: str, nodes: Sequence[str]) -> tuple[str, ...]:
    names = section.texts(key, what="nodes of the rig")
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name not in nodes:
            section.refuse_item(key, index, f"the rig has no node {shown(name)}", nearest(name, nodes))
        elif name in seen:
            section.refuse_item(key, index, f"{name} is named twice", "each node once")
        seen.add(name)
    return names


def _read_resource(section: MappingReader) -> _Draft:
    name = section.name("name")
    kind = section.text("type", "") if "type" in section else ""
    draft = _Draft(
        section=section, name=name, type=kind, clauses=_read_clauses(section), policy=_read_policy(section)
    )
    reader = _TYPES.get(kind)
    if "type" not in section:
        section.demand("type", f"one of {', '.join(_TYPES)}", False)
    elif reader is None:
        section.raw("type")
        section.refuse("type", f"there is no resource type {shown(kind)}", nearest(kind, _TYPES))
    else:
        reader(draft)
        section.finish()
    return draft


def _read_clauses(section: MappingReader) -> Clauses:
    value = section.raw("depends-on", [])
    if isinstance(value, list):
        return tuple((name,) for name in section.texts("depends-on", what="names of resources"))
    try:
        return parse_dependency(value if isinstance(value, str) else shown(value))
    except ValueError as error:
        section.refuse("depends-on", f"depends-on: {error}", DEPENDENCY_FORM)
        return ()


def _read_policy(section: MappingReader) -> ResourcePolicy:
    default = ResourcePolicy()

    def duration_us(key: str, default_us: int, low: int, high: int) -> int:
        return section.duration_us(key, default_us, low=low, high=high)

    return ResourcePolicy(
        is_alive_interval_us=duration_us("is-alive-interval", default.is_alive_interval_us, 10_000, _HOUR_US),
        looks_alive_interval_us=duration_us(
            "looks-alive-interval", default.looks_alive_interval_us, 10_000, 24 * _HOUR_US
        ),
        pending_timeout_us=duration_us("pending-timeout", default.pending_timeout_us, 100_000, 24 * _HOUR_US),
        deadlock_timeout_us=duration_us("deadlock-timeout", default.deadlock_timeout_us, SECOND_US, 24 * _HOUR_US),
        restart_action=section.choice("restart-action", default.restart_action),
        restart_threshold=section.integer("restart-threshold", default.restart_threshold, low=0, high=MAX_RESTARTS),
        restart_period_us=duration_us("restart-period", default.restart_period_us, SECOND_US, 168 * _HOUR_US),
        restart_delay_us=duration_us("restart-delay", default.restart_delay_us, 0, _HOUR_US),
        retry_period_us=_read_retry_period(section, default.retry_period_us),
        shutdown_action=section.choice("shutdown-action", default.shutdown_action),
        separate_monitor=_separate_monitor(section, default.separate_monitor),
    )


def _read_retry_period(section: MappingReader, default_us: int | None) -> int | None:
    key = "retry-period-on-failure"
    if key in section and section.raw(key) == "never":
        return None
    return section.duration_us(key, default_us or _HOUR_US, low=SECOND_US, high=168 * _HOUR_US)


def _separate_monitor(section: MappingReader, default: bool) -> bool:
    wanted = section.boolean("separate-monitor", default)
    if wanted:
        section.refuse("separate-monitor", "a resource host of its own is not available yet", "false")
    return wanted


def _read_ip_address(draft: _Draft) -> None:
    if "address" in draft.section:
        written = draft.section.raw("address")
        if isinstance(written, bool) or not isinstance(written, str | int):
            draft.section.refuse("address", f"address is {shown(written)}", "an address, or its last number")
        else:
            draft.properties["address"] = str(written)


def _read_virtual_machine(draft: _Draft) -> None:
    draft.properties |= read_vm(draft.section)


_TYPES: dict[str, Callable[[_Draft], None]] = {
    "ip-address": _read_ip_address,
    "virtual-machine": _read_virtual_machine,
}


def _refuse_repeated(groups: Sequence[tuple[GroupSpec, list[_Draft]]], nodes: Sequence[str]) -> None:
    """Resource names are unique in the whole rig: each names a directory of the shared volume and a container."""
    seen_groups: set[str] = set()
    seen_resources: set[str] = set()
    for group, members in groups:
        if group.name and group.name in seen_groups and members:
            members[0].section.refuse_parent("name", f"there is another group {group.name!r}", "names that differ")
        seen_groups.add(group.name)
        for draft in members:
            if draft.name and draft.name in seen_resources:
                draft.section.refuse("name", f"there is another resource {draft.name!r}", "names that differ")
            elif draft.name in nodes:
                draft.section.refuse("name", f"{draft.name!r} is a node's name", "another name: both name containers")
            seen_resources.add(draft.name)


def _check_dependencies(members: Sequence[_Draft], everywhere: Collection[str]) -> None:
    names = {draft.name for draft in members}
    for draft in members:
        for provider in (name for clause in draft.clauses for name in clause):
            if provider in names:
                continue
            word = shown(provider)
            problem = f"{word} is in another group" if provider in everywhere else f"the group has no resource {word}"
            draft.section.refuse("depends-on", f"depends-on: {problem}", nearest(provider, names, but=draft.name))
    found = circle({draft.name: draft.clauses for draft in members})
    if found:
        first = next(draft for draft in members if draft.name == found[0])
        first.section.refuse("depends-on", f"depends-on runs in a circle: {' -> '.join(found)}", "no circle")


def _give_addresses(drafts: Sequence[_Draft], subnet: str) -> None:
    """Written addresses first, then the others in order; then each VM gets that of its first ip-address."""
    taken: set[str] = set()
    addresses = [draft for draft in drafts if draft.type == "ip-address"]
    for draft in addresses:
        if "address" in draft.properties:
            address = _written_address(draft, subnet)
            if address and address in taken:
                draft.section.refuse("address", f"{address} is given to another resource", "an address of its own")
            taken.add(address)
            draft.properties["address"] = address
    free = (address for index in range(MAX_VMS) if (address := vm_address(subnet, index)) not in taken)
    for draft in addresses:
        if "address" not in draft.properties:
            draft.properties["address"] = next(free, "")
            if not draft.properties["address"]:
                draft.section.refuse(None, "the rig has no address left", f"at most {MAX_VMS} ip-addresses")
    by_name = {draft.name: draft.properties["address"] for draft in addresses}
    for draft in (draft for draft in drafts if draft.type == "virtual-machine"):
        providers = (name for clause in draft.clauses for name in clause if name in by_name)
        address = by_name.get(next(providers, ""), "")
        if address:
            draft.properties["address"] = address
        else:
            _refuse_questions(draft)


def _refuse_questions(draft: _Draft) -> None:
    """A VM without an address can be asked nothing over the network."""
    expected = "a depends-on that names an ip-address"
    if "answers-on" in draft.properties:
        draft.section.refuse("answers-on", f"{draft.name} has no address to answer on", expected)
    if "readiness" in draft.properties and json.loads(draft.properties["readiness"])["endpoint"]:
        draft.section.refuse("readiness", f"{draft.name} has no address to be asked on", f"{expected}, or a command")


def _give_users(vms: Sequence[_Draft]) -> None:
    """Written users first, then the others in order: no two VMs of a rig share one."""
    taken: set[str] = set()
    for draft in vms:
        user = draft.properties.get("user", "")
        if user and user in taken:
            draft.section.refuse("user", f"the user {user} is another VM's", "a user of its own")
        taken.add(user)
    free = (str(user) for user in range(FIRST_USER, LAST_USER + 1) if str(user) not in taken)
    for draft in vms:
        if "user" not in draft.properties:
            draft.properties["user"] = next(free, "")
            if not draft.properties["user"]:
                most = LAST_USER + 1 - FIRST_USER
                draft.section.refuse(None, "the rig has no user left for this VM", f"at most {most:,} VMs")


def _written_address(draft: _Draft, subnet: str) -> str:
    written = draft.properties["address"]
    first, last = vm_address(subnet, 0), vm_address(subnet, MAX_VMS - 1)
    short = first.rpartition(".")[2]
    try:
        is_number = written.isascii() and written.isdecimal() and len(written) <= 3
        address = str(IPv4Network(subnet)[int(written)] if is_number else IPv4Address(written))
        if reserved_for_vms(subnet, address):
            return address
        problem = f"{written} lies outside of the VMs' range"
    except (AddressValueError, IndexError):
        problem = f"{shown(written)} is no address"
    draft.section.refuse("address", problem, f"one from {first} to {last}, or its last number, such as {short}")
    return ""


def _finished(draft: _Draft) -> ResourceSpec:
    return ResourceSpec(
        name=draft.name, type=draft.type, depends_on=draft.clauses, properties=draft.properties, policy=draft.policy
    )
