"""How much memory a simulated cluster takes, before one is made."""

from harness.cluster_service.membership.sharding import WATCHERS_PER_SHARD
from harness.model.topology import Topology

__all__ = ["bytes_needed"]

EMPTY = 45 << 20
EACH_VM = 46 << 10
EACH_COPY = 1536
"""By measurement (docs/scale.md). Copies of a group's record are kept by its owner and by those who watch it."""


def bytes_needed(topology: Topology) -> int:
    """At its peak, about: from its boot through the loss of one node. A process that simulates it needs that much."""
    resources = sum(len(group.resources) for group in topology.groups)
    nodes = len(topology.nodes)
    copies = nodes if nodes <= topology.settings.everyone_watches_up_to else WATCHERS_PER_SHARD + 1
    return EMPTY + resources * (EACH_VM + EACH_COPY * copies)
