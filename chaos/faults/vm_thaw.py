"""`vm.thaw`: a VM that hangs goes on. It heals `vm.hang`, however the VM was made to hang."""

from chaos.arena.port import Arena, Effect, wait_until
from chaos.arena.process_effects import Freezing, ThawVm
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt, lost_events
from chaos.faults.kinds import TargetKind
from chaos.faults.vm import containers_of, events_of
from chaos.history.records import FaultMoment

__all__ = ["VmThaw"]


class VmThaw:
    """A VM that hangs goes on."""

    name = "vm.thaw"
    target = TargetKind.VM
    effect: type[Effect] = ThawVm
    undo = ""
    heals = frozenset({"vm.hang"})

    async def plan(self, arena: Arena, target: str) -> Plan:
        """A container of the VM must be frozen, or all its processes be stopped."""
        running = [seen for seen in containers_of(await arena.containers(), target) if seen.running]
        for seen in running:
            how = Freezing.PAUSE
            if not seen.paused:
                states = (await arena.inside(seen.node)).vms.get(seen.container, "")
                if "T" not in states:
                    continue
                how = Freezing.SIGSTOP
            effect = ThawVm(vm=target, node=seen.node, container=seen.container, how=how)
            return Plan(target=target, effect=effect)
        raise FaultRefused(f"VM {target} does not hang: it {'runs' if running else 'does not run'}")

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed by the engine's unpause event, or by no process of it in state T in /proc; also when it died."""
        effect = plan.effect
        assert isinstance(effect, ThawVm)

        async def look() -> str:
            told = [event.action for event in events_of(arena, effect.container, since_ns=at_ns)]
            if "die" in told:
                return ""
            if effect.how is Freezing.PAUSE:
                return "" if "unpause" in told else "the engine has not thawed it"
            states = (await arena.inside(effect.node)).vms.get(effect.container, "")
            return "" if "T" not in states else f"its processes are in state {states}"

        goes_on, seen = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if goes_on:
            after_ms = (arena.unix_ns() - at_ns) / 1e6
            seen = f"nothing of {plan.target} stands still, {after_ms:.0f} ms after the call"
            return Receipt(outcome=FaultMoment.CONFIRMED, seen=seen)
        lost = lost_events(arena, since_ns=at_ns)
        outcome = FaultMoment.INCONCLUSIVE if lost else FaultMoment.MISMATCH
        return Receipt(outcome=outcome, seen=f"{plan.target}: {lost or seen}")
