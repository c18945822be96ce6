"""What the Resource Control Manager knows of a group and its resources on this node: facts, no plans.

How the resources of a group hang together is answered here, from their states as they were reported last.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.model.host_messages import EntryPoint, HostRequest
from harness.model.records import GroupRecord, Restart
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import ResourceSpec

__all__ = ["GroupFacts", "ResourceFacts"]

_GONE = (ResourceState.OFFLINE, ResourceState.FAILED, ResourceState.OFFLINE_PENDING)
_STARTING = (ResourceState.INITIALIZING, ResourceState.ONLINE_PENDING)
_UNDER_WAY = {
    EntryPoint.OPEN: ResourceState.INITIALIZING,
    EntryPoint.ONLINE: ResourceState.ONLINE_PENDING,
    EntryPoint.OFFLINE: ResourceState.OFFLINE_PENDING,
    EntryPoint.TERMINATE: ResourceState.OFFLINE_PENDING,
    EntryPoint.CLOSE: ResourceState.OFFLINE_PENDING,
}


@dataclass(slots=True)
class ResourceFacts:
    """One resource. `state` is the last report; the rest is about requests, changes, failures and what was done by
    hand.

    `known` once it was opened by these managers. `opened_epoch` and `closed_epoch` are those under which OPEN and CLOSE
    succeeded last. `stuck_since_us` is when this node first failed to end it. `to_fail` names the failure that an
    administrator wants it to have, `try_again` that one wants it tried although it is Failed for good; `retry_with` is
    the change that says so. `evidence` is what was told of its last failure, `stays` why nothing is done about it.
    Times in microseconds of the boot-time clock.
    """

    state: ResourceState = ResourceState.INITIALIZING
    known: bool = False
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
    evidence: str = ""
    stays: str = ""
    to_fail: str = ""
    try_again: bool = False
    retry_with: int | None = None

    def is_as_wanted(self, epoch: int, wanted: bool) -> bool:
        """Whether it was opened under that epoch, is Online or Offline as it shall be, and nothing is under way."""
        if self.request is not None or self.change is not None or self.opened_epoch != epoch:
            return False
        if self.clean_stop or self.found_online or self.to_fail or self.try_again or self.stuck_since_us is not None:
            return False
        return self.state is (ResourceState.ONLINE if wanted else ResourceState.OFFLINE)

    def become_failed(self, now: int, failure: str, evidence: str) -> None:
        """It has failed; `failure` names this failure among all of the resource's."""
        self.state = ResourceState.FAILED
        self.failure, self.evidence = failure, evidence
        self.failed_at_us = now
        self.stays = self.to_fail = ""


@dataclass(slots=True)
class GroupFacts:
    """One group: its register as it was seen last, its resources, and the change of the whole group that is under
    way. `uncertain` after a change of which nobody knows whether it was made, until the register is seen again.
    """

    record: GroupRecord
    resources: dict[str, ResourceFacts] = field(default_factory=dict)
    change: int | None = None
    uncertain: bool = False

    def standing(self, name: str) -> ResourceState:
        """The state of a resource as a person must take it, with what is under way: Initializing while it is not
        known.
        """
        resource = self.resources[name]
        if resource.request is not None:
            return _UNDER_WAY[resource.request.entry_point]
        if self.record.epoch in (resource.opened_epoch, resource.closed_epoch):
            return resource.state
        return ResourceState.FAILED if resource.open_errors else ResourceState.INITIALIZING

    def restarts_of(self, now: int, spec: ResourceSpec, session: Session) -> list[Restart]:
        """The restarts in place that this session has made of a resource within its restart-period."""
        return [
            entry
            for entry in self.record.restarts
            if entry.resource == spec.name
            and entry.session == session
            and now - entry.at_us <= spec.policy.restart_period_us
        ]

    def may_be_starting(self, names: Iterable[str]) -> str:
        """The first of them that is going Online, or may be for all that is known here; empty when none is."""
        return next((name for name in sorted(names) if self.standing(name) in _STARTING), "")

    def providers_online(self, spec: ResourceSpec) -> bool:
        """Of each set of alternatives at least one provider is Online, and nothing is under way that ends it."""
        return all(
            any(self.standing(name) is ResourceState.ONLINE for name in alternatives)
            for alternatives in spec.depends_on
        )

    def providers_gone(self, spec: ResourceSpec) -> bool:
        """Some set of alternatives is known to have none left: gone, or not wanted and so about to go. A provider that
        was not opened yet proves nothing.
        """
        return any(all(self._leaves(name) for name in alternatives) for alternatives in spec.depends_on)

    def _leaves(self, name: str) -> bool:
        state = self.resources[name].state
        unwanted = not self.record.persistent.get(name, False)
        return state in _GONE or (unwanted and state is ResourceState.ONLINE)

    def dependents_down(self, spec: ResourceSpec) -> bool:
        """Nothing that is up depends on it, or it has another provider in its place that stays."""
        return all(
            self._is_down(other.name) or self._has_another(other, spec.name) for other in self.record.spec.resources
        )

    def _is_down(self, name: str) -> bool:
        """That it failed does not prove that it has ended. Where it is not wanted it is terminated next, and only that
        counts.
        """
        state = self.resources[name].state
        return state is ResourceState.OFFLINE or (
            state is ResourceState.FAILED and self.record.persistent.get(name, False)
        )

    def _has_another(self, dependent: ResourceSpec, provider: str) -> bool:
        """Whether every set of alternatives that names the provider has another one that is Online and stays so."""
        return all(
            any(name != provider and self._stays(name) for name in alternatives)
            for alternatives in dependent.depends_on
            if provider in alternatives
        )

    def _stays(self, name: str) -> bool:
        wanted = self.record.persistent.get(name, False)
        resource = self.resources[name]
        return wanted and resource.state is ResourceState.ONLINE and resource.request is None

    def dependents_closed(self, spec: ResourceSpec) -> bool:
        """Everything that depends on it was closed under this epoch."""
        return all(self.resources[name].closed_epoch == self.record.epoch for name in self._dependents(spec))

    def _dependents(self, spec: ResourceSpec) -> list[str]:
        return [
            other.name
            for other in self.record.spec.resources
            if any(spec.name in alternatives for alternatives in other.depends_on)
        ]
