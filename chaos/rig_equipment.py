"""What a rig must have for the faults of an experiment, beyond what every rig has.

A file need not say it: the reader of experiments equips its rig. What the file says itself stays as it is.
"""

from collections.abc import Collection
from dataclasses import replace

from harness.model.topology import Topology

__all__ = ["VOTER_DISK_BYTES", "equipped"]

VOTER_DISK_BYTES = 64 << 20
"""A voter of a small rig writes some mebibytes an hour, and its file is rewritten from one mebibyte on."""


def equipped(topology: Topology, faults: Collection[str]) -> Topology:
    """The rig with voters' disks that can be filled, if one of the faults fills one and they have no size yet."""
    settings = topology.settings
    if "voter.disk-full" in faults and not settings.voter_disk_bytes:
        return replace(topology, settings=replace(settings, voter_disk_bytes=VOTER_DISK_BYTES))
    return topology
