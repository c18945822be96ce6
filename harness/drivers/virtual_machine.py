"""Driver of resource type `virtual-machine` (the article's VMCLUSRES): maps the cluster's entry points to VMMS.

It knows nothing of containers or engines. A failure is signalled as soon as VMMS tells it; the polls are the fallback.
Whether an end was a wish or a failure is VMMS's evidence; what follows from it is the service's decision.
"""

from harness.drivers.machine_properties import machine_spec
from harness.errors import EngineError
from harness.model.machine import Ending, MachineNotice, MachineState, MachineView, Proof
from harness.model.states import ResourceState
from harness.model.topology import SECOND_US
from harness.resource_host.driver import DriverContext, DriverServices, DriverStatus

__all__ = ["VirtualMachineDriver"]

GRACE_US = 10 * SECOND_US
"""From TERM to KILL when a machine is shut down: what `docker stop` gives."""
EVIDENCE_US = 3 * SECOND_US
"""VMMS concludes how a run ended at most two seconds after it."""
EVIDENCE_STEP_US = SECOND_US // 10
RESUBSCRIBE_US = SECOND_US // 5

_CLEAN = (Ending.STOPPED, Ending.SHUT_DOWN, Ending.ASKED)


class VirtualMachineDriver:
    """One for all machines of the node; `_open` holds the latest context of each."""

    def __init__(self, services: DriverServices) -> None:
        self._runtime = services.runtime
        self._hypervisor = services.hypervisor
        self._storage = services.storage
        self._open: dict[str, DriverContext] = {}
        self._runs: dict[str, str] = {}

    async def startup(self) -> None:
        """Listen to VMMS."""
        self._runtime.spawn(self._follow(), name="notices of machines")

    async def open(self, context: DriverContext) -> DriverStatus:
        """Have a stopped container ready, or adopt what runs. Raises DriverError for a wrong property."""
        spec = machine_spec(context.spec, group=context.group)
        self._open[context.resource] = context
        view = await self._hypervisor.prepare(spec, epoch=context.epoch, adopt=context.adopt)
        return self._opened(context, view)

    async def close(self, context: DriverContext) -> Proof:
        """End it conclusively and forget it."""
        proof = await self._hypervisor.close(context.resource, epoch=context.epoch)
        self._open.pop(context.resource, None)
        self._runs.pop(context.resource, None)
        return proof

    async def online(self, context: DriverContext) -> DriverStatus:
        """Start it. Prepared again first: VMMS may have been restarted since `open`, and know only containers."""
        self._open[context.resource] = context
        spec = machine_spec(context.spec, group=context.group)
        await self._hypervisor.prepare(spec, epoch=context.epoch, adopt=True)
        view = await self._hypervisor.start(context.resource, order=context.order)
        return await self._status(context, view)

    async def offline(self, context: DriverContext) -> DriverStatus:
        """Shut it down gracefully."""
        proof = await self._hypervisor.shut_down(context.resource, grace_us=GRACE_US)
        return DriverStatus(state=ResourceState.OFFLINE, proof=proof)

    async def terminate(self, context: DriverContext) -> Proof:
        """End it at once, conclusively."""
        return await self._hypervisor.terminate(context.resource)

    async def is_alive(self, context: DriverContext) -> DriverStatus:
        """Is the machine up, are its dependencies and its entries in the database right."""
        machine_spec(context.spec, group=context.group)
        strangers = [name for names in context.spec.depends_on for name in names if name not in context.siblings]
        if strangers:
            return _failed(f"depends on {', '.join(strangers)}, which group {context.group} does not have here")
        view = await self._hypervisor.view(context.resource)
        if view.group and view.group != context.group:
            return _failed(f"its container belongs to group {view.group}")
        return await self._status(context, view)

    async def looks_alive(self, context: DriverContext) -> DriverStatus:
        """The thorough check: also its configuration file and its virtual disk."""
        try:
            missing = await self._storage.missing(context.resource)
        except OSError as error:
            return _failed(f"its files cannot be read: {error}")
        if missing:
            return _failed(f"missing on the cluster shared volume: {', '.join(missing)}")
        return await self.is_alive(context)

    # What a view means.

    def _opened(self, context: DriverContext, view: MachineView) -> DriverStatus:
        if view.state in (MachineState.RUNNING, MachineState.PAUSED):
            self._runs[context.resource] = view.run
            return DriverStatus(state=ResourceState.ONLINE, run=view.run, live=False)
        return DriverStatus(state=ResourceState.OFFLINE, run=view.run, ending=view.ending, live=False)

    async def _status(self, context: DriverContext, view: MachineView) -> DriverStatus:
        if view.state is MachineState.RUNNING:
            self._runs[context.resource] = view.run
            return DriverStatus(state=ResourceState.ONLINE, run=view.run)
        if view.state is MachineState.PAUSED:
            return DriverStatus(state=ResourceState.FAILED, evidence="the machine is paused", run=view.run)
        return _ended(await self._concluded(view), live=False)

    async def _concluded(self, view: MachineView) -> MachineView:
        """The view once VMMS knows how the run ended. The notice of it is given time to come first: it was seen live, a
        poll was not.
        """
        run, end_us = view.run, self._runtime.now() + EVIDENCE_US
        while view.awaits_evidence and view.run == run and self._runtime.now() < end_us:
            await self._runtime.sleep(EVIDENCE_STEP_US)
            view = await self._hypervisor.view(view.name)
        await self._runtime.sleep(EVIDENCE_STEP_US)
        return view

    # What VMMS tells.

    async def _follow(self) -> None:
        while True:
            try:
                async for notice in self._hypervisor.notices():
                    self._hear(notice)
            except EngineError:
                pass  # VMMS was lost; the next subscription begins with every machine as it is
            await self._runtime.sleep(RESUBSCRIBE_US)

    def _hear(self, notice: MachineNotice) -> None:
        view = notice.view
        context = self._open.get(view.name)
        if context is None or not view.run:
            return
        if view.state is MachineState.RUNNING:
            if view.run != self._runs.get(view.name):
                self._runtime.spawn(self._verify_start(context, notice), name=f"start by hand of {view.name}")
        elif view.state is not MachineState.PAUSED and view.ending is not None:
            context.report(_ended(view, live=notice.live))

    async def _verify_start(self, context: DriverContext, notice: MachineNotice) -> None:
        """A run that nobody here ordered, unless its order has not been answered yet: look again, for a notice may be
        older than a call's answer.
        """
        run = notice.view.run
        try:
            view = await self._hypervisor.view(context.resource)
        except EngineError:
            return  # the notices begin anew when VMMS is back
        if view.state is MachineState.RUNNING and view.run == run:
            context.report(
                DriverStatus(state=ResourceState.ONLINE, run=run, live=notice.live, evidence="found running")
            )


def _failed(evidence: str) -> DriverStatus:
    return DriverStatus(state=ResourceState.FAILED, evidence=evidence)


def _ended(view: MachineView, *, live: bool) -> DriverStatus:
    clean = view.ending in _CLEAN
    return DriverStatus(
        state=ResourceState.OFFLINE if clean else ResourceState.FAILED,
        evidence=view.evidence or f"the machine is {view.state}",
        ending=view.ending,
        run=view.run,
        live=live,
    )
