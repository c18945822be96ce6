"""`wait`, for scripts: exit code 0 when it holds, 1 when the time is up. And `quorum`."""

import contextlib
from typing import TYPE_CHECKING

import click

from chaos.cli.rig_commands import as_json, rig_name
from chaos.cli.wait_for_effect import ExpectedOutcome, effect_on_group, effect_on_node, time_limit, wait_for
from chaos.output.printing import echo

if TYPE_CHECKING:
    from harness.rig.lifecycle.rig import Rig

__all__ = ["quorum", "wait"]


@click.group()
def wait() -> None:
    """Wait until something holds; exit code 1 when the time is up."""


@wait.command("all-online", epilog="\b\nExample:\n  blackstart wait all-online --timeout 30 && echo ready")
@rig_name
@time_limit
@as_json
def all_online(name: str, limit_s: float, json_wanted: bool) -> None:
    """Until every resource that is wanted Online is, wherever. Nodes that are off do not matter."""
    from harness.rig.cluster import conditions
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        effect = ExpectedOutcome(
            waited_for="everything that is wanted to be Online",
            missing=conditions.all_online,
            record=lambda standing: standing,
            sentence=lambda standing: f"everything that is wanted of rig {standing.rig} is Online",
        )
        _wait(rig, effect, limit_s, json_wanted)


@wait.command("node-up", epilog="\b\nExample:\n  blackstart wait node-up node2 --timeout 30")
@click.argument("node_name", metavar="NODE")
@rig_name
@time_limit
@as_json
def node_up(node_name: str, name: str, limit_s: float, json_wanted: bool) -> None:
    """Until a node has its power and is a member of the cluster; Paused is up."""
    from harness.rig.cluster import conditions
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        effect = effect_on_node(node_name, f"{node_name} to be up", conditions.node_up(node_name))
        _wait(rig, effect, limit_s, json_wanted)


@wait.command("group-online", epilog="\b\nExample:\n  blackstart wait group-online web1 --timeout 30")
@click.argument("group_name", metavar="GROUP")
@rig_name
@time_limit
@as_json
def group_online(group_name: str, name: str, limit_s: float, json_wanted: bool) -> None:
    """Until every resource of a group is Online."""
    from harness.model.states import GroupState
    from harness.rig.cluster import conditions
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        online = conditions.group_is(group_name, GroupState.ONLINE)
        effect = effect_on_group(group_name, f"group {group_name} to be Online", online)
        _wait(rig, effect, limit_s, json_wanted)


def _wait(rig: "Rig", effect: ExpectedOutcome, limit_s: float, json_wanted: bool) -> None:
    from chaos.cli.output import Progress, print_json

    standing = wait_for(rig, effect, limit_s=limit_s, say=Progress())
    if json_wanted:
        print_json(effect.record(standing))
    else:
        echo(effect.sentence(standing))


@click.command(epilog="\b\nExample:\n  blackstart quorum --json | jq '.quorum'")
@rig_name
@as_json
def quorum(name: str, json_wanted: bool) -> None:
    """The votes of the cluster, as a node with quorum knows them, and whether each node holds its lease."""
    from chaos.cli.output import print_json, print_table
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        answer = rig.look("quorum")
        standing = rig.standing()
    told = dict(answer.get("result", {}))
    held = {node.name: node.quorum for node in standing.nodes}
    if json_wanted:
        print_json({**told, "leases": held})
        return
    echo(f"{answer.get('message', '')}\n")
    rows = [
        (
            node.name,
            "yes" if node.name in told.get("voters", ()) else "no",
            str(node.power),
            {True: "yes", False: "no", None: "?"}[node.quorum],
        )
        for node in standing.nodes
    ]
    others = [voter for voter in told.get("voters", ()) if voter not in held]
    rows += [(voter, "yes", "", "no node") for voter in others]
    print_table(("voter or node", "vote", "power", "holds its lease"), rows, empty="no nodes")
    votes = len(told.get("voters", ()))
    echo(f"\nvotes: {votes}, majority: {told.get('majority')}, voter set: version {told.get('version')}")
