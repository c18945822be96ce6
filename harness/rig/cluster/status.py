"""How a rig stands: what the engine says of its nodes, and what the cluster says of nodes and groups.

Each node tells what it knows; a group's states are known on its owner only. `merge` puts the answers together,
without any I/O, and says Unknown where nobody knows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.model.states import GroupState, ResourceState
from harness.model.topology import Priority, Topology

__all__ = [
    "UNKNOWN",
    "Condition",
    "GroupStatus",
    "NodeStatus",
    "Power",
    "ResourceStatus",
    "RigStatus",
    "VoterStatus",
    "merge",
]

UNKNOWN = "Unknown"


class Power(StrEnum):
    """A node as the engine sees it."""

    ON = "on"
    OFF = "off"
    HELD_OFF = "held off"
    PAUSED = "paused"
    RESTARTING = "restarting"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node. `state` is the cluster's word (Up, Paused, Joining, Down) or Unknown.

    `quorum` is whether the node itself holds its lease; None when it did not answer. `drain` is the state of its drain,
    empty when nobody told.
    """

    name: str
    address: str
    voter: bool
    power: Power
    state: str
    session: str
    quorum: bool | None
    drain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceStatus:
    """One resource: its reported state, its PersistentState (1: wanted online; None: nobody told), and why it is not
    Online, as far as its owner says.
    """

    name: str
    type: str
    state: str
    persistent_state: int | None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """One group; `owner` is empty when nobody owns it or nobody knows. `moving_to` names the node that a move under way
    goes to; `why` says why nobody runs it.
    """

    name: str
    owner: str
    epoch: int
    state: str
    resources: tuple[ResourceStatus, ...]
    moving_to: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoterStatus:
    """One voter, as a node that holds its lease sees it: answers, silent, refuses, not in the set; and why.

    `member` is whether it counts now. `role` is node or witness.
    """

    name: str
    role: str
    member: bool
    state: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RigStatus:
    """The whole rig at one look."""

    rig: str
    subnet: str
    nodes: tuple[NodeStatus, ...]
    groups: tuple[GroupStatus, ...]
    voters: tuple[VoterStatus, ...] = ()

    def missing(self, topology: Topology) -> list[str]:
        """What is not yet as it should be after `up`: each node Up, each group Online that starts by itself."""
        return self.missing_nodes() + self.missing_groups(topology)

    def missing_nodes(self) -> list[str]:
        """Each node that is not Up, with its state or its power."""
        return [
            f"{node.name} ({node.state if node.power is Power.ON else node.power})"
            for node in self.nodes
            if node.state != "Up" or node.power is not Power.ON
        ]

    def missing_groups(self, topology: Topology) -> list[str]:
        """Each group that is not Online although it starts by itself."""
        return [f"{group.name} ({group.state})" for group in self._late_groups(topology)]

    def not_online(self, topology: Topology) -> str:
        """The resources of `missing_groups` that are not Online, each with its state and the reason."""
        return "; ".join(
            f"{resource.name} is {resource.state}{f' ({why})' if (why := resource.why or group.why) else ''}"
            for group in self._late_groups(topology)
            for resource in group.resources
            if resource.state != ResourceState.ONLINE
        )

    def _late_groups(self, topology: Topology) -> list[GroupStatus]:
        idle = {group.name for group in topology.groups if group.priority is Priority.NO_AUTO_START}
        idle |= {group.name for group in topology.groups if not group.resources}
        return [group for group in self.groups if group.name not in idle and group.state != GroupState.ONLINE]

    def culprit(self) -> str:
        """The node whose log is worth a look: the first that is not Up, else the owner of the first group that is not
        Online; empty when there is none.
        """
        nodes = (node.name for node in self.nodes if node.state != "Up" or node.power is not Power.ON)
        owners = (group.owner for group in self.groups if group.state != GroupState.ONLINE and group.owner)
        return next(nodes, next(owners, ""))


Condition = Callable[[RigStatus], str]
"""What is still missing, as words after "waiting for"; empty when it holds."""


def merge(topology: Topology, powers: Mapping[str, Power], snapshots: Mapping[str, Mapping[str, Any]]) -> RigStatus:
    """`powers` and `snapshots` by node; a node that did not answer has no snapshot."""
    quorate = [snapshots[node.name] for node in topology.nodes if snapshots.get(node.name, {}).get("quorum")]
    told = {entry["name"]: entry for entry in quorate[0]["nodes"]} if quorate else {}
    nodes = []
    for node in topology.nodes:
        own = snapshots.get(node.name)
        entry = told.get(node.name, {})
        nodes.append(
            NodeStatus(
                name=node.name,
                address=node.address,
                voter=node.voter,
                power=powers.get(node.name, Power.MISSING),
                state=str(entry.get("state", UNKNOWN)),
                session=str(entry.get("session") or (own or {}).get("session") or ""),
                quorum=bool(own["quorum"]) if own is not None else None,
                drain=str(entry.get("drain", "")),
            )
        )
    return RigStatus(
        rig=topology.rig,
        subnet=topology.subnet,
        nodes=tuple(nodes),
        groups=tuple(_group(group.name, topology, snapshots) for group in topology.groups),
        voters=_voters(topology, quorate[0] if quorate else next(iter(snapshots.values()), {})),
    )


def _voters(topology: Topology, snapshot: Mapping[str, Any]) -> tuple[VoterStatus, ...]:
    told = {entry["name"]: entry for entry in snapshot.get("voters", ())}
    nodes = {node.name for node in topology.nodes}
    return tuple(
        VoterStatus(
            name=voter.name,
            role="node" if voter.name in nodes else "witness",
            member=bool(told.get(voter.name, {}).get("member")),
            state=str(told.get(voter.name, {}).get("state", UNKNOWN)),
            why=str(told.get(voter.name, {}).get("why", "")),
        )
        for voter in topology.voters
    )


def _group(name: str, topology: Topology, snapshots: Mapping[str, Mapping[str, Any]]) -> GroupStatus:
    """The freshest record anybody has, and the states as its owner tells them."""
    views = [
        (view["session"], entry)
        for view in snapshots.values()
        for entry in view.get("groups", ())
        if entry["name"] == name
    ]
    spec = next(group for group in topology.groups if group.name == name)
    if not views:
        resources = tuple(
            ResourceStatus(name=resource.name, type=resource.type, state=UNKNOWN, persistent_state=None)
            for resource in spec.resources
        )
        return GroupStatus(name=name, owner="", epoch=0, state=UNKNOWN, resources=resources)
    epoch = max(entry["epoch"] for _, entry in views)
    freshest = [(session, entry) for session, entry in views if entry["epoch"] == epoch]
    of_owner = [entry for session, entry in freshest if entry["owner_session"] == session]
    entry = of_owner[0] if of_owner else freshest[0][1]
    return GroupStatus(
        name=name,
        owner=str(entry["owner"] or ""),
        epoch=epoch,
        state=str(entry["state"]) if of_owner else UNKNOWN,
        moving_to=str(entry.get("moving_to") or ""),
        why=str(entry.get("why", "")),
        resources=tuple(
            ResourceStatus(
                name=resource["name"],
                type=resource["type"],
                state=str(resource["state"]) if of_owner else UNKNOWN,
                persistent_state=resource["persistent_state"],
                why=str(resource.get("why", "")),
            )
            for resource in entry["resources"]
        ),
    )
