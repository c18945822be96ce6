"""Broken clusters, continued: what a node owes to the others, and what its PID 1 does when nobody else can.

Like those of `plants`, they exist only as compositions of a simulated world.
"""

from collections.abc import Callable

from harness.cluster_service.core.messages import Action, RegisterSeen, ResetNode
from harness.cluster_service.membership.membership import MembershipManager
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.cluster_service.resources.resource_facts import GroupFacts
from harness.drivers.virtual_machine import VirtualMachineDriver
from harness.errors import EngineError
from harness.model.topology import Fencing
from harness.model.vm import VmView
from harness.ports import Hypervisor
from harness.simulation.kernel.runtime import Clock
from harness.simulation.plants import Plant, service_of, vmms_with, vms_driven_by, with_power
from harness.simulation.twins.pid1 import SimulatedInit
from harness.simulation.twins.vmms_link import VmmsLink
from harness.vmms.power import Power

__all__ = ["PLANTS_OF_NODES"]

AGAIN_US = 100_000


# A node that can do nothing right but end


class _WaitsForTheProof(ResourceControlManager):
    def _hopeless(self, now: int, facts: GroupFacts) -> ResetNode | None:
        for resource in facts.resources.values():
            resource.stuck_since_us = None
        return super()._hopeless(now, facts)


class NoProofIsWaitedFor(Plant):
    """A node that cannot get the proof that a VM has ended waits for it for ever (design, section 4)."""

    vm = {"pending-timeout": "3s"}
    service = service_of("resource_control", _WaitsForTheProof)


class _GoesOnDown(MembershipManager):
    def _see_cluster(self, now: int, event: RegisterSeen) -> list[Action]:
        actions = super()._see_cluster(now, event)
        entry = self.own_entry
        is_down = entry is not None and entry.session == self._session and not self.is_member()
        return [] if is_down else actions


class DownGoesOn(Plant):
    """A node that reads that it is Down does not reset (design, section 4)."""

    service = service_of("membership", _GoesOnDown)


# PID 1


class _LeavesTheGuests(SimulatedInit):
    def __init__(self, clock: Clock, *, kill_guests: Callable[[], None], reset: Callable[[], None]) -> None:
        del kill_guests
        super().__init__(clock, kill_guests=lambda: None, reset=reset)


class GuestsOutliveTheLease(Plant):
    """PID 1 does not kill the guests when the lease ends: they run until the node ends (finding 13)."""

    fencing = Fencing.SELF
    init = _LeavesTheGuests


class _NeverExits(SimulatedInit):
    def __init__(self, clock: Clock, *, kill_guests: Callable[[], None], reset: Callable[[], None]) -> None:
        del reset
        super().__init__(clock, kill_guests=kill_guests, reset=lambda: None)


class NodesOutliveTheGrace(Plant):
    """PID 1 does not exit when the grace after the lease has passed (finding 13)."""

    fencing = Fencing.SELF
    init = _NeverExits


class _ListensFirst(SimulatedInit):
    """Looks at the clock when nothing has come through its pipe for a while."""

    SILENCE_US = 200_000

    def release(self) -> None:
        self._held = False
        self._clock.after(self.SILENCE_US, self._wake)

    def pet(self, guests_end_us: int, node_ends_us: int) -> None:
        look = self._look
        self._look = lambda: None  # type: ignore[method-assign]
        super().pet(guests_end_us, node_ends_us)
        self._look = look  # type: ignore[method-assign]


class PipeBeforeClock(Plant):
    """PID 1 believes what comes after its deadline, as it does when it was frozen (design, section 4)."""

    init = _ListensFirst


# The switch


class _AsksForNoMark(Power):
    async def power_on(self, node: str) -> bool:
        for box in await self._node_containers(node) or await self._witness_containers(node):
            if not box.running:
                await self._engine.start(box.id)
        return True


class HeldOffIsSwitchedOn(Plant):
    """A fenced node is switched on although an experiment or an administrator holds it off (design, section 4)."""

    vmms = vmms_with(with_power(_AsksForNoMark))


# What ends past the cluster


class _DoesNotWait(VirtualMachineDriver):
    async def _concluded(self, view: VmView) -> VmView:
        return view


class PollsDoNotWait(Plant):
    """A poll between the end of a VM and its evidence tells a failure (out-of-band changes; the rules, section 3).
    """

    drivers = vms_driven_by(_DoesNotWait)


# Joining


async def _clear_later(hypervisor: VmmsLink) -> None:
    await hypervisor._caller.sleep(AGAIN_US)
    while True:
        try:
            await hypervisor.clear_earlier_sessions()
        except EngineError:
            await hypervisor._caller.sleep(AGAIN_US)
        else:
            return


class JoinsBeforeItClears(Plant):
    """A node joins while it removes what its earlier sessions left, and not afterwards (finding 2)."""

    async def clear_earlier_sessions(self, hypervisor: Hypervisor) -> None:
        assert isinstance(hypervisor, VmmsLink)
        hypervisor._caller.spawn(_clear_later(hypervisor), name="clear later")


PLANTS_OF_NODES: tuple[type[Plant], ...] = (
    NoProofIsWaitedFor,
    DownGoesOn,
    GuestsOutliveTheLease,
    NodesOutliveTheGrace,
    PipeBeforeClock,
    HeldOffIsSwitchedOn,
    PollsDoNotWait,
    JoinsBeforeItClears,
)
