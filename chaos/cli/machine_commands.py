"""The hypervisor manager's actions, `vm`: a node's machines as its engine sees them, whatever the cluster believes."""

import contextlib
import time
from typing import TYPE_CHECKING

import click

from chaos.cli.log_commands import follow, print_log, since, tail
from chaos.cli.rig_commands import as_json, rig_name
from chaos.cli.signals import held
from chaos.cli.wait_for_effect import Wish, effect_on_resource, wait_for, waits
from chaos.output.printing import echo

if TYPE_CHECKING:
    from harness.model.states import ResourceState
    from harness.rig.lifecycle.rig import Machine, Rig

__all__ = ["vm"]

LOOK_INTERVAL_S = 0.02

_place = click.argument("place", metavar="NODE/VM")


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
    from chaos.cli.output import print_json
    from harness.errors import UsageError
    from harness.rig.lifecycle.rig import Rig

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
    else:
        _print_machines(machines)


@vm.command("show", epilog="\b\nExample:\n  blackstart vm show web1-vm")
@click.argument("machine_name", metavar="VM")
@rig_name
@as_json
def show_machine(machine_name: str, name: str, json_wanted: bool) -> None:
    """All containers of one machine, on every node: the one that runs, and those that stand ready."""
    from chaos.cli.output import print_json
    from harness.rig.lifecycle.machine_switch import machines_named
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        found = machines_named(rig, machine_name)
    if json_wanted:
        print_json(found)
    else:
        _print_machines(found)


@vm.command(
    "start",
    epilog="\b\nExamples:\n  blackstart vm start node1/web1-vm     on the owner: wanted Online again\n"
    "  blackstart vm start node2/web1-vm     elsewhere: the cluster ends it at once",
)
@_place
@rig_name
@waits
def start(place: str, name: str, wish: Wish) -> None:
    """Start a machine on a node, behind the cluster's back.

    On the node that owns the machine's group this counts as an administrator's wish: PersistentState 1. Anywhere else
    the cluster ends the machine at once; then the exit code is 1.
    """
    from chaos.cli.output import Progress
    from harness.model.states import ResourceState
    from harness.rig.cluster.conditions import find_resource
    from harness.rig.lifecycle.machine_switch import find_machine, start_machine
    from harness.rig.lifecycle.rig import Rig

    say = Progress()
    with contextlib.closing(Rig.find(name)) as rig:
        machine = find_machine(rig, place)
        group, _ = find_resource(rig.standing(), machine.name)
        began = time.monotonic()
        with held(f"the engine is starting {machine.name}, to the end"):
            start_machine(rig, machine)
        say(f"the engine has started {machine.name} on {machine.node}")
        if wish.wait and group.owner != machine.node:
            _wait_for_its_end(rig, machine, group.owner, began, wish.limit_s)
        _tell(rig, machine, ResourceState.ONLINE, wish)


@vm.command("stop", epilog="\b\nExample:\n  blackstart vm stop node1/web1-vm")
@_place
@rig_name
@waits
def stop(place: str, name: str, wish: Wish) -> None:
    """Stop a machine on a node with the engine's own tool, behind the cluster's back.

    The cluster takes that for an administrator's wish: PersistentState 0, Offline, and it is not started again before
    somebody wants it Online.
    """
    from chaos.cli.output import Progress
    from harness.errors import UsageError
    from harness.model.states import ResourceState
    from harness.rig.lifecycle.machine_switch import find_machine, stop_machine
    from harness.rig.lifecycle.rig import Rig

    say = Progress()
    with contextlib.closing(Rig.find(name)) as rig:
        machine = find_machine(rig, place)
        if machine.state not in ("running", "paused"):
            raise UsageError(f"{machine.name} does not run on {machine.node}: the engine says {machine.state}")
        with held(f"the engine is stopping {machine.name}, to the end"):
            stop_machine(rig, machine)
        say(f"the engine has stopped {machine.name} on {machine.node}")
        _tell(rig, machine, ResourceState.OFFLINE, wish)


@vm.command("logs", epilog="\b\nExamples:\n  blackstart vm logs web1-vm --tail 20\n  blackstart vm logs node2/web1-vm")
@click.argument("target", metavar="VM|NODE/VM")
@rig_name
@follow
@since
@tail
def machine_logs(target: str, name: str, follow_wanted: bool, since_ns: int, lines: int | None) -> None:
    """What a machine writes, from the engine."""
    from harness.errors import UsageError
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        if target in [node.name for node in rig.topology.nodes]:
            raise UsageError(f"{target} is a node: `blackstart logs {target} --name {name}` shows what it writes")
        print_log(rig, target, follow_wanted=follow_wanted, since_ns=since_ns, lines=lines)


def _wait_for_its_end(rig: "Rig", machine: "Machine", owner: str, began: float, limit_s: float) -> None:
    """Raises ConditionUnmet in any case: the machine cannot run where its group is not owned."""
    from harness.errors import ConditionUnmet

    told = f"{machine.node} does not own group {machine.group}, which belongs to {owner or 'no node'} just now"
    while time.monotonic() < began + limit_s:
        if not any(found.container == machine.container and found.state == "running" for found in rig.machines()):
            after_s = time.monotonic() - began
            raise ConditionUnmet(f"{told}: the cluster has ended {machine.name} there after {after_s:.1f} s")
        time.sleep(LOOK_INTERVAL_S)
    raise ConditionUnmet(f"{told}, and yet {machine.name} still runs on {machine.node} after {limit_s:g} s")


def _tell(rig: "Rig", machine: "Machine", state: "ResourceState", wish: Wish) -> None:
    """Waits for what the cluster makes of it, and says how it stands then."""
    from chaos.cli.output import Progress, print_json
    from harness.rig.cluster.conditions import resource_is

    waited_for = f"the cluster to count {machine.name} as {state}"
    effect = effect_on_resource(machine.name, waited_for, resource_is(machine.name, state))
    standing = wait_for(rig, effect, limit_s=wish.limit_s, say=Progress()) if wish.wait else rig.standing()
    if wish.json_wanted:
        print_json({"node": machine.node, "container": machine.container, "now": effect.record(standing)})
    else:
        echo(effect.sentence(standing))


def _print_machines(machines: list["Machine"]) -> None:
    from chaos.cli.output import coloured, print_table
    from chaos.output.printing import markup

    rows = [
        (
            *(markup(word) for word in (machine.node, machine.name, machine.group)),
            coloured(machine.state),
            markup(machine.status),
            machine.container[:12],
        )
        for machine in machines
    ]
    print_table(("node", "machine", "group", "state", "since", "container"), rows, empty="no machines")
