"""The cluster manager's actions on nodes, and their power switches: `node`."""

import contextlib
from typing import TYPE_CHECKING

import click

from chaos.cli.rig_commands import as_json, rig_name
from chaos.cli.signals import held
from chaos.cli.wait_for_effect import RequestOptions, carry_out, effect_on_node, wait_for, waits
from chaos.output.printing import echo

if TYPE_CHECKING:
    from harness.rig.cluster.status import Condition

__all__ = ["node"]

_node_name = click.argument("node_name", metavar="NODE")


@click.group()
def node() -> None:
    """Nodes of the cluster."""


@node.command("list", epilog="\b\nExample:\n  blackstart node list --json")
@rig_name
@as_json
def list_nodes(name: str, json_wanted: bool) -> None:
    """Every node: its power as the engine sees it, its state as the cluster sees it."""
    from chaos.cli.output import print_json, print_table
    from chaos.cli.status_tables import node_rows
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        standing = rig.standing()
    if json_wanted:
        print_json(standing.nodes)
    else:
        print_table(*node_rows(standing.nodes), empty="the rig has no nodes")


@node.command("show", epilog="\b\nExample:\n  blackstart node show node2")
@_node_name
@rig_name
@as_json
def show_node(node_name: str, name: str, json_wanted: bool) -> None:
    """One node: power, state, drain, and the groups that it owns."""
    import dataclasses

    from chaos.cli.output import print_json, print_table
    from chaos.cli.status_tables import group_rows, node_rows, node_told
    from harness.rig.cluster.conditions import find_node
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        standing = rig.standing()
    found = find_node(standing, node_name)
    groups = [group for group in standing.groups if group.owner == node_name]
    if json_wanted:
        print_json({**dataclasses.asdict(found), "groups": [group.name for group in groups]})
        return
    echo(f"{node_told(found)}\n")
    print_table(*node_rows([found]), empty="")
    echo()
    print_table(*group_rows(groups), empty="it owns no groups")


@node.command(
    "pause",
    epilog="\b\nExamples:\n  blackstart node pause node2             nothing more comes to it\n"
    "  blackstart node pause node2 --drain     and what it has moves away",
)
@_node_name
@click.option("--drain", is_flag=True, help="Move away what runs there, one group after the other.")
@rig_name
@waits
def pause(node_name: str, drain: bool, name: str, wish: RequestOptions) -> int:
    """Let nothing move to a node, and nothing go online there. What runs there stays, unless it is drained.

    A drain that leaves something behind ends with exit code 1.
    """
    from harness.rig.cluster.conditions import PAUSED, node_drained, node_is

    missing = node_drained(node_name) if drain else node_is(node_name, PAUSED)
    told = f"{node_name} to be {'drained' if drain else 'Paused'}"
    return _request(name, node_name, "pause", {"drain": drain}, told, missing, wish)


@node.command(
    "resume",
    epilog="\b\nExamples:\n  blackstart node resume node2\n"
    "  blackstart node resume node2 --failback immediate     and what was drained comes back at once",
)
@_node_name
@click.option(
    "--failback",
    type=click.Choice(["none", "immediate", "policy"]),
    default="policy",
    show_default=True,
    help="What comes back of what was drained: nothing, all at once, or what the groups' policies say.",
)
@rig_name
@waits
def resume(node_name: str, failback: str, name: str, wish: RequestOptions) -> int:
    """Let a paused node take part again."""
    from harness.rig.cluster.conditions import UP, node_is

    told = f"{node_name} to be Up"
    return _request(name, node_name, "resume", {"failback": failback}, told, node_is(node_name, UP), wish)


@node.command("power-off", epilog="\b\nExample:\n  blackstart node power-off node2")
@_node_name
@rig_name
@as_json
def power_off(node_name: str, name: str, json_wanted: bool) -> None:
    """Cut a node's power: its VMs die with it, and it stays off until `node power-on`.

    Past the cluster, which has to notice by itself. Returns when the engine reports nothing of the node running.
    """
    from chaos.cli.output import Progress, print_json
    from harness.rig.lifecycle.rig import Rig

    say = Progress()
    with contextlib.closing(Rig.find(name)) as rig:
        with held(f"the power of {node_name} is being cut, to the end"):
            rig.power_off(node_name)
        power = rig.powers()[node_name]
    say(f"the power of {node_name} is {power}; `blackstart node power-on {node_name} --name {name}` gives it back")
    if json_wanted:
        print_json({"node": node_name, "power": power})


@node.command("power-on", epilog="\b\nExample:\n  blackstart node power-on node2 --timeout 30")
@_node_name
@rig_name
@waits
def power_on(node_name: str, name: str, wish: RequestOptions) -> None:
    """Give a node its power back, and wait until the cluster counts it as a member again."""
    from chaos.cli.output import Progress, print_json
    from harness.rig.cluster.conditions import node_up
    from harness.rig.lifecycle.rig import Rig

    say = Progress()
    effect = effect_on_node(node_name, f"{node_name} to be up", node_up(node_name))
    with contextlib.closing(Rig.find(name)) as rig:
        with held(f"the power of {node_name} is being given back, to the end"):
            rig.power_on(node_name)
        say(f"{node_name} has its power back")
        standing = wait_for(rig, effect, limit_s=wish.limit_s, say=say) if wish.wait else rig.standing()
    if wish.json_wanted:
        print_json(effect.record(standing))
    else:
        echo(effect.sentence(standing))


def _request(
    name: str,
    node_name: str,
    verb: str,
    arguments: dict[str, str | bool],
    told: str,
    missing: "Condition",
    wish: RequestOptions,
) -> int:
    """The exit code: 1 when a drain has failed."""
    from harness.model.states import DrainState
    from harness.rig.cluster.conditions import find_node
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        find_node(rig.standing(), node_name)
        effect = effect_on_node(node_name, told, missing)
        standing = carry_out(rig, f"nodes/{node_name}/{verb}", arguments, effect, wish)
    drained = arguments.get("drain") and standing is not None
    if drained and standing is not None and find_node(standing, node_name).drain == DrainState.FAILED:
        left = ", ".join(group.name for group in standing.groups if group.owner == node_name)
        echo(f"blackstart: the drain of {node_name} has failed; still there: {left or 'nothing'}", err=True)
        return 1
    return 0
