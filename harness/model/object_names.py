"""The names of a rig's containers, networks and volumes in the engine."""

__all__ = [
    "KEEPER_SERVICE",
    "PROXY_SUFFIX",
    "carrier_container",
    "client_container",
    "csv_volume",
    "engine_proxy_container",
    "formed_volume",
    "hold_volume",
    "keeper_container",
    "network_name",
    "node_container",
    "secrets_volume",
    "voter_volume",
    "witness_secrets_volume",
]

PROXY_SUFFIX = "-engine"
"""No node is called like another one with this behind it."""

KEEPER_SERVICE = "kept_disks"
"""No node has this name: names have no underscores."""


def node_container(rig: str, node: str) -> str:
    """The name of a node's container."""
    return f"{rig}-{node}"


def engine_proxy_container(rig: str, node: str) -> str:
    """The name of the container through which a node reaches the engine, where there is one."""
    return f"{rig}-{node}{PROXY_SUFFIX}"


def client_container(rig: str) -> str:
    """The name of the container that measures from outside."""
    return f"{rig}-client"


def carrier_container(rig: str) -> str:
    """The name of the container that carries the secrets into their volume; it is never started."""
    return f"{rig}_secrets_carrier"


def keeper_container(rig: str) -> str:
    """The name of the container that keeps the disks that live in memory while all nodes are off."""
    return f"{rig}_{KEEPER_SERVICE}"


def network_name(rig: str) -> str:
    """The name of the rig's network."""
    return f"{rig}_rig"


def csv_volume(rig: str) -> str:
    """The name of the cluster shared volume."""
    return f"{rig}_csv"


def secrets_volume(rig: str) -> str:
    """The name of the volume that holds the voters' password and the node API's token."""
    return f"{rig}_secrets"


def witness_secrets_volume(rig: str) -> str:
    """The name of the volume that holds the access list of the witness's voter and nothing else."""
    return f"{rig}_witness-secrets"


def voter_volume(rig: str, node: str) -> str:
    """The name of the volume on which a voter keeps its data."""
    return f"{rig}_voter-{node}"


def hold_volume(rig: str, node: str) -> str:
    """The name of the volume that says that the power of a node is held off."""
    return f"{rig}_hold_{node}"


def formed_volume(rig: str) -> str:
    """The name of the volume that says that the cluster of the rig was formed."""
    return f"{rig}_formed"
