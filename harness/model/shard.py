"""Circles of groups: what the nodes of a large cluster divide the watch over its groups by.

A group's circle follows from its name and never changes. Groups that name nodes, as preferred or possible owners, form
a circle of their own, which everybody watches: whom they name is found in their registers only.
"""

import functools
import zlib

from harness.model.topology import GroupSpec

__all__ = ["CIRCLES", "OF_EVERYBODY", "circle_by_name", "circle_of"]

CIRCLES = 256
OF_EVERYBODY = "*"


@functools.lru_cache(maxsize=1 << 16)
def circle_by_name(group: str) -> str:
    """The circle of a group of that name which names no nodes."""
    return str(zlib.crc32(group.encode()) % CIRCLES)


def circle_of(group: GroupSpec) -> str:
    """The circle of that group."""
    return OF_EVERYBODY if group.preferred_owners or group.possible_owners else circle_by_name(group.name)
