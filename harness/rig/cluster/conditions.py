"""What can be waited for, as conditions on a `RigStatus`: each says in words what is still missing, or nothing. Pure.

The words follow "waiting for". A name that the rig does not have is refused when the condition is made.
"""

from harness.errors import UsageError
from harness.model.states import DrainState, GroupState, ResourceState
from harness.rig.cluster.status import Condition, GroupStatus, NodeStatus, Power, ResourceStatus, RigStatus

__all__ = [
    "PAUSED",
    "UP",
    "all_online",
    "find_group",
    "find_node",
    "find_resource",
    "group_is",
    "group_moved",
    "node_drained",
    "node_is",
    "node_up",
    "resource_is",
]


UP = "Up"
PAUSED = "Paused"
_MEMBERS = (UP, PAUSED)
_DRAINED = (DrainState.COMPLETED, DrainState.FAILED)


def find_group(standing: RigStatus, name: str) -> GroupStatus:
    """The group of that name. Raises UsageError with the names that there are."""
    for group in standing.groups:
        if group.name == name:
            return group
    raise UsageError(f"rig {standing.rig} has no group {name!r}, expected one of {_listed(standing.groups)}")


def find_resource(standing: RigStatus, name: str) -> tuple[GroupStatus, ResourceStatus]:
    """The resource of that name, and its group. Raises UsageError with the names that there are."""
    for group in standing.groups:
        for resource in group.resources:
            if resource.name == name:
                return group, resource
    names = _listed(tuple(resource for group in standing.groups for resource in group.resources))
    raise UsageError(f"rig {standing.rig} has no resource {name!r}, expected one of {names}")


def find_node(standing: RigStatus, name: str) -> NodeStatus:
    """The node of that name. Raises UsageError with the names that there are."""
    for node in standing.nodes:
        if node.name == name:
            return node
    raise UsageError(f"rig {standing.rig} has no node {name!r}, expected one of {_listed(standing.nodes)}")


def _listed(named: tuple[GroupStatus, ...] | tuple[NodeStatus, ...] | tuple[ResourceStatus, ...]) -> str:
    return ", ".join(entry.name for entry in named) or "none at all"


def group_is(name: str, state: GroupState) -> Condition:
    """The group is in that state, as its owner says."""

    def missing(standing: RigStatus) -> str:
        group = find_group(standing, name)
        return "" if group.state == state else f"{name} to be {state} ({_shown(group)})"

    return missing


def group_moved(name: str, *, epoch: int, target: str = "") -> Condition:
    """The group has another owner than under `epoch`, `target` if that is given, and what is wanted there is Online."""

    def missing(standing: RigStatus) -> str:
        group = find_group(standing, name)
        if group.epoch <= epoch or (target and group.owner != target) or not group.owner:
            return f"{name} to be owned by {target or 'another node'} ({_shown(group)})"
        late = _late(group)
        return f"{', '.join(late)} on {group.owner}" if late else ""

    return missing


def resource_is(name: str, state: ResourceState) -> Condition:
    """The resource is in that state, as its owner says, and that is what is wanted of it."""

    def missing(standing: RigStatus) -> str:
        group, resource = find_resource(standing, name)
        wanted = int(state is ResourceState.ONLINE)
        if resource.state == state and resource.persistent_state == wanted:
            return ""
        why = f": {resource.why}" if resource.why else ""
        return f"{name} to be {state} ({resource.state} on {group.owner or 'no node'}{why})"

    return missing


def node_is(name: str, state: str) -> Condition:
    """The cluster says that of the node: Up or Paused."""

    def missing(standing: RigStatus) -> str:
        node = find_node(standing, name)
        return "" if node.state == state else f"{name} to be {state} (it is {node.state})"

    return missing


def node_up(name: str) -> Condition:
    """The node has its power, and the cluster counts it as a member; Paused is up."""

    def missing(standing: RigStatus) -> str:
        node = find_node(standing, name)
        if node.power is not Power.ON:
            return f"{name} to be up (its power is {node.power})"
        return "" if node.state in _MEMBERS else f"{name} to be up (it is {node.state})"

    return missing


def node_drained(name: str) -> Condition:
    """The node is Paused and its drain has ended, with whatever result."""

    def missing(standing: RigStatus) -> str:
        node = find_node(standing, name)
        if node.state != PAUSED or node.drain not in _DRAINED:
            left = [group.name for group in standing.groups if group.owner == name]
            return f"{name} to be drained (drain {node.drain or 'unknown'}, it owns {', '.join(left) or 'nothing'})"
        return ""

    return missing


def all_online(standing: RigStatus) -> str:
    """Every resource that is wanted Online is, wherever; nodes that are off do not count."""
    late = [missed for group in standing.groups for missed in _late(group)]
    return ", ".join(late)


def _late(group: GroupStatus) -> list[str]:
    """Resources that are not as they are wanted, or of which nobody tells."""
    return [
        f"{resource.name} ({resource.state})"
        for resource in group.resources
        if resource.persistent_state is None or (resource.persistent_state and resource.state != ResourceState.ONLINE)
    ]


def _shown(group: GroupStatus) -> str:
    others = (f"{entry.name} {entry.state}" for entry in group.resources if entry.state != ResourceState.ONLINE)
    why = f": {group.why}" if group.why else ""
    return f"{group.state} on {group.owner or 'no node'}{why}" + "".join(f", {other}" for other in others)
