"""What the service's shell asks VMMS to do to other nodes, and what it tells the service of how that ended."""

from harness.cluster_service.core.messages import FenceEnded, FenceNode, PowerOnEnded
from harness.errors import EngineError
from harness.simulation.twins.vmms_link import VmmsLink
from harness.simulation.world.composition import Composition

__all__ = ["fenced", "powered_on"]


async def fenced(link: VmmsLink, action: FenceNode, composition: Composition) -> FenceEnded:
    """Fence a session."""
    try:
        await composition.fence(link, action.session, action.not_after_us)
    except EngineError as failure:
        return FenceEnded(session=action.session, error=str(failure))
    return FenceEnded(session=action.session, error=None)


async def powered_on(link: VmmsLink, node: str) -> PowerOnEnded:
    """Switch a node on."""
    try:
        return PowerOnEnded(node=node, held=not await link.power_on(node))
    except EngineError as failure:
        return PowerOnEnded(node=node, error=str(failure))
