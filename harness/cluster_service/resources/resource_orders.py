"""The orders that the Resource Control Manager gives: requests to the resource host, changes of a group's register.

Every decision goes out through here, so that what is under way is noted in the facts at the moment it is ordered: at
most one request for a resource, at most one change for a group. What is not allowed to happen yet sets a wake.
"""

import heapq

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import CallHost, ChangeRegister
from harness.cluster_service.core.takeover_delay import earliest_after
from harness.cluster_service.membership.node import NodeManager
from harness.cluster_service.resources.resource_facts import GroupFacts, ResourceFacts
from harness.model.changes import Change
from harness.model.host_messages import CallReason, EntryPoint, HostRequest
from harness.model.register_keys import group_key
from harness.model.session import Session
from harness.model.topology import ResourceSpec

__all__ = ["ResourceOrders"]


class ResourceOrders:
    """Makes orders under this session's right, and keeps the times at which the first delay in each group is over."""

    def __init__(self, *, session: Session, node: NodeManager, ids: Ids) -> None:
        self._wakes: dict[str, int] = {}
        self._in_order: list[tuple[int, str]] = []
        self._session = session
        self._node = node
        self._ids = ids
        self._changes: dict[int, tuple[str, str | None]] = {}

    def wake(self, facts: GroupFacts, when_us: int) -> None:
        """Look at the group again at that time."""
        group = facts.record.spec.name
        known = self._wakes.get(group)
        if known is None or when_us < known:
            self._wakes[group] = when_us
            heapq.heappush(self._in_order, (when_us, group))

    def looks_at(self, group: str) -> None:
        """The group is looked at now, whatever it was to be looked at for."""
        self._wakes.pop(group, None)

    def due(self, now: int) -> set[str]:
        """The groups that are to be looked at by now."""
        first_us = self._first_us()
        if first_us is None or now < first_us:
            return set()
        return {name for name, when_us in self._wakes.items() if now >= when_us}

    def next_wake(self, now: int) -> int | None:
        """When after `now` a group is to be looked at next."""
        first_us = self._first_us()
        return first_us if first_us is None or now < first_us else earliest_after(now, self._wakes.values())

    def _first_us(self) -> int | None:
        """The earliest of all times."""
        heap = self._in_order
        while heap and self._wakes.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def free(self, now: int, facts: GroupFacts, resource: ResourceFacts) -> bool:
        """Whether a request for that resource may be made now."""
        if resource.request is not None or resource.change is not None:
            return False
        if now < resource.not_before_us:
            self.wake(facts, resource.not_before_us)
            return False
        return True

    def call(
        self,
        now: int,
        facts: GroupFacts,
        spec: ResourceSpec,
        entry_point: EntryPoint,
        *,
        why: CallReason,
        adopt: bool = False,
    ) -> CallHost:
        """A request to the resource host, good until the end of the lease."""
        end = self._node.lease_end_us()
        assert end is not None
        opening = entry_point is EntryPoint.OPEN
        request = HostRequest(
            number=self._ids.next(),
            entry_point=entry_point,
            resource=spec.name,
            group=facts.record.spec.name,
            session=self._session,
            epoch=facts.record.epoch,
            not_after_us=end,
            why=why,
            wanted=facts.record.persistent.get(spec.name, False),
            adopt=adopt,
            spec=spec if opening else None,
        )
        resource = facts.resources[spec.name]
        resource.request, resource.asked_us = request, now
        return CallHost(request)

    def change(self, facts: GroupFacts, change: Change, *, resource: str | None = None) -> ChangeRegister:
        """A change of the group's register, because of `resource` or of the group as a whole."""
        name = facts.record.spec.name
        wish = ChangeRegister(id=self._ids.next(), key=group_key(name), change=change)
        self._changes[wish.id] = (name, resource)
        facts.change = wish.id
        if resource is not None:
            facts.resources[resource].change = wish.id
        return wish

    def ended(self, change: int) -> tuple[str, str | None] | None:
        """The group and the resource of a change that has settled; None for a change of somebody else."""
        return self._changes.pop(change, None)
