"""A VM's container on one node, started and stopped by hand: what a person does with the hypervisor's own tool.

Behind the cluster's back, on purpose: through the engine, as `docker start` and `docker stop` would. The cluster has to
notice, and what it makes of it is in the rules of the cluster.
"""

from harness.errors import UsageError
from harness.model import labels
from harness.rig.engine.connection import engine_call
from harness.rig.engine.ownership import stop_container
from harness.rig.lifecycle.rig import Rig, Vm

__all__ = ["find_vm", "parse_place", "start_vm", "stop_vm", "vms_named"]

STOP_GRACE_S = 10
"""From TERM to KILL, as `docker stop` gives."""


def parse_place(rig: Rig, text: str) -> tuple[str, str]:
    """`NODE/VM` as node and VM. Raises UsageError for another form, and for names that the rig does not have."""
    node, slash, vm = text.partition("/")
    nodes = [known.name for known in rig.topology.nodes]
    if not slash or not vm:
        raise UsageError(f"{text!r} names no place, expected NODE/VM, such as {nodes[0]}/{text or 'web1-vm'}")
    if node not in nodes:
        raise UsageError(f"rig {rig.name} has no node {node!r}, expected one of {', '.join(nodes)}")
    return node, vm


def vms_named(rig: Rig, name: str) -> list[Vm]:
    """The VM's containers, on whichever nodes. Raises UsageError with the names that there are."""
    vms = rig.vms()
    found = [vm for vm in vms if vm.name == name]
    if not found:
        names = ", ".join(sorted({vm.name for vm in vms})) or "none at all"
        raise UsageError(f"rig {rig.name} has no VM {name!r} now, expected one of {names}")
    return found


def find_vm(rig: Rig, place: str) -> Vm:
    """The VM's container on that node, of the node's latest session. Raises UsageError when there is none."""
    node, name = parse_place(rig, place)
    found = vms_named(rig, name)
    here = [vm for vm in found if vm.node == node]
    if not here:
        places = ", ".join(sorted({f"{vm.node} ({vm.state})" for vm in found}))
        raise UsageError(f"there is no container of {name} on {node}; there is one on {places}")
    return max(here, key=lambda vm: (vm.state == "running", vm.session.rpartition("/")[2]))


def start_vm(rig: Rig, vm: Vm) -> None:
    """As `docker start`. Raises EngineError."""
    with engine_call(f"start {vm.name} on {vm.node}"):
        rig.client.api.start(vm.container)


def stop_vm(rig: Rig, vm: Vm) -> None:
    """As `docker stop`: TERM, and KILL after ten seconds; the engine then tells of a `stop`. Raises EngineError."""
    roles = (labels.Role.VM,)
    stop_container(rig.client, vm.container, rig=rig.name, grace_s=STOP_GRACE_S, roles=roles)
