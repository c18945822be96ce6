"""Circles of groups: what the nodes of a large cluster divide the watch over its groups by.

A group's circle follows from its name and never changes. Groups that name nodes, as preferred or possible owners, form
a circle of their own, which everybody watches: whom they name is found in their registers only.
"""

import functools
import zlib

from harness.model.topology import GroupSpec

__all__ = ["SHARDS", "UNSHARDED", "shard_by_name", "shard_of"]

SHARDS = 256
UNSHARDED = "*"


@functools.lru_cache(maxsize=1 << 16)
def shard_by_name(group: str) -> str:
    """The circle of a group of that name which names no nodes."""
    return str(zlib.crc32(group.encode()) % SHARDS)


def shard_of(group: GroupSpec) -> str:
    """The circle of that group."""
    return UNSHARDED if group.preferred_owners or group.possible_owners else shard_by_name(group.name)
