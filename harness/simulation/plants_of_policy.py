"""Broken clusters, continued: each ignores something that the owner of a group has said of it.

They are searched in rigs where it is said: `group` and `vm` of a plant are keys of each group's document, and of
its VM's.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness.cluster_service.core.messages import Action, RegisterSeen
from harness.cluster_service.placement.failover import FailoverManager
from harness.cluster_service.resources.failure_policy import FailurePolicy
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.cluster_service.service import ClusterService
from harness.model.records import GroupRecord
from harness.model.topology import SECOND_US
from harness.simulation.plants import Plant, service_of

__all__ = [
    "PLANTS_OF_POLICY",
    "AlternativesAreAllNeeded",
    "FailoversAreNeverForgotten",
    "FailoversAreNotCounted",
    "NothingIsRetried",
    "PossibleOwnersAreIgnored",
    "RestartDelayIsIgnored",
    "RestartsAreNotCounted",
    "with_policy",
]

HOUR_US = 3600 * SECOND_US


class _AnybodyMayOwn(FailoverManager):
    def seen(self, event: RegisterSeen) -> None:
        record = event.record
        assert isinstance(record, GroupRecord)
        super().seen(event._replace(record=replace(record, spec=replace(record.spec, possible_owners=()))))


class PossibleOwnersAreIgnored(Plant):
    """A group is claimed by a node that is no possible owner of it (the rules of the cluster, section 5)."""

    group = {"possible-owners": ["node1", "node2"]}
    service = service_of("failover", _AnybodyMayOwn)


class _NoAlternatives(ResourceControlManager):
    def seen(self, record: GroupRecord) -> list[Action]:
        specs = tuple(
            replace(spec, depends_on=tuple((name,) for names in spec.depends_on for name in names))
            for spec in record.spec.resources
        )
        return super().seen(replace(record, spec=replace(record.spec, resources=specs)))


class AlternativesAreAllNeeded(Plant):
    """Of two addresses of which one would do, a VM waits for both (the rules of the cluster, section 4)."""

    unrest = True
    second_address = True
    service = service_of("resource_control", _NoAlternatives)


def _owned_with(**given: Any) -> Callable[..., ClusterService]:
    """What makes a service that takes this for what is said of every group that it owns."""

    class Weak(ResourceControlManager):
        def seen(self, record: GroupRecord) -> list[Action]:
            return super().seen(replace(record, spec=replace(record.spec, **given)))

    return service_of("resource_control", Weak)


class FailoversAreNotCounted(Plant):
    """A group that fails everywhere is moved again and again (failover-threshold; the rules, section 5)."""

    group = {"failover-threshold": 1}
    service = _owned_with(failover_threshold=100)


class FailoversAreNeverForgotten(Plant):
    """A failure long ago uses up a failover (failover-period; the rules of the cluster, section 5)."""

    group = {"failover-threshold": 1, "failover-period": "10s"}
    vm = {"restart-threshold": 0}
    service = _owned_with(failover_period_us=HOUR_US)


class _Forgets(FailurePolicy):
    """Of a resource's policy, what `given` says."""

    given: dict[str, Any] = {}

    def next_for(self, now: int, facts: Any, spec: Any, wanted: bool) -> list[Action]:
        return super().next_for(now, facts, replace(spec, policy=replace(spec.policy, **self.given)), wanted)


def with_policy(**given: Any) -> Callable[..., ClusterService]:
    """What makes a service that takes this for every resource's policy, whatever was said of it."""

    class Weak(_Forgets):
        pass

    Weak.given = given
    return service_of("resource_control._failures", Weak)


class RestartsAreNotCounted(Plant):
    """A VM is restarted in place as often as it fails (restart-threshold; the rules, section 4)."""

    service = with_policy(restart_threshold=100)


class RestartDelayIsIgnored(Plant):
    """The second restart in a row does not wait (restart-delay; the rules, section 4)."""

    vm = {"restart-threshold": 3, "restart-delay": "2s", "restart-period": "30s"}
    service = with_policy(restart_delay_us=0)


class NothingIsRetried(Plant):
    """What has used up its policy stays Failed although its retry period is over (the rules, section 4)."""

    unrest = True
    vm = {"restart-threshold": 0, "restart-action": "restart", "retry-period-on-failure": "10s"}
    service = with_policy(retry_period_us=None)


PLANTS_OF_POLICY: tuple[type[Plant], ...] = (
    PossibleOwnersAreIgnored,
    AlternativesAreAllNeeded,
    FailoversAreNotCounted,
    FailoversAreNeverForgotten,
    RestartsAreNotCounted,
    RestartDelayIsIgnored,
    NothingIsRetried,
)
