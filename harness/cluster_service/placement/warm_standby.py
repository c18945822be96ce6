"""Which groups of others a node stands ready for: opened, their containers made, so that taking one over is quicker.

In a small cluster all of them. A large one would keep nodes x VMs stopped containers for the few that ever move,
so there each node stands ready for some, others for others, and what it takes over beside them is opened then.
"""

import zlib

__all__ = ["MAX_READINESS_FAILURES", "stands_ready"]

MAX_READINESS_FAILURES = 64
"""Groups that one node stands ready for, on average, in a cluster that has more."""
WHOLE = 1 << 32


def stands_ready(node: str, group: str, groups: int) -> bool:
    """Whether that node stands ready for that group; `groups` is how many it knows."""
    if groups <= MAX_READINESS_FAILURES:
        return True
    return zlib.crc32(f"{node}/{group}".encode()) * groups < MAX_READINESS_FAILURES * WHOLE
