"""The cluster manager's actions on groups and resources: `group` and `resource`."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from chaos.cli.rig_commands import as_json, rig_name
from chaos.cli.wait_for_effect import RequestOptions, carry_out, effect_on_group, effect_on_resource, waits
from chaos.output.printing import echo

if TYPE_CHECKING:
    from harness.model.states import GroupState, ResourceState
    from harness.rig.cluster.status import RigStatus
    from harness.rig.lifecycle.rig import Rig

__all__ = ["group", "resource"]

SEEN_FAILING_S = 2.0
"""How long to look for a restart's first step: it may be over before the first look."""

_group_name = click.argument("group_name", metavar="GROUP")
_resource_name = click.argument("resource_name", metavar="RESOURCE")


@contextlib.contextmanager
def _rig(name: str) -> Iterator["Rig"]:
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        yield rig


@click.group()
def group() -> None:
    """Groups of the cluster: what moves together."""


@group.command("list", epilog="\b\nExample:\n  blackstart group list --json | jq '.[].owner'")
@rig_name
@as_json
def list_groups(name: str, json_wanted: bool) -> None:
    """Every group: owner, epoch, state, and its resources."""
    from chaos.cli.output import print_json, print_table
    from chaos.cli.status_tables import group_rows

    with _rig(name) as rig:
        standing = rig.standing()
    if json_wanted:
        print_json(standing.groups)
    else:
        print_table(*group_rows(standing.groups), empty="the rig has no groups")


@group.command("show", epilog="\b\nExample:\n  blackstart group show web1 --json")
@_group_name
@rig_name
@as_json
def show_group(group_name: str, name: str, json_wanted: bool) -> None:
    """One group: its owner, where it is going, its resources and why they are not Online."""
    from chaos.cli.output import print_json, print_table
    from chaos.cli.status_tables import group_told, resource_rows
    from harness.rig.cluster.conditions import find_group

    with _rig(name) as rig:
        found = find_group(rig.standing(), group_name)
    if json_wanted:
        print_json(found)
        return
    moving = f", moving to {found.moving_to}" if found.moving_to else ""
    echo(f"{group_told(found)}, epoch {found.epoch}{moving}\n")
    print_table(*resource_rows([found]), empty="it has no resources")


@group.command(
    "online", epilog="\b\nExamples:\n  blackstart group online web1\n  blackstart group online web1 --no-wait"
)
@_group_name
@rig_name
@waits
def group_online(group_name: str, name: str, wish: RequestOptions) -> None:
    """Want every resource of a group Online, now and after every failure."""
    from harness.model.states import GroupState

    _set_group(group_name, name, "online", GroupState.ONLINE, wish)


@group.command("offline", epilog="\b\nExample:\n  blackstart group offline web1")
@_group_name
@rig_name
@waits
def group_offline(group_name: str, name: str, wish: RequestOptions) -> None:
    """Want no resource of a group Online: shut down, and left so until somebody wants it Online again."""
    from harness.model.states import GroupState

    _set_group(group_name, name, "offline", GroupState.OFFLINE, wish)


@group.command(
    "move",
    epilog="\b\nExamples:\n  blackstart group move web1 --to node2\n"
    "  blackstart group move web1                 the cluster chooses the node",
)
@_group_name
@click.option("--to", "target", metavar="NODE", help="The new owner; by default the best that there is.")
@rig_name
@waits
def group_move(group_name: str, target: str | None, name: str, wish: RequestOptions) -> None:
    """Take a group offline here and bring it online there.

    Refused when the node cannot take it: Paused, not a possible owner, or down.
    """
    from harness.rig.cluster.conditions import find_group, find_node, group_moved

    with _rig(name) as rig:
        before = rig.standing()
        epoch = find_group(before, group_name).epoch
        if target:
            find_node(before, target)
        waited_for = f"group {group_name} to be moved{f' to {target}' if target else ''}"
        moved = group_moved(group_name, epoch=epoch, target=target or "")
        effect = effect_on_group(group_name, waited_for, moved)
        carry_out(rig, f"groups/{group_name}/move", {"target": target} if target else None, effect, wish)


def _set_group(group_name: str, name: str, verb: str, state: "GroupState", wish: RequestOptions) -> None:
    from harness.rig.cluster.conditions import find_group, group_is

    with _rig(name) as rig:
        find_group(rig.standing(), group_name)
        effect = effect_on_group(group_name, f"group {group_name} to be {state}", group_is(group_name, state))
        carry_out(rig, f"groups/{group_name}/{verb}", None, effect, wish)


@click.group()
def resource() -> None:
    """Resources of the groups: VMs, addresses."""


@resource.command(
    "list", epilog="\b\nExample:\n  blackstart resource list --json | jq '.[] | select(.state != \"Online\")'"
)
@rig_name
@as_json
def list_resources(name: str, json_wanted: bool) -> None:
    """Every resource: its group, its state, whether it is wanted Online, and why it is not."""
    import dataclasses

    from chaos.cli.output import print_json, print_table
    from chaos.cli.status_tables import resource_rows

    with _rig(name) as rig:
        groups = rig.standing().groups
    if json_wanted:
        print_json(
            [
                {**dataclasses.asdict(entry), "group": found.name, "owner": found.owner}
                for found in groups
                for entry in found.resources
            ]
        )
    else:
        print_table(*resource_rows(groups), empty="the rig has no resources")


@resource.command("show", epilog="\b\nExample:\n  blackstart resource show web1-vm --json")
@_resource_name
@rig_name
@as_json
def show_resource(resource_name: str, name: str, json_wanted: bool) -> None:
    """One resource: its state, whether it is wanted Online, and why it is not."""
    from chaos.cli.output import print_json
    from chaos.cli.status_tables import resource_told
    from harness.rig.cluster.conditions import find_resource

    with _rig(name) as rig:
        found, entry = find_resource(rig.standing(), resource_name)
    if json_wanted:
        print_json(entry)
    else:
        echo(resource_told(found, entry))


@resource.command("online", epilog="\b\nExample:\n  blackstart resource online web1-vm")
@_resource_name
@rig_name
@waits
def resource_online(resource_name: str, name: str, wish: RequestOptions) -> None:
    """Want a resource Online, and what it depends on."""
    from harness.model.states import ResourceState

    _set_resource(resource_name, name, "online", ResourceState.ONLINE, wish)


@resource.command("offline", epilog="\b\nExample:\n  blackstart resource offline web1-vm --timeout 20")
@_resource_name
@rig_name
@waits
def resource_offline(resource_name: str, name: str, wish: RequestOptions) -> None:
    """Want a resource Offline, and what depends on it."""
    from harness.model.states import ResourceState

    _set_resource(resource_name, name, "offline", ResourceState.OFFLINE, wish)


@resource.command("fail", epilog="\b\nExample:\n  blackstart resource fail web1-vm      its restart policy runs")
@_resource_name
@rig_name
@waits
def resource_fail(resource_name: str, name: str, wish: RequestOptions) -> None:
    """Make a resource fail, as a test: it must be Online, and its real policy runs.

    Waits until it is Online again, here or on another node; one that is not restarted ends this with exit code 1.
    """
    import time

    from harness.model.states import ResourceState
    from harness.rig.cluster.conditions import find_resource, resource_is

    again = resource_is(resource_name, ResourceState.ONLINE)
    failing: list[float] = []

    def missing(standing: "RigStatus") -> str:
        lacks = again(standing)
        _, entry = find_resource(standing, resource_name)
        if not failing:
            failing.append(time.monotonic() + SEEN_FAILING_S)
        if entry.state != ResourceState.ONLINE:
            failing[0] = 0.0
        return lacks or ("" if time.monotonic() > failing[0] else f"{resource_name} to fail")

    with _rig(name) as rig:
        find_resource(rig.standing(), resource_name)
        effect = effect_on_resource(resource_name, f"{resource_name} to be Online again", missing)
        carry_out(rig, f"resources/{resource_name}/fail", None, effect, wish)


def _set_resource(resource_name: str, name: str, verb: str, state: "ResourceState", wish: RequestOptions) -> None:
    from harness.rig.cluster.conditions import find_resource, resource_is

    with _rig(name) as rig:
        find_resource(rig.standing(), resource_name)
        waited_for = f"resource {resource_name} to be {state}"
        effect = effect_on_resource(resource_name, waited_for, resource_is(resource_name, state))
        carry_out(rig, f"resources/{resource_name}/{verb}", None, effect, wish)
