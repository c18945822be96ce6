"""The labels by which every object of a rig is found; nothing without them is ever touched."""

__all__ = ["GROUP", "NODE", "RESOURCE", "RIG", "ROLE", "SESSION", "Role"]

from enum import StrEnum

RIG = "io.blackstart.rig"
ROLE = "io.blackstart.role"
NODE = "io.blackstart.node"
GROUP = "io.blackstart.group"
RESOURCE = "io.blackstart.resource"
SESSION = "io.blackstart.session"


class Role(StrEnum):
    """What an object of the engine is to the rig."""

    NODE = "node"
    VM = "vm"
    CLIENT = "client"
    ENGINE_PROXY = "engine-proxy"
    HOLD = "hold"
    KEEPER = "keeper"
    LOCK = "lock"
    NETWORK = "network"
    REAPER = "reaper"
    VOLUME = "volume"
    WITNESS = "witness"
