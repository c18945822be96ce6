"""The properties of a virtual-machine resource, which are strings, as a `VmSpec` and a readiness check."""

import json
from collections.abc import Mapping
from typing import Any

from harness.model.disk import DISK_BYTES
from harness.model.topology import ResourceSpec
from harness.model.vm import VmSpec
from harness.model.workload import Readiness, answers_on, readiness
from harness.resource_host.driver import DriverError

__all__ = ["vm_readiness", "vm_spec"]

FIRST_GUEST_UID = 10_000
_KNOWN = frozenset(
    {
        "address",
        "answers-on",
        "command",
        "disk",
        "environment",
        "image",
        "memory",
        "processes",
        "processors",
        "readiness",
        "user",
        "volumes",
        "writable-root",
    }
)


def vm_spec(resource: ResourceSpec, *, group: str) -> VmSpec:
    """What the VM's container is made from. Raises DriverError naming the property that is missing or wrong."""
    given = resource.properties
    unknown = sorted(given.keys() - _KNOWN)
    if unknown:
        raise DriverError(
            f"{resource.name}: no such property: {', '.join(unknown)}; there are: {', '.join(sorted(_KNOWN))}"
        )
    if not given.get("image"):
        raise DriverError(f"{resource.name}: the property image is missing")
    user = _number(resource, "user", default=FIRST_GUEST_UID)
    if user < FIRST_GUEST_UID:
        raise DriverError(
            f"{resource.name}: user {user}: guests run as {FIRST_GUEST_UID} or above, the node's own processes below"
        )
    return VmSpec(
        name=resource.name,
        group=group,
        image=given["image"],
        address=given.get("address") or None,
        user=user,
        command=_command(resource),
        environment=_texts(resource, "environment"),
        volumes=_texts(resource, "volumes"),
        memory_bytes=_number(resource, "memory", default=128 << 20),
        disk_bytes=_number(resource, "disk", default=DISK_BYTES),
        writable_root=given.get("writable-root") == "true",
        processes=_number(resource, "processes", default=64),
        processors_milli=_number(resource, "processors", default=1000),
    )


def vm_readiness(resource: ResourceSpec) -> Readiness | None:
    """How it is asked whether the VM is ready; None when running is all there is. Raises DriverError."""
    try:
        answers_on(resource.properties)
        check = readiness(resource.properties)
    except ValueError as error:
        raise DriverError(f"{resource.name}: readiness or answers-on is not usable: {error}") from error
    if check is not None and check.endpoint and not resource.properties.get("address"):
        raise DriverError(f"{resource.name}: readiness asks {check.endpoint}, and the VM has no address")
    return check


def _number(resource: ResourceSpec, name: str, *, default: int) -> int:
    text = resource.properties.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()):
        raise DriverError(f"{resource.name}: {name} is {text!r}, a decimal number is expected")
    return int(text)


def _command(resource: ResourceSpec) -> tuple[str, ...]:
    value = _json(resource, "command", default=[])
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise DriverError(f"{resource.name}: command must be a JSON list of strings")
    return tuple(value)


def _texts(resource: ResourceSpec, name: str) -> Mapping[str, str]:
    value = _json(resource, name, default={})
    if not isinstance(value, dict) or not all(isinstance(entry, str) for entry in value.values()):
        raise DriverError(f"{resource.name}: {name} must be a JSON object of strings")
    return value


def _json(resource: ResourceSpec, name: str, *, default: Any) -> Any:
    text = resource.properties.get(name, "")
    if not text:
        return default
    try:
        return json.loads(text)
    except ValueError as error:
        raise DriverError(f"{resource.name}: {name} is not JSON: {error}") from error
