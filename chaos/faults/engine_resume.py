"""`engine.resume`: the engine's socket in a node answers again.

It heals `engine.stall`. What was asked meanwhile is carried out now, late (`then: forward`, the default), or never
(`then: drop`): both happen to a real engine, which hangs or is restarted.
"""

from collections.abc import Mapping
from typing import Any

from chaos.arena.port import Arena, Effect, ResumeEngine, wait_until
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt
from chaos.faults.kinds import FaultArgument, TargetKind
from chaos.history.records import FaultMoment

__all__ = ["EngineResume"]


class EngineResume:
    """The fault, and the cure. Immutable."""

    name = "engine.resume"
    target = TargetKind.NODE
    effect: type[Effect] = ResumeEngine
    undo = ""
    heals = frozenset({"engine.stall"})
    arguments: Mapping[str, FaultArgument] = {"then": FaultArgument.HELD_CALLS}

    def __init__(self, *, drop: bool = False) -> None:
        self._drop = drop

    def adjusted(self, arguments: Mapping[str, Any]) -> "EngineResume":
        """With `then`: forward or drop."""
        return EngineResume(drop=arguments.get("then") == "drop")

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The engine of the node must be stalled."""
        if not (await arena.engine(target)).stalled:
            raise FaultRefused(f"the engine of node {target} is not stalled")
        return Plan(target=target, effect=ResumeEngine(node=target, drop=self._drop))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when a call from inside of the node is answered, or nothing is stalled and nobody can ask."""
        node = plan.target
        told: list[str] = []

        async def look() -> str:
            seen = await arena.engine(node)
            told[:] = ["answers" if seen.answers else "is not stalled; the node is not there to ask it"]
            if seen.stalled:
                return f"the engine of {node} is still stalled"
            return f"the engine does not answer in {node}" if seen.answers is False else ""

        is_back, problem = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if not is_back:
            return Receipt(outcome=FaultMoment.MISMATCH, seen=f"after {RECEIPT_LIMIT_US / 1e6:g} s {problem}")
        after_ms = (arena.unix_ns() - at_ns) / 1e6
        return Receipt(
            outcome=FaultMoment.CONFIRMED, seen=f"the engine of {node} {told[0]}, {after_ms:.0f} ms after the call"
        )
