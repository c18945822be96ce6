"""`vm.start`: a VM that was stopped by hand is started by hand, on the node that owns it.

It heals `vm.stop`: its PersistentState becomes 1 again. On any other node the cluster would terminate it at once.
"""

from chaos.arena.port import Arena, Effect
from chaos.arena.process_effects import StartVm
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt, lost_events
from chaos.faults.kinds import TargetKind
from chaos.faults.vm import containers_of, wait_event
from chaos.history.records import FaultMoment
from harness.errors import HarnessError

__all__ = ["VmStart"]


class VmStart:
    """A VM is started by hand on its owner (`docker start`), behind the cluster's back: PersistentState 1."""

    name = "vm.start"
    target = TargetKind.VM
    effect: type[Effect] = StartVm
    undo = ""
    heals = frozenset({"vm.stop"})

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The VM must run nowhere, and its owner must have its container ready."""
        mine = containers_of(await arena.containers(), target)
        running = [seen.node for seen in mine if seen.running]
        if running:
            raise FaultRefused(f"VM {target} runs on {', '.join(running)} already")
        owner = await self._owner(arena, target)
        ready = [seen for seen in mine if seen.node == owner]
        if not ready:
            nodes = ", ".join(sorted(seen.node for seen in mine)) or "no node"
            raise HarnessError(f"VM {target} has no container on its owner {owner}; it has one on {nodes}")
        return Plan(
            target=target, effect=StartVm(vm=target, node=owner, container=ready[-1].container)
        )

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed by a start event of its container on its owner."""
        assert isinstance(plan.effect, StartVm)
        container = plan.effect.container
        start = await wait_event(arena, container, "start", since_ns=at_ns)
        if start is not None:
            after_ms = (start.at_ns - at_ns) / 1e6
            seen = f"{plan.target} was started by hand on {plan.effect.node} after {after_ms:.0f} ms"
            return Receipt(outcome=FaultMoment.CONFIRMED, seen=seen)
        why = lost_events(arena, since_ns=at_ns) or f"no start event within {RECEIPT_LIMIT_US / 1e6:g} s"
        return Receipt(outcome=FaultMoment.INCONCLUSIVE, seen=f"{plan.target}: {why}")

    @staticmethod
    async def _owner(arena: Arena, vm: str) -> str:
        """Not knowing it is no reason to call the VM healed, so it is an error."""
        seen = await arena.cluster()
        for group in seen.groups:
            if group.owner and any(resource.name == vm for resource in group.resources):
                return group.owner
        raise HarnessError(f"no node tells who owns the group of {vm}: it cannot be started by hand")
