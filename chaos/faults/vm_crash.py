"""`vm.crash`: a VM's main process dies of SIGKILL, and nobody asked the engine for it.

A crash and not a kill: the engine reports `die` without a `kill` before it, so whoever keeps the VM alive must
treat it as a failure and not as an administrator's wish. The VM's node, and every other VM, are untouched.
There is nothing to undo: bringing it back is what is being tested.
"""

from chaos.arena.port import Arena, CrashVm, Effect
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt, lost_events
from chaos.faults.kinds import TargetKind
from chaos.faults.vm import events_of, running_vm, wait_event
from chaos.history.records import FaultMoment

__all__ = ["VmCrash"]

CRASH_EXIT_CODE = 137


class VmCrash:
    """The fault. Stateless."""

    name = "vm.crash"
    target = TargetKind.VM
    effect: type[Effect] = CrashVm
    undo = ""
    heals: frozenset[str] = frozenset()

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The VM must run, once, and not be frozen: a frozen process dies only when it is thawed."""
        seen = running_vm(await arena.containers(), target)
        if seen.paused:
            raise FaultRefused(f"VM {target} is paused: a crash would take effect only after it is unpaused")
        effect = CrashVm(vm=target, node=seen.node, container=seen.container)
        return Plan(target=target, effect=effect, affected=(target,))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed by a die event with status 137 and neither kill nor stop of that container around it."""
        assert isinstance(plan.effect, CrashVm)
        container = plan.effect.container
        death = await wait_event(arena, container, "die", since_ns=at_ns)
        if death is None:
            why = lost_events(arena, since_ns=at_ns) or f"no die event within {RECEIPT_LIMIT_US / 1e6:g} s"
            return Receipt(outcome=FaultMoment.INCONCLUSIVE, seen=f"{plan.target}: {why}")
        told = events_of(arena, container, since_ns=at_ns, until_ns=death.at_ns)
        asked = [event.action for event in told if event.action in ("kill", "stop")]
        if asked:
            return Receipt(
                outcome=FaultMoment.MISMATCH, seen=f"{plan.target} died after {asked[0]} through the engine: no crash"
            )
        if death.exit_code != CRASH_EXIT_CODE:
            return Receipt(
                outcome=FaultMoment.MISMATCH,
                seen=f"{plan.target} died with status {death.exit_code}, not {CRASH_EXIT_CODE}",
            )
        after_ms = (death.at_ns - at_ns) / 1e6
        return Receipt(
            outcome=FaultMoment.CONFIRMED,
            seen=f"die event of {plan.target} after {after_ms:.0f} ms, status 137, no kill before it",
        )
