"""The disks of a VM: which it has, how large each is, and the volume of the engine that stands for one.

Each disk is a volume in memory with a size that the kernel enforces. A directory on the engine's disk has no limit, and
one guest that filled it ended every voter of the rig, whose files are there. docs/design/0011-limits-of-guests.md.
"""

import json
from collections.abc import Mapping

__all__ = ["DISK_BYTES", "OWN_DISK", "disk_bytes", "disk_names", "disk_volume"]

DISK_BYTES = 64 << 20
"""The size of each disk by default. The guest's own program keeps at most 48 MiB on one."""
OWN_DISK = "disk"
"""The disk that every VM has, and sees as /disk."""


def disk_bytes(properties: Mapping[str, str]) -> int:
    """The size of each disk of a VM with these properties. Raises ValueError for a text that is no number."""
    return int(properties.get("disk") or DISK_BYTES)


def disk_names(properties: Mapping[str, str]) -> tuple[str, ...]:
    """The VM's own disk, then its further ones, as paths below the VM's place on the shared volume."""
    return (OWN_DISK, *(f"volumes/{name}" for name in json.loads(properties.get("volumes") or "{}")))


def disk_volume(rig: str, vm: str, disk: str) -> str:
    """The name of the engine's volume that is this disk, given by its name or path. No VM or volume has a dot in
    its name, and no further disk of a VM is called like its own.
    """
    further = disk.removeprefix("volumes/") if disk != OWN_DISK else ""
    return f"{rig}_disk-{vm}" + (f".{further}" if further else "")
