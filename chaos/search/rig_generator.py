"""What a search draws for each run, swarm style: another rig, and another part of the faults that there are.

Small rigs, because what breaks a large cluster breaks a small one sooner, and many of them fit into a minute.
"""

import random
from collections.abc import Mapping
from typing import Any

from harness.cluster_service.membership.sharding import WATCHERS_PER_SHARD

__all__ = ["FAILOVERS_ENOUGH", "draw_rig"]

SIZES = ((2, True), (3, False), (3, False), (3, False), (4, True), (5, False))
"""Nodes, and whether a witness votes: what people have, three nodes most of all."""
MAX_GROUPS = 6
FAILOVERS_ENOUGH = 100
"""A failover-threshold that nothing in a schedule uses up."""
SELF_FENCING = 0.2
MIN_VOTES = 3
FEWER_VOTES = 0.3
"""How many of the larger rigs have nodes without a vote."""
BY_CIRCLE = 0.5
"""How many of the rigs with more nodes than watch a circle divide the watch, as large clusters do."""
OF_A_POLICY = 0.5
"""How many rigs have policies that differ from the usual ones, group by group; in the others whatever can be recovered
is, so that rest means that everything runs.
"""


def draw_rig(rng: random.Random) -> Mapping[str, Any]:
    """A rig's document, as `harness.document.topology` reads it."""
    nodes, witness = rng.choice(SIZES)
    names = [f"node{number}" for number in range(1, nodes + 1)]
    rig: dict[str, Any] = {
        "nodes": nodes,
        "witness": witness,
        "settings": {
            "fencing": "self" if rng.random() < SELF_FENCING else "power",
            "everyone-watches-up-to": 1 if nodes > WATCHERS_PER_SHARD and rng.random() < BY_CIRCLE else nodes,
        },
    }
    if nodes > MIN_VOTES and not witness and rng.random() < FEWER_VOTES:
        rig["voters"] = MIN_VOTES
    draw = _with_policies if rng.random() < OF_A_POLICY else _group
    rig["groups"] = [draw(rng, number, names) for number in range(1, rng.randint(2, MAX_GROUPS) + 1)]
    return rig


def _group(rng: random.Random, number: int, nodes: list[str]) -> dict[str, Any]:
    name = f"web{number}"
    group: dict[str, Any] = {"name": name, "failover-threshold": FAILOVERS_ENOUGH}
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


def _with_policies(rng: random.Random, number: int, nodes: list[str]) -> dict[str, Any]:
    """A group, and some of what its owner may have said of it."""
    group = _group(rng, number, nodes)
    address, vm = group["resources"]

    def perhaps(probability: float, of: dict[str, Any], **said: Any) -> None:
        if rng.random() < probability:
            of.update({key.replace("_", "-"): value for key, value in said.items()})

    perhaps(0.5, group, failover_threshold=rng.randint(0, len(nodes)))
    perhaps(0.3, group, failover_period="10s")
    perhaps(0.3, group, possible_owners=rng.sample(nodes, rng.randint(1, len(nodes))))
    perhaps(0.3, group, failback="allow")
    perhaps(0.3, group, priority=rng.choice(("high", "low", "no-auto-start")))
    perhaps(0.2, vm, restart_action=rng.choice(("none", "restart")))
    perhaps(0.3, vm, restart_delay=rng.choice(("500ms", "2s")))
    perhaps(0.3, vm, restart_period="10s")
    perhaps(0.2, vm, retry_period_on_failure="10s")
    if "possible-owners" in group and "preferred-owners" in group:
        group["preferred-owners"] = [name for name in group["preferred-owners"] if name in group["possible-owners"]]
    name = group["name"]
    if rng.random() < 0.2:
        group["resources"].insert(1, {**address, "name": f"{name}-ip-b"})
        vm["depends-on"] = f"[{name}-ip] or [{name}-ip-b]"
    if rng.random() < 0.2:
        group["resources"].append(
            {"name": f"{name}-vm-b", "type": "virtual-machine", "depends-on": [f"{name}-vm"]}
        )
    return group
