"""`node.join-network`: a node that was cut off is on the network again.

It heals `node.isolate`. That the node joins the cluster again is for a probe to say, not for this receipt.
"""

from chaos.arena.port import Arena, Effect, JoinNetwork, wait_until
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt, node_container
from chaos.faults.kinds import TargetKind
from chaos.history.records import FaultMoment

__all__ = ["NodeJoinNetwork"]


class NodeJoinNetwork:
    """The fault, and the cure. Stateless."""

    name = "node.join-network"
    target = TargetKind.NODE
    effect: type[Effect] = JoinNetwork
    undo = ""
    heals = frozenset({"node.isolate"})

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The node must be cut off, in this life or in its next."""
        seen = await arena.network(target)
        if not seen.cut and not seen.kept:
            raise FaultRefused(f"node {target} is not cut off")
        return Plan(target=target, effect=JoinNetwork(node=target))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when no rule drops packets, and the node, if it runs, answers another one."""
        node = plan.target
        told: list[str] = []

        async def look() -> str:
            container = node_container(await arena.containers(), node)
            seen = await arena.network(node)
            if seen.kept:
                return f"{node} is still to be cut off in its next life"
            if not container.running or container.paused:
                told[:] = [f"node {node} is {'frozen' if container.paused else 'off'}, and nothing will cut it off"]
                return ""
            told[:] = [f"node {node} answers {seen.prober}" if seen.prober else f"no rule drops packets in {node}"]
            if seen.cut:
                return f"rules in {node} still drop packets"
            return f"{node} does not answer {seen.prober}" if seen.reached is False else ""

        is_joined, problem = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if not is_joined:
            return Receipt(outcome=FaultMoment.MISMATCH, seen=f"after {RECEIPT_LIMIT_US / 1e6:g} s {problem}")
        after_ms = (arena.unix_ns() - at_ns) / 1e6
        return Receipt(outcome=FaultMoment.CONFIRMED, seen=f"{told[0]}, {after_ms:.0f} ms after the call")
