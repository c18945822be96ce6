"""What a search draws for each run, swarm style: another rig, and another part of the faults that there are.

Small rigs, because what breaks a large cluster breaks a small one sooner, and many of them fit into a minute.
"""

import random
from collections.abc import Mapping
from typing import Any

from harness.cluster_service.circles import WATCHERS

__all__ = ["draw_rig"]

SIZES = ((2, True), (3, False), (3, False), (3, False), (4, True), (5, False))
"""Nodes, and whether a witness votes: what people have, three nodes most of all."""
GROUPS_MOST = 6
SELF_FENCING = 0.2
BY_CIRCLE = 0.5
"""How many of the rigs with more nodes than watch a circle divide the watch, as large clusters do."""


def draw_rig(rng: random.Random) -> Mapping[str, Any]:
    """A rig's document, as `harness.rig.topology_document` reads it."""
    nodes, witness = rng.choice(SIZES)
    names = [f"node{number}" for number in range(1, nodes + 1)]
    return {
        "nodes": nodes,
        "witness": witness,
        "settings": {
            "fencing": "self" if rng.random() < SELF_FENCING else "power",
            "everyone-watches-up-to": 1 if nodes > WATCHERS and rng.random() < BY_CIRCLE else nodes,
        },
        "groups": [_group(rng, number, names) for number in range(1, rng.randint(2, GROUPS_MOST) + 1)],
    }


def _group(rng: random.Random, number: int, nodes: list[str]) -> Mapping[str, Any]:
    name = f"web{number}"
    group: dict[str, Any] = {"name": name, "failover-threshold": 100}
    if rng.random() < 0.3:
        group["preferred-owners"] = rng.sample(nodes, rng.randint(1, len(nodes)))
    group["resources"] = [
        {"name": f"{name}-ip", "type": "ip-address"},
        {
            "name": f"{name}-vm",
            "type": "virtual-machine",
            "depends-on": [f"{name}-ip"],
            "restart-threshold": rng.choice((0, 1, 1, 3)),
        },
    ]
    return group
