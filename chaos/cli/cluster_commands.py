"""The cluster manager's and the hypervisor manager's lists: `group`, `node` and `vm`.

Groups and nodes are what the cluster says of itself; machines are what the engine says, whatever the cluster believes.
"""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from chaos.cli.rig_commands import as_json, rig_name

if TYPE_CHECKING:
    from harness.rig.standing import Standing

__all__ = ["group", "group_rows", "node", "node_rows", "vm"]

Rows = tuple[Sequence[str], list[Sequence[str]]]


@click.group()
def group() -> None:
    """Groups of the cluster."""


@group.command("list", epilog="\b\nExample:\n  blackstart group list --json")
@rig_name
@as_json
def list_groups(name: str, json_wanted: bool) -> None:
    """Every group: owner, epoch, state, and its resources."""
    from chaos.cli.output import print_json, print_table
    from harness.rig.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        standing = rig.standing()
    if json_wanted:
        print_json(standing.groups)
    else:
        print_table(*group_rows(standing), empty="the rig has no groups")


@click.group()
def node() -> None:
    """Nodes of the cluster."""


@node.command("list", epilog="\b\nExample:\n  blackstart node list --json")
@rig_name
@as_json
def list_nodes(name: str, json_wanted: bool) -> None:
    """Every node: its power as the engine sees it, its state as the cluster sees it."""
    from chaos.cli.output import print_json, print_table
    from harness.rig.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        standing = rig.standing()
    if json_wanted:
        print_json(standing.nodes)
    else:
        print_table(*node_rows(standing), empty="the rig has no nodes")


@click.group()
def vm() -> None:
    """Machines as the engine sees them."""


@vm.command("list", epilog="\b\nExamples:\n  blackstart vm list --node node2\n  blackstart vm list --json")
@rig_name
@click.option("--node", "only", help="Only the machines on this node.")
@click.option("--all", "every", is_flag=True, help="Those too that a node only holds ready for a failover.")
@as_json
def list_machines(name: str, only: str | None, every: bool, json_wanted: bool) -> None:
    """The machines' containers by node, running or ended.

    Each possible owner holds a container ready for each machine; those that never ran are left out unless --all.
    """
    from chaos.cli.output import coloured, print_json, print_table
    from harness.errors import UsageError
    from harness.rig.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        names = [known.name for known in rig.topology.nodes]
        if only is not None and only not in names:
            raise UsageError(f"rig {name} has no node {only!r}, expected one of {', '.join(names)}")
        machines = [
            machine
            for machine in rig.machines()
            if only in (None, machine.node) and (every or machine.state != "created")
        ]
    if json_wanted:
        print_json(machines)
        return
    rows = [
        (machine.node, machine.name, machine.group, coloured(machine.state), machine.status, machine.container[:12])
        for machine in machines
    ]
    print_table(("node", "machine", "group", "state", "since", "container"), rows, empty="no machines")


def node_rows(standing: "Standing") -> Rows:
    """The headings and rows of the table of nodes."""
    from chaos.cli.output import coloured

    rows: list[Sequence[str]] = [
        (
            node.name,
            node.address,
            coloured(node.power),
            coloured(node.state),
            {True: "yes", False: "no", None: "?"}[node.quorum],
            "voter" if node.voter else "",
            node.session.partition("@")[2].partition("/")[0],
        )
        for node in standing.nodes
    ]
    return ("node", "address", "power", "state", "quorum", "", "session"), rows


def voter_rows(standing: "Standing") -> Rows:
    """The voters as a table."""
    rows: list[Sequence[str]] = [
        (voter.name, voter.role, "counts" if voter.member else "does not count", voter.state, voter.why)
        for voter in standing.voters
    ]
    return ("voter", "", "", "state", "why"), rows


def group_rows(standing: "Standing") -> Rows:
    """The headings and rows of the table of groups; a resource that is not wanted online is marked."""
    from chaos.cli.output import coloured

    rows: list[Sequence[str]] = [
        (
            group.name,
            group.owner or "-",
            str(group.epoch),
            coloured(group.state),
            ", ".join(
                f"{resource.name} {coloured(resource.state)}{' (not wanted)' if resource.persistent_state == 0 else ''}"
                for resource in group.resources
            ),
        )
        for group in standing.groups
    ]
    return ("group", "owner", "epoch", "state", "resources"), rows
