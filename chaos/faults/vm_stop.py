"""`vm.stop`: a VM is stopped cleanly by hand, as `docker stop` does it, behind the cluster's back.

That is a wish: its PersistentState becomes 0 and nobody starts it again, until somebody does it by hand on its owner
(`vm.start`, which heals this). So no recovery is expected of the VM meanwhile.
"""

from chaos.arena.port import Arena, Effect
from chaos.arena.process_effects import StopVm
from chaos.faults.fault import FaultRefused, Plan, Receipt, lost_events
from chaos.faults.kinds import TargetKind
from chaos.faults.vm import events_of, running_vm, wait_event
from chaos.history.records import FaultMoment

__all__ = ["VmStop"]


class VmStop:
    """A VM is stopped cleanly by hand (`docker stop`), behind the cluster's back: PersistentState becomes 0."""

    name = "vm.stop"
    target = TargetKind.VM
    effect: type[Effect] = StopVm
    undo = "vm.start"
    heals: frozenset[str] = frozenset()

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The VM must run, once, and not be frozen: a frozen one is killed, not stopped."""
        seen = running_vm(await arena.containers(), target)
        if seen.paused:
            raise FaultRefused(f"VM {target} is paused: it could not end cleanly")
        return Plan(target=target, effect=StopVm(vm=target, node=seen.node, container=seen.container))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed by a die event of its container and a stop event beside it."""
        assert isinstance(plan.effect, StopVm)
        container = plan.effect.container
        stop = await wait_event(arena, container, "stop", since_ns=at_ns)
        died = any(event.action == "die" for event in events_of(arena, container, since_ns=at_ns))
        if stop is not None and died:
            after_ms = (stop.at_ns - at_ns) / 1e6
            return Receipt(outcome=FaultMoment.CONFIRMED, seen=f"{plan.target} was stopped after {after_ms:.0f} ms")
        lost = lost_events(arena, since_ns=at_ns)
        if lost or not died:
            return Receipt(
                outcome=FaultMoment.INCONCLUSIVE, seen=f"{plan.target}: {lost or 'its end was no event of the engine'}"
            )
        return Receipt(outcome=FaultMoment.MISMATCH, seen=f"{plan.target} died without a stop event: that is no wish")
