"""What a driver says without being asked, and what becomes of it.

| the resource | the driver says | then |
|---|---|---|
| a call is under way | anything pending | it is alive: the silence begins anew, a report with a higher checkpoint |
| a call is under way | an end | kept; after the call it counts if the resource is Online in that very run |
| Online | Failed or Offline, of this run | taken on and reported |
| Online | Online, of another run | the new run is taken on and reported |
| Offline or Failed | Online | taken on and reported: a start by hand; what it means is for the service to say |
| any other | | nothing |
"""

from harness.model.states import ResourceState
from harness.resource_host.driver import DriverStatus
from harness.resource_host.resource import HostedResource

__all__ = ["hear", "hear_what_was_kept"]

_ENDS = (ResourceState.FAILED, ResourceState.OFFLINE)


def hear(resource: HostedResource, status: DriverStatus) -> None:
    """The driver's `report`."""
    if resource.closed:
        return
    if resource.busy:
        _hear_while_busy(resource, status)
    elif resource.state is ResourceState.ONLINE:
        same_run = not status.run or not resource.status.run or status.run == resource.status.run
        if (status.state in _ENDS and same_run) or (status.state is ResourceState.ONLINE and not same_run):
            _take_on(resource, status)
    elif resource.state in _ENDS and status.state is ResourceState.ONLINE:
        _take_on(resource, status)


def hear_what_was_kept(resource: HostedResource) -> None:
    """After a call: an end that was told during it, unless the call has dealt with it. A start is not kept: the call's
    outcome is newer.
    """
    kept = resource.take_heard()
    if kept is not None and kept.state in _ENDS and kept.run and not resource.closed:
        hear(resource, kept)


def _hear_while_busy(resource: HostedResource, status: DriverStatus) -> None:
    resource.heard_us = resource.now()
    if status.state.pending:
        resource.checkpoint += 1
        resource.tell()
    else:
        resource.heard_while_busy = status
    resource.changed.notify()


def _take_on(resource: HostedResource, status: DriverStatus) -> None:
    life = resource.online_life
    resource.become(status)
    resource.tell()
    if status.state is ResourceState.ONLINE and resource.online_life != life:
        resource.when_online(resource)
