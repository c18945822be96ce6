"""Broken clusters, continued: rules of the resource hosts, and of what a service asks of them.

Like those of `plants`, they exist only as compositions of a simulated world.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness.cluster_service.core.messages import Action, CallHost
from harness.cluster_service.resources.failure_policy import FailurePolicy
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.cluster_service.resources.resource_facts import GroupFacts
from harness.drivers.virtual_machine import VirtualMachineDriver
from harness.model.host_messages import CallReason, EntryPoint, HostRequest
from harness.model.states import ResourceState
from harness.model.topology import ResourceSpec
from harness.model.vm import Proof, VmNotice
from harness.resource_host.driver import DriverContext, DriverStatus
from harness.resource_host.entry_points import EntryPoints
from harness.resource_host.host import ResourceHost
from harness.resource_host.polls import Polls
from harness.resource_host.resource import HostedResource
from harness.simulation.plants import Plant, Weaken, made_with, service_of, vms_driven_by, with_class
from harness.simulation.world.composition import Composition

__all__ = ["PLANTS_OF_HOSTS"]


def host_with(weaken: Weaken) -> Callable[..., ResourceHost]:
    """What makes a resource host that `weaken` has changed: assigned to `resource_host` of a composition."""
    return made_with(Composition.resource_host, weaken)


def with_polls(polls: type[Polls]) -> Weaken:
    """It polls in that way."""
    return with_class("_polls", polls)


def with_entry_points(entry_points: type[EntryPoints]) -> Weaken:
    """It carries requests out in that way."""
    return with_class("_entry_points", entry_points)


# Starts and restarts


class _StartsAllAtOnce(ResourceControlManager):
    def _may_start(self, now: int) -> bool:
        del now
        return True


class AllStartAtOnce(Plant):
    """A node starts as many VMs at once as there are (a limit for each node; the rules, section 5)."""

    groups = 33
    service = service_of("resource_control", _StartsAllAtOnce)


class _RestartsWithoutAnEnd(FailurePolicy):
    def next_for(self, now: int, facts: GroupFacts, spec: ResourceSpec, wanted: bool) -> list[Action]:
        return [self._online(facts, action) for action in super().next_for(now, facts, spec, wanted)]

    @staticmethod
    def _online(facts: GroupFacts, action: Action) -> Action:
        if not isinstance(action, CallHost) or action.request.why is not CallReason.RESTART:
            return action
        request = replace(action.request, entry_point=EntryPoint.ONLINE)
        facts.resources[request.resource].request = request
        return CallHost(request)


class RestartsDoNotTerminate(Plant):
    """What has failed is brought Online again, and not terminated before (the rules of the cluster, section 1)."""

    service = service_of("resource_control._failures", _RestartsWithoutAnEnd)


class _LeavesFailedStarts(EntryPoints):
    async def _terminate_after(self, resource: HostedResource, request: HostRequest) -> Proof | None:
        if request.entry_point is EntryPoint.ONLINE:
            return None
        return await super()._terminate_after(resource, request)


class FailedStartsAreLeft(Plant):
    """After an error from `online` a VM is Failed, and not terminated (driver entry points; the rules, section 3).
    """

    resource_host = host_with(with_entry_points(_LeavesFailedStarts))


# Calls


class _GoesOnAtOnce(EntryPoints):
    async def carry_out(self, resource: HostedResource, request: HostRequest) -> None:
        self._runtime.spawn(super().carry_out(resource, request), name=f"{request.entry_point} of {resource.name}")


class CallsOverlap(Plant):
    """A resource host begins the next call for a resource while one is under way (the rules, section 3)."""

    resource_host = host_with(with_entry_points(_GoesOnAtOnce))


class _WaitsForEveryEnd(EntryPoints):
    def _time_left(self, resource: HostedResource, began_us: int, *, silence: bool) -> int:
        return super()._time_left(resource, began_us, silence=silence and resource.entered != "offline")


class SilentEndsAreWaitedFor(Plant):
    """A VM that does not end is OfflinePending past its pending-timeout (the rules of the cluster, section 4)."""

    vm = {"pending-timeout": "500ms"}
    resource_host = host_with(with_entry_points(_WaitsForEveryEnd))


# Checks


class _AsksNoIsAlive(Polls):
    async def _poll(self, resource: HostedResource, entry: str, check: Any) -> None:
        if entry != "is_alive":
            await super()._poll(resource, entry, check)


class IsAliveIsNotAsked(Plant):
    """Nobody asks whether a VM is alive: what no event tells is not found (IsAlive; the rules, section 1)."""

    vm = {"is-alive-interval": "500ms"}
    resource_host = host_with(with_polls(_AsksNoIsAlive))


class _BelievesIsAliveOnly(Polls):
    async def _answer(self, resource: HostedResource, entry: str, check: Any, limit_us: int) -> DriverStatus | None:
        status = await super()._answer(resource, entry, check, limit_us)
        bad = status is not None and status.state is not ResourceState.ONLINE
        return None if bad and entry == "looks_alive" else status


class LooksAliveIsIgnored(Plant):
    """A bad answer of the thorough check counts for nothing (LooksAlive; the rules of the cluster, section 1)."""

    vm = {"is-alive-interval": "1h", "looks-alive-interval": "500ms"}
    resource_host = host_with(with_polls(_BelievesIsAliveOnly))


# Starts and stops by hand


class _EndsWhatWasStarted(ResourceControlManager):
    def _next_for(self, now: int, facts: GroupFacts, spec: ResourceSpec) -> list[Action]:
        facts.resources[spec.name].found_online = False
        return super()._next_for(now, facts, spec)


class StartsByHandAreEnded(Plant):
    """A VM that somebody starts by hand on its owner is ended again (out-of-band changes; the rules, section 3).
    """

    group = {"priority": "no-auto-start"}
    service = service_of("resource_control", _EndsWhatWasStarted)


class _SeesNoStarts(VirtualMachineDriver):
    async def _verify_start(self, context: DriverContext, notice: VmNotice) -> None:
        del context, notice


class StartsByHandAreNotSeen(Plant):
    """A VM that somebody starts by hand on its owner runs on, and counts as Offline (the rules, section 3)."""

    unrest = True
    group = {"priority": "no-auto-start"}
    drivers = vms_driven_by(_SeesNoStarts)


class _AllowsEveryStop(ResourceControlManager):
    @staticmethod
    def _must_not_stop(facts: GroupFacts, name: str) -> bool:
        del facts, name
        return False


class ShutdownActionIsIgnored(Plant):
    """A stop by hand is a wish, although the VM's shutdown-action is fail (the rules, section 1)."""

    vm = {"shutdown-action": "fail"}
    service = service_of("resource_control", _AllowsEveryStop)


PLANTS_OF_HOSTS: tuple[type[Plant], ...] = (
    AllStartAtOnce,
    RestartsDoNotTerminate,
    FailedStartsAreLeft,
    CallsOverlap,
    SilentEndsAreWaitedFor,
    IsAliveIsNotAsked,
    LooksAliveIsIgnored,
    StartsByHandAreEnded,
    StartsByHandAreNotSeen,
    ShutdownActionIsIgnored,
)
