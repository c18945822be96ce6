"""`vm.hang`: a VM stands still, with all its processes, and does not answer.

`how: pause` (the default) has the engine freeze its container, which is the worse case: on cgroup v1 a frozen VM
keeps its node from dying, and it cannot be crashed. The cluster sees it at its next IsAlive. `how: sigstop` stops its
processes past the engine: then it is Online to everybody who does not ask it something.
"""

from collections.abc import Mapping
from typing import Any

from chaos.arena.port import Arena, Effect, wait_until
from chaos.arena.process_effects import Freezing, HangVm
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt, lost_events
from chaos.faults.kinds import FaultArgument, TargetKind
from chaos.faults.vm import events_of, running_vm
from chaos.history.records import FaultMoment

__all__ = ["VmHang"]


class VmHang:
    """A VM's processes stand still: frozen by the engine, or stopped by a signal (`how: pause` or `sigstop`)."""

    name = "vm.hang"
    target = TargetKind.VM
    effect: type[Effect] = HangVm
    undo = "vm.thaw"
    heals: frozenset[str] = frozenset()
    arguments: Mapping[str, FaultArgument] = {"how": FaultArgument.FREEZING}

    def __init__(self, *, how: Freezing = Freezing.PAUSE) -> None:
        self._how = how

    def adjusted(self, arguments: Mapping[str, Any]) -> "VmHang":
        """With `how`."""
        return VmHang(how=Freezing(arguments.get("how", Freezing.PAUSE)))

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The VM must run, once, and not be frozen already."""
        seen = running_vm(await arena.containers(), target)
        if seen.paused:
            raise FaultRefused(f"VM {target} is frozen already")
        effect = HangVm(vm=target, node=seen.node, container=seen.container, how=self._how)
        return Plan(target=target, effect=effect, affected=(target,))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed by the engine's pause event, or by every process of it in state T in /proc."""
        effect = plan.effect
        assert isinstance(effect, HangVm)

        async def look() -> str:
            if effect.how is Freezing.SIGSTOP:
                states = (await arena.inside(effect.node)).vms.get(effect.container, "")
                return "" if states and set(states) <= {"T"} else f"its processes are in state {states or 'gone'}"
            # By the event and not by a look at it: the cluster may end it while somebody looks.
            told = [event.action for event in events_of(arena, effect.container, since_ns=at_ns)]
            return "" if "pause" in told else "the engine has not frozen it"

        hangs, seen = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if hangs:
            how = "frozen by the engine" if effect.how is Freezing.PAUSE else "stopped by a signal, every process"
            return Receipt(outcome=FaultMoment.CONFIRMED, seen=f"{plan.target} is {how}")
        lost = lost_events(arena, since_ns=at_ns)
        outcome = FaultMoment.INCONCLUSIVE if lost else FaultMoment.MISMATCH
        return Receipt(outcome=outcome, seen=f"{plan.target}: {lost or seen}")
