"""What the Resource Control Manager knows of a group and its resources on this node: facts, no plans.

How the resources of a group hang together is answered here, from their states as they were reported last.
"""

from dataclasses import dataclass, field

from harness.model.host import HostRequest
from harness.model.records import GroupRecord
from harness.model.states import ResourceState
from harness.model.topology import ResourceSpec

__all__ = ["GroupFacts", "ResourceFacts"]

_DOWN = (ResourceState.OFFLINE, ResourceState.FAILED)
_GONE = (*_DOWN, ResourceState.OFFLINE_PENDING)


@dataclass(slots=True)
class ResourceFacts:
    """One resource. `state` is the last report; the rest is about requests, changes, failures and what was done by
    hand.

    `opened_epoch` and `closed_epoch` are those under which OPEN and CLOSE succeeded last. `stuck_since_us` is when
    this node first failed to end it. Times in microseconds of the boot-time clock.
    """

    state: ResourceState = ResourceState.INITIALIZING
    opened_epoch: int | None = None
    closed_epoch: int | None = None
    request: HostRequest | None = None
    asked_us: int = 0
    open_errors: int = 0
    change: int | None = None
    clean_stop: bool = False
    found_online: bool = False
    failure: str = ""
    failed_at_us: int = 0
    not_before_us: int = 0
    stuck_since_us: int | None = None
    told_no_candidate: bool = False


@dataclass(slots=True)
class GroupFacts:
    """One group: its register as it was seen last, its resources, and the change of the whole group that is under
    way.
    """

    record: GroupRecord
    resources: dict[str, ResourceFacts] = field(default_factory=dict)
    change: int | None = None

    def providers_online(self, spec: ResourceSpec) -> bool:
        """Of each set of alternatives at least one provider is Online."""
        return all(
            any(self.resources[name].state is ResourceState.ONLINE for name in alternatives)
            for alternatives in spec.depends_on
        )

    def providers_gone(self, spec: ResourceSpec) -> bool:
        """Some set of alternatives is known to have none left. A provider that was not opened yet proves nothing."""
        return any(
            all(self.resources[name].state in _GONE for name in alternatives) for alternatives in spec.depends_on
        )

    def dependents_down(self, spec: ResourceSpec) -> bool:
        """Nothing that depends on it is up."""
        return all(self.resources[name].state in _DOWN for name in self._dependents(spec))

    def dependents_closed(self, spec: ResourceSpec) -> bool:
        """Everything that depends on it was closed under this epoch."""
        return all(self.resources[name].closed_epoch == self.record.epoch for name in self._dependents(spec))

    def _dependents(self, spec: ResourceSpec) -> list[str]:
        return [
            other.name
            for other in self.record.spec.resources
            if any(spec.name in alternatives for alternatives in other.depends_on)
        ]
