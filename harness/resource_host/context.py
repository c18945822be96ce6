"""What a driver is told with each call."""

from collections.abc import Callable

from harness.model.host_messages import HostRequest
from harness.model.states import ResourceState
from harness.model.vm import Order
from harness.resource_host.driver import DriverContext, DriverStatus
from harness.resource_host.resource import HostedResource

__all__ = ["make_context"]


def make_context(
    resource: HostedResource,
    request: HostRequest,
    *,
    siblings: Callable[[str], dict[str, ResourceState]],
    report: Callable[[HostedResource, DriverStatus], None],
) -> DriverContext:
    """The context of one call under the right that `request` carries."""
    return DriverContext(
        resource=resource.name,
        group=resource.group,
        spec=resource.spec,
        wanted=request.wanted,
        session=request.session,
        epoch=request.epoch,
        order=Order(session=request.session, epoch=request.epoch, not_after_us=request.not_after_us),
        adopt=request.adopt,
        why=request.why,
        siblings=siblings(resource.group),
        report=lambda status: report(resource, status),
    )
