"""The hypervisor manager's actions, `vm`: a node's VMs as its engine sees them, whatever the cluster believes."""

import contextlib
import time
from typing import TYPE_CHECKING

import click

from chaos.cli.log_commands import follow, print_log, since, tail
from chaos.cli.rig_commands import as_json, rig_name
from chaos.cli.signals import held
from chaos.cli.wait_for_effect import RequestOptions, effect_on_resource, wait_for, waits
from chaos.output.printing import echo

if TYPE_CHECKING:
    from harness.model.states import ResourceState
    from harness.rig.lifecycle.rig import Rig, Vm

__all__ = ["vm"]

LOOK_INTERVAL_S = 0.02

_place = click.argument("place", metavar="NODE/VM")


@click.group()
def vm() -> None:
    """VMs as the engine sees them."""


@vm.command("list", epilog="\b\nExamples:\n  blackstart vm list --node node2\n  blackstart vm list --json")
@rig_name
@click.option("--node", "only", help="Only the VMs on this node.")
@click.option("--all", "every", is_flag=True, help="Those too that a node only holds ready for a failover.")
@as_json
def list_vms(name: str, only: str | None, every: bool, json_wanted: bool) -> None:
    """The VMs' containers by node, running or ended.

    Each possible owner holds a container ready for each VM; those that never ran are left out unless --all.
    """
    from chaos.cli.output import print_json
    from harness.errors import UsageError
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        names = [known.name for known in rig.topology.nodes]
        if only is not None and only not in names:
            raise UsageError(f"rig {name} has no node {only!r}, expected one of {', '.join(names)}")
        vms = [
            vm
            for vm in rig.vms()
            if only in (None, vm.node) and (every or vm.state != "created")
        ]
    if json_wanted:
        print_json(vms)
    else:
        _print_vms(vms)


@vm.command("show", epilog="\b\nExample:\n  blackstart vm show web1-vm")
@click.argument("vm_name", metavar="VM")
@rig_name
@as_json
def show_vm(vm_name: str, name: str, json_wanted: bool) -> None:
    """All containers of one VM, on every node: the one that runs, and those that stand ready."""
    from chaos.cli.output import print_json
    from harness.rig.lifecycle.rig import Rig
    from harness.rig.lifecycle.vm_switch import vms_named

    with contextlib.closing(Rig.find(name)) as rig:
        found = vms_named(rig, vm_name)
    if json_wanted:
        print_json(found)
    else:
        _print_vms(found)


@vm.command(
    "start",
    epilog="\b\nExamples:\n  blackstart vm start node1/web1-vm     on the owner: wanted Online again\n"
    "  blackstart vm start node2/web1-vm     elsewhere: the cluster ends it at once",
)
@_place
@rig_name
@waits
def start(place: str, name: str, wish: RequestOptions) -> None:
    """Start a VM on a node, behind the cluster's back.

    On the node that owns the VM's group this counts as an administrator's wish: PersistentState 1. Anywhere else
    the cluster ends the VM at once; then the exit code is 1.
    """
    from chaos.cli.output import Progress
    from harness.model.states import ResourceState
    from harness.rig.cluster.conditions import find_resource
    from harness.rig.lifecycle.rig import Rig
    from harness.rig.lifecycle.vm_switch import find_vm, start_vm

    say = Progress()
    with contextlib.closing(Rig.find(name)) as rig:
        vm = find_vm(rig, place)
        group, _ = find_resource(rig.standing(), vm.name)
        began = time.monotonic()
        with held(f"the engine is starting {vm.name}, to the end"):
            start_vm(rig, vm)
        say(f"the engine has started {vm.name} on {vm.node}")
        if wish.wait and group.owner != vm.node:
            _wait_for_its_end(rig, vm, group.owner, began, wish.limit_s)
        _tell(rig, vm, ResourceState.ONLINE, wish)


@vm.command("stop", epilog="\b\nExample:\n  blackstart vm stop node1/web1-vm")
@_place
@rig_name
@waits
def stop(place: str, name: str, wish: RequestOptions) -> None:
    """Stop a VM on a node with the engine's own tool, behind the cluster's back.

    The cluster takes that for an administrator's wish: PersistentState 0, Offline, and it is not started again before
    somebody wants it Online.
    """
    from chaos.cli.output import Progress
    from harness.errors import UsageError
    from harness.model.states import ResourceState
    from harness.rig.lifecycle.rig import Rig
    from harness.rig.lifecycle.vm_switch import find_vm, stop_vm

    say = Progress()
    with contextlib.closing(Rig.find(name)) as rig:
        vm = find_vm(rig, place)
        if vm.state not in ("running", "paused"):
            raise UsageError(f"{vm.name} does not run on {vm.node}: the engine says {vm.state}")
        with held(f"the engine is stopping {vm.name}, to the end"):
            stop_vm(rig, vm)
        say(f"the engine has stopped {vm.name} on {vm.node}")
        _tell(rig, vm, ResourceState.OFFLINE, wish)


@vm.command("logs", epilog="\b\nExamples:\n  blackstart vm logs web1-vm --tail 20\n  blackstart vm logs node2/web1-vm")
@click.argument("target", metavar="VM|NODE/VM")
@rig_name
@follow
@since
@tail
def vm_logs(target: str, name: str, follow_wanted: bool, since_ns: int, lines: int | None) -> None:
    """What a VM writes, from the engine."""
    from harness.errors import UsageError
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        if target in [node.name for node in rig.topology.nodes]:
            raise UsageError(f"{target} is a node: `blackstart logs {target} --name {name}` shows what it writes")
        print_log(rig, target, follow_wanted=follow_wanted, since_ns=since_ns, lines=lines)


def _wait_for_its_end(rig: "Rig", vm: "Vm", owner: str, began: float, limit_s: float) -> None:
    """Raises ConditionUnmet in any case: the VM cannot run where its group is not owned."""
    from harness.errors import ConditionUnmet

    told = f"{vm.node} does not own group {vm.group}, which belongs to {owner or 'no node'} just now"
    while time.monotonic() < began + limit_s:
        if not any(found.container == vm.container and found.state == "running" for found in rig.vms()):
            after_s = time.monotonic() - began
            raise ConditionUnmet(f"{told}: the cluster has ended {vm.name} there after {after_s:.1f} s")
        time.sleep(LOOK_INTERVAL_S)
    raise ConditionUnmet(f"{told}, and yet {vm.name} still runs on {vm.node} after {limit_s:g} s")


def _tell(rig: "Rig", vm: "Vm", state: "ResourceState", wish: RequestOptions) -> None:
    """Waits for what the cluster makes of it, and says how it stands then."""
    from chaos.cli.output import Progress, print_json
    from harness.rig.cluster.conditions import resource_is

    waited_for = f"the cluster to count {vm.name} as {state}"
    effect = effect_on_resource(vm.name, waited_for, resource_is(vm.name, state))
    standing = wait_for(rig, effect, limit_s=wish.limit_s, say=Progress()) if wish.wait else rig.standing()
    if wish.json_wanted:
        print_json({"node": vm.node, "container": vm.container, "now": effect.record(standing)})
    else:
        echo(effect.sentence(standing))


def _print_vms(vms: list["Vm"]) -> None:
    from chaos.cli.output import coloured, print_table
    from chaos.output.printing import markup

    rows = [
        (
            *(markup(word) for word in (vm.node, vm.name, vm.group)),
            coloured(vm.state),
            markup(vm.status),
            vm.container[:12],
        )
        for vm in vms
    ]
    print_table(("node", "vm", "group", "state", "since", "container"), rows, empty="no VMs")
