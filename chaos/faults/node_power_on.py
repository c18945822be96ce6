"""`node.power-on`: a node that was held off gets its power back.

It heals `node.power-off`. The node boots by itself from there; that it joins the cluster again is for a probe to say,
not for this receipt.
"""

from chaos.arena.port import Arena, Effect, PowerOn, wait_until
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt, node_container
from chaos.faults.kinds import TargetKind
from chaos.history.records import FaultMoment

__all__ = ["NodePowerOn"]


class NodePowerOn:
    """The fault, and the cure. Stateless."""

    name = "node.power-on"
    target = TargetKind.NODE
    effect: type[Effect] = PowerOn
    undo = ""
    heals = frozenset({"node.power-off"})

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The node must be off or held."""
        if node_container(await arena.containers(), target).running and not await arena.held(target):
            raise FaultRefused(f"node {target} is on already")
        return Plan(target=target, effect=PowerOn(node=target))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when nothing holds the node and the engine shows it running."""
        node = plan.target

        async def look() -> str:
            if await arena.held(node):
                return f"node {node} is still held off"
            return "" if node_container(await arena.containers(), node).running else f"node {node} is off"

        is_on, seen = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if not is_on:
            return Receipt(outcome=FaultMoment.MISMATCH, seen=f"after {RECEIPT_LIMIT_US / 1e6:g} s {seen}")
        after_ms = (arena.unix_ns() - at_ns) / 1e6
        return Receipt(
            outcome=FaultMoment.CONFIRMED,
            seen=f"node {node} runs and nothing holds it, {after_ms:.0f} ms after the call",
        )
