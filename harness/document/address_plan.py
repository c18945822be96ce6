"""Where a rig's addresses lie in its subnet, a /24: witness .10, nodes from .11, VMs from .100, clients from .224.

Fixed parts, so that a rig can be moved to another subnet as a whole, and so that an address that the engine hands out
can never be one that a VM will bind. It does not know which subnets are free: that is the engine's knowledge.
"""

import dataclasses
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from harness.model.topology import GroupSpec, Topology

__all__ = [
    "DEFAULT_SUBNET",
    "MAX_CONTAINER_NODES",
    "MAX_NODES",
    "MAX_VMS",
    "dynamic_range",
    "in_pool",
    "moved",
    "node_address",
    "pool_subnets",
    "reserved_for_vms",
    "vm_address",
    "witness_address",
]

DEFAULT_SUBNET = "10.87.0.0/24"
MAX_NODES = 64
"""Of any rig: as many as a failover cluster may have. More than nine run in the simulator only."""
MAX_CONTAINER_NODES = 9
"""Of a rig on containers: all of them share one host and one engine."""
MAX_VMS = 100

_POOL = IPv4Network("10.87.0.0/16")
_WITNESS = 10
_FIRST_NODE = 11
_FIRST_VM = 100


def node_address(subnet: str, index: int) -> str:
    """The address of the node at `index`, counted from 0."""
    return _host(subnet, _FIRST_NODE + index)


def witness_address(subnet: str) -> str:
    """The address of the witness."""
    return _host(subnet, _WITNESS)


def vm_address(subnet: str, index: int) -> str:
    """The address at `index`, counted from 0, of the range reserved for VMs."""
    return _host(subnet, _FIRST_VM + index)


def reserved_for_vms(subnet: str, address: str) -> bool:
    """Whether a VM may have `address`."""
    network, wanted = IPv4Network(subnet), IPv4Address(address)
    return wanted in network and _FIRST_VM <= int(wanted) - int(network[0]) < _FIRST_VM + MAX_VMS


def dynamic_range(subnet: str) -> str:
    """The part from which the engine hands out addresses by itself."""
    return str(IPv4Network((IPv4Network(subnet)[224], 27)))


def pool_subnets() -> Iterator[str]:
    """The subnets that rigs take by themselves, the default first."""
    return (str(subnet) for subnet in _POOL.subnets(new_prefix=24))


def in_pool(subnet: str) -> bool:
    """Whether `subnet` is one that rigs take by themselves, so that another of the pool will do as well."""
    return IPv4Network(subnet).subnet_of(_POOL)


def moved(topology: Topology, subnet: str) -> Topology:
    """The same rig in another subnet: every address keeps its place in it."""
    old, new = IPv4Network(topology.subnet), IPv4Network(subnet)

    def move(address: str) -> str:
        return str(new[int(IPv4Address(address)) - int(old[0])]) if IPv4Address(address) in old else address

    def move_group(group: GroupSpec) -> GroupSpec:
        return dataclasses.replace(
            group,
            resources=tuple(
                dataclasses.replace(
                    resource,
                    properties={
                        name: move(value) if name == "address" else value for name, value in resource.properties.items()
                    },
                )
                for resource in group.resources
            ),
        )

    return dataclasses.replace(
        topology,
        subnet=str(new),
        nodes=tuple(dataclasses.replace(node, address=move(node.address)) for node in topology.nodes),
        witness=topology.witness and dataclasses.replace(topology.witness, address=move(topology.witness.address)),
        groups=tuple(move_group(group) for group in topology.groups),
    )


def _host(subnet: str, number: int) -> str:
    return str(IPv4Network(subnet)[number])
