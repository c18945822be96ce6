"""The states of resources, groups and nodes, and which transitions exist (the rules of the cluster, section 2)."""

from collections.abc import Iterable
from enum import StrEnum

__all__ = ["TRANSITIONS", "DrainState", "GroupState", "ResourceState", "group_state", "may_become"]


class ResourceState(StrEnum):
    """The reported status of one resource on one node. Never stored: what is stored is PersistentState."""

    INITIALIZING = "Initializing"
    ONLINE_PENDING = "OnlinePending"
    ONLINE = "Online"
    OFFLINE_PENDING = "OfflinePending"
    OFFLINE = "Offline"
    FAILED = "Failed"

    @property
    def pending(self) -> bool:
        """Whether a driver is still at work on it."""
        return self in _PENDING


class GroupState(StrEnum):
    """Derived from the states of a group's resources, never stored."""

    FAILED = "Failed"
    PENDING = "Pending"
    PARTIAL_ONLINE = "PartialOnline"
    ONLINE = "Online"
    OFFLINE = "Offline"


class DrainState(StrEnum):
    """How far the groups of a Paused node have been moved away. Stored with the node."""

    NOT_INITIATED = "NotInitiated"
    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"


_PENDING = frozenset({ResourceState.INITIALIZING, ResourceState.ONLINE_PENDING, ResourceState.OFFLINE_PENDING})

_S = ResourceState
TRANSITIONS: dict[ResourceState, frozenset[ResourceState]] = {
    _S.INITIALIZING: frozenset({_S.OFFLINE, _S.ONLINE, _S.FAILED}),
    _S.OFFLINE: frozenset({_S.ONLINE_PENDING, _S.ONLINE, _S.FAILED, _S.INITIALIZING}),
    _S.ONLINE_PENDING: frozenset({_S.ONLINE, _S.FAILED, _S.OFFLINE_PENDING, _S.OFFLINE, _S.INITIALIZING}),
    _S.ONLINE: frozenset({_S.OFFLINE_PENDING, _S.OFFLINE, _S.FAILED, _S.INITIALIZING}),
    _S.OFFLINE_PENDING: frozenset({_S.OFFLINE, _S.FAILED, _S.INITIALIZING}),
    _S.FAILED: frozenset({_S.ONLINE_PENDING, _S.OFFLINE_PENDING, _S.OFFLINE, _S.INITIALIZING}),
}
"""Every state may fall back to Initializing: the resource host was lost, and nobody knows until it reports again."""


def may_become(old: ResourceState, new: ResourceState) -> bool:
    """Whether the table has the transition."""
    return new in TRANSITIONS[old]


def group_state(states: Iterable[ResourceState]) -> GroupState:
    """First match wins: any Failed, any pending, some but not all Online, all Online, else Offline (an empty group
    is Offline).
    """
    seen = list(states)
    if ResourceState.FAILED in seen:
        return GroupState.FAILED
    if any(state.pending for state in seen):
        return GroupState.PENDING
    online = sum(state is ResourceState.ONLINE for state in seen)
    if not online:
        return GroupState.OFFLINE
    return GroupState.ONLINE if online == len(seen) else GroupState.PARTIAL_ONLINE
