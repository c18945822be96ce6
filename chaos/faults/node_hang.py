"""`node.hang`: a node freezes as a whole, its own processes and every VM on it.

What a hypervisor does that stops for a while: nobody in it sees time pass, its lease ends unheard, and when it goes on
it believes what it believed. The survivors may have fenced it by then; what was killed does not thaw. Fencing `self`
cannot cover it, because the watchdog freezes too: a file that uses both is refused.
"""

from chaos.arena.port import Arena, Effect, HangNode, wait_until
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
from chaos.history.records import ContainerRole, EngineEventSeen, FaultMoment

__all__ = ["NodeHang"]

FREEZING_NS = 1_000_000_000
"""From the node's pause to the last VM's: a tenth of a second for six, half a lease on a loaded host."""


class NodeHang:
    """The fault. Stateless."""

    name = "node.hang"
    target = TargetKind.NODE
    effect: type[Effect] = HangNode
    undo = "node.thaw"
    heals: frozenset[str] = frozenset()

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The node must run, and not be frozen already."""
        containers = await arena.containers()
        seen = node_container(containers, target)
        if not seen.running:
            raise FaultRefused(f"node {target} is off: there is nothing to freeze")
        if seen.paused:
            raise FaultRefused(f"node {target} is frozen already")
        vms = tuple(found.vm for found in vms_on(containers, target))
        return Plan(target=target, effect=HangNode(node=target), affected=vms)

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed by the pause events of the node and of every VM that was on it.

        By events and not by a look at it, because survivors may kill the node while somebody looks.
        """
        node = plan.target

        async def look() -> str:
            pauses = node_events(arena, node, "pause", since_ns=at_ns)
            if not pauses:
                return f"node {node} did not freeze"
            late = [name for name in plan.affected if not _stopped(arena, pauses[0], name, since_ns=at_ns)]
            return f"{', '.join(late)} on {node} did not freeze" if late else ""

        is_frozen, seen = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if is_frozen:
            after_ms = (node_events(arena, node, "pause", since_ns=at_ns)[0].at_ns - at_ns) / 1e6
            seen = f"node {node} froze after {after_ms:.0f} ms, and its {len(plan.affected)} VMs with it"
            return Receipt(outcome=FaultMoment.CONFIRMED, seen=seen)
        lost = lost_events(arena, since_ns=at_ns)
        if lost:
            return Receipt(outcome=FaultMoment.INCONCLUSIVE, seen=f"{seen}, or {lost}")
        return Receipt(outcome=FaultMoment.MISMATCH, seen=f"after {RECEIPT_LIMIT_US / 1e6:g} s {seen}")


def _stopped(arena: Arena, pause: EngineEventSeen, vm: str, *, since_ns: int) -> bool:
    """Frozen, or dead of itself while its node froze; a fence that kills both comes later."""
    dead_by_ns = pause.at_ns + FREEZING_NS
    return any(
        event.action == "pause" or (event.action == "die" and event.at_ns < dead_by_ns)
        for event in arena.history.of(EngineEventSeen)
        if event.role is ContainerRole.VM
        and event.vm == vm
        and event.node == pause.node
        and event.at_ns >= since_ns
    )
