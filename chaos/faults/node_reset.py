"""`node.reset`: a node reboots by itself, as after a bug check or a press of its reset button.

PID 1 ends from inside, so the engine sees a death that nobody asked it for, the kernel ends every VM of the node,
and the restart policy gives the node a new life at once. Nothing is left to heal.
"""

from chaos.arena.port import Arena, Effect, ResetNode, wait_until
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

__all__ = ["NodeReset"]


class NodeReset:
    """The fault. Stateless."""

    name = "node.reset"
    target = TargetKind.NODE
    effect: type[Effect] = ResetNode
    undo = ""
    heals: frozenset[str] = frozenset()

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The node must run and not be frozen: a frozen PID 1 takes no signal."""
        containers = await arena.containers()
        seen = node_container(containers, target)
        if not seen.running:
            raise FaultRefused(f"node {target} is off: it cannot reset itself")
        if seen.paused:
            raise FaultRefused(f"node {target} is frozen: it cannot reset itself before it is thawed")
        vms = tuple(found.vm for found in vms_on(containers, target))
        return Plan(target=target, effect=ResetNode(node=target), affected=vms)

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed by a die event of the node without a kill before it, and a start after it."""
        node = plan.target

        async def look() -> str:
            deaths = node_events(arena, node, "die", since_ns=at_ns)
            if not deaths:
                return f"node {node} did not die"
            return "" if node_events(arena, node, "start", since_ns=deaths[0].at_ns) else f"node {node} stays off"

        is_back, seen = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if not is_back:
            lost = lost_events(arena, since_ns=at_ns)
            outcome = FaultMoment.INCONCLUSIVE if lost else FaultMoment.MISMATCH
            return Receipt(outcome=outcome, seen=lost or f"after {RECEIPT_LIMIT_US / 1e6:g} s {seen}")
        death = node_events(arena, node, "die", since_ns=at_ns)[0]
        start = node_events(arena, node, "start", since_ns=death.at_ns)[0]
        asked = node_events(arena, node, "kill", "stop", since_ns=at_ns)
        if any(event.at_ns <= death.at_ns for event in asked):
            seen = f"node {node} was killed through the engine before it reset itself"
            return Receipt(outcome=FaultMoment.MISMATCH, seen=seen)
        back_s = (start.at_ns - death.at_ns) / 1e9
        fenced = " (it was fenced meanwhile)" if any(event.at_ns <= start.at_ns for event in asked) else ""
        return Receipt(
            outcome=FaultMoment.CONFIRMED,
            seen=f"node {node} died with status {death.exit_code}, no kill before it, and has a new life "
            f"{back_s:.1f} s later{fenced}",
        )
