"""How much memory a simulated cluster takes, before one is made."""

from harness.model.topology import Topology

__all__ = ["bytes_needed"]

EMPTY = 45 << 20
EACH_MACHINE = 32 << 10
EACH_MACHINE_ON_EACH_NODE = 1536
"""By measurement (docs/scale.md): every node keeps every group's record."""


def bytes_needed(topology: Topology) -> int:
    """At its peak, about: from its boot through the loss of one node. A process that simulates it needs that much."""
    resources = sum(len(group.resources) for group in topology.groups)
    return EMPTY + resources * (EACH_MACHINE + EACH_MACHINE_ON_EACH_NODE * len(topology.nodes))
