"""`vm.kill`: a VM is killed through the engine, as `docker kill` does it.

The engine tells of the kill before it tells of the death. Whoever keeps the VM alive must all the same take it for
a failure and not for a wish: only a clean stop is one. A frozen VM dies of it as well.
"""

from chaos.arena.port import Arena, Effect
from chaos.arena.process_effects import KillVm
from chaos.faults.fault import RECEIPT_LIMIT_US, Plan, Receipt, lost_events
from chaos.faults.kinds import TargetKind
from chaos.faults.vm import events_of, running_vm, wait_event
from chaos.history.records import FaultMoment

__all__ = ["VmKill"]


class VmKill:
    """A VM is killed through the engine (`docker kill`): a failure, and not somebody's wish."""

    name = "vm.kill"
    target = TargetKind.VM
    effect: type[Effect] = KillVm
    undo = ""
    heals: frozenset[str] = frozenset()

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The VM must run, once."""
        seen = running_vm(await arena.containers(), target)
        effect = KillVm(vm=target, node=seen.node, container=seen.container)
        return Plan(target=target, effect=effect, affected=(target,))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed by a die event of its container, after a kill event with signal 9."""
        assert isinstance(plan.effect, KillVm)
        container = plan.effect.container
        death = await wait_event(arena, container, "die", since_ns=at_ns)
        if death is None:
            why = lost_events(arena, since_ns=at_ns) or f"no die event within {RECEIPT_LIMIT_US / 1e6:g} s"
            return Receipt(outcome=FaultMoment.INCONCLUSIVE, seen=f"{plan.target}: {why}")
        told = events_of(arena, container, since_ns=at_ns, until_ns=death.at_ns)
        if not any(event.action == "kill" and event.signal == 9 for event in told):
            return Receipt(outcome=FaultMoment.MISMATCH, seen=f"{plan.target} died, and no kill went before it")
        after_ms = (death.at_ns - at_ns) / 1e6
        return Receipt(outcome=FaultMoment.CONFIRMED, seen=f"{plan.target} was killed and died after {after_ms:.0f} ms")
