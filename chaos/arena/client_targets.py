"""What the client outside can measure: the VMs of which it is known where they answer, and how they are asked."""

from harness.model.topology import Topology
from harness.model.workload import GUEST_ENDPOINT, answers_on, runs_guest

__all__ = ["measured_vms"]


def measured_vms(topology: Topology) -> dict[str, str]:
    """The VMs of which it can be measured whether they answer, and how, in the words of `client_probe`.

    The others have no address, or run a program of which nobody said where it answers.
    """
    found: dict[str, str] = {}
    for group in topology.groups:
        for resource in group.resources:
            endpoint = answers_on(resource.properties) if resource.type == "virtual-machine" else None
            if endpoint is None:
                continue
            own = runs_guest(resource.properties) and endpoint == GUEST_ENDPOINT
            kind = "guest" if own else "http" if endpoint.path else "tcp"
            found[resource.name] = f"{kind}://{resource.properties['address']}:{endpoint.port}{endpoint.path}"
    return found
