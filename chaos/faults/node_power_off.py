"""`node.power-off`: a node loses its power and stays off.

The node and its VMs end at once, in parallel: a frozen VM would keep its node alive. The hold keeps everybody
from powering it on again (a survivor that fences a node does that as soon as it is off) until `node.power-on` removes
it. Off means that the engine shows the node and every VM of it not running.
"""

from chaos.arena.port import Arena, Effect, PowerOff, wait_until
from chaos.faults.fault import (
    RECEIPT_LIMIT_US,
    FaultRefused,
    Plan,
    Receipt,
    lost_events,
    node_container,
    node_events,
    vms_on,
)
from chaos.faults.kinds import TargetKind
from chaos.history.records import FaultMoment

__all__ = ["NodePowerOff"]


class NodePowerOff:
    """The fault. Stateless."""

    name = "node.power-off"
    target = TargetKind.NODE
    effect: type[Effect] = PowerOff
    undo = "node.power-on"
    heals: frozenset[str] = frozenset()

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The node must run."""
        containers = await arena.containers()
        if not node_container(containers, target).running:
            raise FaultRefused(f"node {target} is off already")
        vms = tuple(seen.vm for seen in vms_on(containers, target))
        return Plan(target=target, effect=PowerOff(node=target), affected=vms)

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when the node is held, neither it nor a VM of it runs, and its death was an event after
        `at_ns`.
        """
        node = plan.target

        async def look() -> str:
            containers = await arena.containers()
            if node_container(containers, node).running:
                return f"node {node} runs"
            still = [seen.vm for seen in vms_on(containers, node)]
            if still:
                return f"{', '.join(still)} still run on {node}"
            return "" if await arena.held(node) else f"node {node} is not held off"

        is_off, seen = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if not is_off:
            return Receipt(outcome=FaultMoment.MISMATCH, seen=f"after {RECEIPT_LIMIT_US / 1e6:g} s {seen}")
        return _with_death(arena, plan, at_ns)


def _with_death(arena: Arena, plan: Plan, at_ns: int) -> Receipt:
    deaths = node_events(arena, plan.target, "die", since_ns=at_ns)
    if not deaths:
        why = lost_events(arena, since_ns=at_ns) or "its die event was not seen"
        return Receipt(outcome=FaultMoment.INCONCLUSIVE, seen=f"node {plan.target} is off, but {why}")
    after_ms = (deaths[0].at_ns - at_ns) / 1e6
    return Receipt(
        outcome=FaultMoment.CONFIRMED,
        seen=f"node {plan.target} died after {after_ms:.0f} ms, off and held, with {len(plan.affected)} VMs",
    )
