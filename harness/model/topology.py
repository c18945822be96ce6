"""What a rig consists of, as records: nodes, voters, groups, resources and their properties.

The document that a person writes becomes these records once, at the edge (`harness.document.topology`); inside,
durations are integer microseconds and names have been checked. The defaults are those of the rules of the cluster,
section 4 and 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "SECOND_US",
    "Appendfsync",
    "Failback",
    "Fencing",
    "GroupSpec",
    "Network",
    "NodeSpec",
    "Priority",
    "ResourcePolicy",
    "ResourceSpec",
    "RestartAction",
    "Settings",
    "ShutdownAction",
    "Topology",
]

SECOND_US = 1_000_000


class Fencing(StrEnum):
    """How it is made sure that a lost session runs nothing."""

    POWER = "power"
    SELF = "self"


class Appendfsync(StrEnum):
    """When a voter's writes reach its disk: before they are acknowledged, or within a second.

    EVERYSEC breaks the assumption that the database rests on (a disk never goes back); it is there for experiments that
    show what becomes of that.
    """

    ALWAYS = "always"
    EVERYSEC = "everysec"


class Network(StrEnum):
    """Which addresses guests can reach: those of the rig's network, or all that the engine's host can."""

    INTERNAL = "internal"
    OPEN = "open"


class RestartAction(StrEnum):
    """What the RCM does when a resource fails."""

    NONE = "none"
    RESTART = "restart"
    RESTART_THEN_FAILOVER = "restart-then-failover"


class Priority(StrEnum):
    """The order in which groups are started."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NO_AUTO_START = "no-auto-start"


class Failback(StrEnum):
    """Whether a group goes back to its most preferred owner when that is Up again."""

    PREVENT = "prevent"
    ALLOW = "allow"


class ShutdownAction(StrEnum):
    """What it means when a VM was stopped with the hypervisor's own tool, or shut itself down: a wish, or a
    failure.
    """

    OFFLINE = "offline"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Cluster-wide times in microseconds, how to fence, and whether nodes reach the engine through proxies.

    The service asks the node's other programs every `program_ask_us` whether they live, and has one restarted that has
    not answered for `program_silence_us`. `voter_disk_bytes` is the size of each voter's disk, which then lives in
    memory and can be filled; 0: a volume of the engine's, as large as the engine's disk.

    `network` limits the connections that guests open; nodes are not limited.

    With `dynamic_quorum` the votes of nodes that stay away are taken out of the set of voters.

    In a cluster of up to `everyone_watches_up_to` nodes each of them watches every group; in a larger one a few nodes
    watch each (`harness.cluster_service.membership.sharding`).
    """

    beat_us: int = SECOND_US // 2
    lease_us: int = 2 * SECOND_US
    grace_us: int = SECOND_US
    fencing: Fencing = Fencing.POWER
    engine_proxy: bool = False
    program_ask_us: int = SECOND_US
    program_silence_us: int = 5 * SECOND_US
    voter_disk_bytes: int = 0
    network: Network = Network.INTERNAL
    dynamic_quorum: bool = True
    appendfsync: Appendfsync = Appendfsync.ALWAYS
    everyone_watches_up_to: int = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcePolicy:
    """Times in microseconds. `restart_threshold` restarts within `restart_period_us` are tolerated; the next failure
    escalates. `retry_period_us` after the last failure, when restarts and failovers are used up, it is tried once more;
    None means never.
    """

    is_alive_interval_us: int = 5 * SECOND_US
    looks_alive_interval_us: int = 60 * SECOND_US
    pending_timeout_us: int = 180 * SECOND_US
    deadlock_timeout_us: int = 300 * SECOND_US
    restart_action: RestartAction = RestartAction.RESTART_THEN_FAILOVER
    restart_threshold: int = 3
    restart_period_us: int = 900 * SECOND_US
    restart_delay_us: int = SECOND_US // 2
    retry_period_us: int | None = 3600 * SECOND_US
    shutdown_action: ShutdownAction = ShutdownAction.OFFLINE
    separate_monitor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSpec:
    """One resource of a group. `depends_on` is an AND of ORs of resource names; `properties` are the driver's
    private ones.
    """

    name: str
    type: str
    depends_on: tuple[tuple[str, ...], ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    policy: ResourcePolicy = ResourcePolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """What moves together. `failover_threshold` None means nodes - 1. `failback_window` is from one hour of the day up
    to another, and may wrap midnight; None means at any time.
    """

    name: str
    resources: tuple[ResourceSpec, ...] = ()
    preferred_owners: tuple[str, ...] = ()
    possible_owners: tuple[str, ...] = ()
    priority: Priority = Priority.MEDIUM
    failover_threshold: int | None = None
    failover_period_us: int = 6 * 3600 * SECOND_US
    failback: Failback = Failback.PREVENT
    failback_window: tuple[int, int] | None = None

    def resource(self, name: str) -> ResourceSpec:
        """The resource of that name; KeyError when the group has none."""
        for spec in self.resources:
            if spec.name == name:
                return spec
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """A hypervisor node: its name, its fixed address, and whether it runs a voter."""

    name: str
    address: str
    voter: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A whole rig. `nodes` is ordered: the list's order breaks ties of placement. `subnet` is in CIDR notation."""

    rig: str
    subnet: str
    nodes: tuple[NodeSpec, ...]
    groups: tuple[GroupSpec, ...]
    settings: Settings = Settings()
    witness: NodeSpec | None = None

    @property
    def everybody(self) -> tuple[NodeSpec, ...]:
        """The nodes, then the witness, which runs a voter and nothing else."""
        return (*self.nodes, self.witness) if self.witness is not None else self.nodes

    @property
    def voters(self) -> tuple[NodeSpec, ...]:
        """Whoever has a vote, in that order."""
        return tuple(spec for spec in self.everybody if spec.voter)
