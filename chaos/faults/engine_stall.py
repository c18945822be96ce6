"""`engine.stall`: the engine's socket in one node takes calls and answers none, until `engine.resume`.

The node cannot start, stop or look at a VM, and cannot fence; what runs runs on. What it asked for meanwhile the
engine carries out afterwards, long after the caller gave up: the oldest trouble of clusters on one hypervisor. Needs
the setting `engine-proxy`, which the reader of an experiment switches on for a method with this fault.
"""

from chaos.arena.port import Arena, Effect, StallEngine, wait_until
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt, node_container
from chaos.faults.kinds import TargetKind
from chaos.history.records import FaultMoment

__all__ = ["EngineStall"]


class EngineStall:
    """The fault. Stateless."""

    name = "engine.stall"
    target = TargetKind.NODE
    effect: type[Effect] = StallEngine
    undo = "engine.resume"
    heals: frozenset[str] = frozenset()

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The node must run, and its engine must answer."""
        seen = node_container(await arena.containers(), target)
        if not seen.running or seen.paused:
            raise FaultRefused(f"node {target} is {'frozen' if seen.paused else 'off'}: nobody in it asks the engine")
        if (await arena.engine(target)).stalled:
            raise FaultRefused(f"the engine of node {target} is stalled already")
        return Plan(target=target, effect=StallEngine(node=target))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when a call from inside of the node gets no answer."""
        node = plan.target
        asked: list[bool | None] = [None]

        async def look() -> str:
            seen = await arena.engine(node)
            asked[0] = seen.answers
            if not seen.stalled:
                return f"the engine of {node} is not stalled"
            if seen.answers is None:
                return f"nobody in {node} could ask the engine"
            return f"the engine answers in {node}" if seen.answers else ""

        is_stalled, problem = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if not is_stalled:
            outcome = FaultMoment.INCONCLUSIVE if asked[0] is None else FaultMoment.MISMATCH
            return Receipt(outcome=outcome, seen=f"after {RECEIPT_LIMIT_US / 1e6:g} s {problem}")
        after_ms = (arena.unix_ns() - at_ns) / 1e6
        return Receipt(
            outcome=FaultMoment.CONFIRMED,
            seen=f"a call in {node} had no answer, seen {after_ms:.0f} ms after the stall",
        )
