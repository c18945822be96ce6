"""`node.thaw`: a node that was frozen goes on, with its VMs.

It heals `node.hang`. A node that was fenced while it was frozen is simply not there any more: then nothing is left to
thaw, which is no failure of this cure and is said in its receipt.
"""

from chaos.arena.port import Arena, Effect, ThawNode, wait_until
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt, node_container, node_events
from chaos.faults.kinds import TargetKind
from chaos.history.records import ContainerRole, EngineEventSeen, FaultMoment

__all__ = ["NodeThaw"]


class NodeThaw:
    """The fault, and the cure. Stateless."""

    name = "node.thaw"
    target = TargetKind.NODE
    effect: type[Effect] = ThawNode
    undo = ""
    heals = frozenset({"node.hang"})

    async def plan(self, arena: Arena, target: str) -> Plan:
        """Something of the node must be frozen, or must have been when it was killed."""
        if not await _frozen(arena, target) and not _killed_frozen(arena, target):
            raise FaultRefused(f"nothing of node {target} is frozen")
        return Plan(target=target, effect=ThawNode(node=target))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when the engine shows nothing of the node frozen any more."""
        node = plan.target

        async def look() -> str:
            frozen = await _frozen(arena, node)
            return f"{', '.join(frozen)} still frozen" if frozen else ""

        is_thawed, seen = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if not is_thawed:
            return Receipt(outcome=FaultMoment.MISMATCH, seen=f"after {RECEIPT_LIMIT_US / 1e6:g} s {seen}")
        killed = _killed_frozen(arena, node)
        if killed is not None:
            seen = f"node {node} was killed while it was frozen (by a fence, or a power cut): nothing was left to thaw"
            return Receipt(outcome=FaultMoment.CONFIRMED, seen=seen)
        after_ms = (arena.unix_ns() - at_ns) / 1e6
        return Receipt(outcome=FaultMoment.CONFIRMED, seen=f"node {node} goes on, {after_ms:.0f} ms after the call")


async def _frozen(arena: Arena, node: str) -> list[str]:
    containers = await arena.containers()
    node_container(containers, node)
    mine = [seen for seen in containers if seen.node == node and seen.role in (ContainerRole.NODE, ContainerRole.VM)]
    return [seen.vm or f"node {node}" for seen in mine if seen.paused]


def _killed_frozen(arena: Arena, node: str) -> EngineEventSeen | None:
    """The death of the node's last frozen life, if it died before it was thawed."""
    events = node_events(arena, node, "pause", "unpause", "die")
    paused = [index for index, event in enumerate(events) if event.action == "pause"]
    if not paused:
        return None
    following = events[paused[-1] + 1 :]
    return following[0] if following and following[0].action == "die" else None
