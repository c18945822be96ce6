"""A machine's container on one node, started and stopped by hand: what a person does with the hypervisor's own tool.

Behind the cluster's back, on purpose: through the engine, as `docker start` and `docker stop` would. The cluster has to
notice, and what it makes of it is in the rules of the cluster.
"""

from harness.errors import UsageError
from harness.model import labels
from harness.rig.engine.connection import engine_call
from harness.rig.engine.ownership import stop_container
from harness.rig.lifecycle.rig import Machine, Rig

__all__ = ["find_machine", "machines_named", "parse_place", "start_machine", "stop_machine"]

STOP_GRACE_S = 10
"""From TERM to KILL, as `docker stop` gives."""


def parse_place(rig: Rig, text: str) -> tuple[str, str]:
    """`NODE/VM` as node and machine. Raises UsageError for another form, and for names that the rig does not have."""
    node, slash, machine = text.partition("/")
    nodes = [known.name for known in rig.topology.nodes]
    if not slash or not machine:
        raise UsageError(f"{text!r} names no place, expected NODE/VM, such as {nodes[0]}/{text or 'web1-vm'}")
    if node not in nodes:
        raise UsageError(f"rig {rig.name} has no node {node!r}, expected one of {', '.join(nodes)}")
    return node, machine


def machines_named(rig: Rig, name: str) -> list[Machine]:
    """The machine's containers, on whichever nodes. Raises UsageError with the names that there are."""
    machines = rig.machines()
    found = [machine for machine in machines if machine.name == name]
    if not found:
        names = ", ".join(sorted({machine.name for machine in machines})) or "none at all"
        raise UsageError(f"rig {rig.name} has no machine {name!r} now, expected one of {names}")
    return found


def find_machine(rig: Rig, place: str) -> Machine:
    """The machine's container on that node, of the node's latest session. Raises UsageError when there is none."""
    node, name = parse_place(rig, place)
    found = machines_named(rig, name)
    here = [machine for machine in found if machine.node == node]
    if not here:
        places = ", ".join(sorted({f"{machine.node} ({machine.state})" for machine in found}))
        raise UsageError(f"there is no container of {name} on {node}; there is one on {places}")
    return max(here, key=lambda machine: (machine.state == "running", machine.session.rpartition("/")[2]))


def start_machine(rig: Rig, machine: Machine) -> None:
    """As `docker start`. Raises EngineError."""
    with engine_call(f"start {machine.name} on {machine.node}"):
        rig.client.api.start(machine.container)


def stop_machine(rig: Rig, machine: Machine) -> None:
    """As `docker stop`: TERM, and KILL after ten seconds; the engine then tells of a `stop`. Raises EngineError."""
    roles = (labels.Role.MACHINE,)
    stop_container(rig.client, machine.container, rig=rig.name, grace_s=STOP_GRACE_S, roles=roles)
