"""Driver of resource type `virtual-machine` (the article's VMCLUSRES): maps the cluster's entry points to VMMS.

It knows nothing of containers or engines. A failure is signalled as soon as VMMS tells it; the polls are the fallback.
Whether an end was a wish or a failure is VMMS's evidence; what follows from it is the service's decision.

Online means running. A VM with a readiness check is OnlinePending until it is ready; when it is not within the
pending-timeout, that attempt has failed. A VM that runs already when the cluster meets it (adopted after its
resource host was restarted, or started by hand) is Online at once: that it runs must be known at once.
"""

from harness.drivers.readiness import ReadinessChecks, Waiting
from harness.drivers.vm_properties import vm_readiness, vm_spec
from harness.errors import EngineError
from harness.model.states import ResourceState
from harness.model.topology import SECOND_US, ResourceSpec
from harness.model.vm import Ending, Proof, VmNotice, VmSpec, VmState, VmView
from harness.model.workload import Readiness
from harness.resource_host.driver import DriverContext, DriverServices, DriverStatus

__all__ = ["VirtualMachineDriver"]

GRACE_US = 10 * SECOND_US
"""From TERM to KILL when a VM is shut down: what `docker stop` gives."""
EVIDENCE_US = 3 * SECOND_US
"""VMMS concludes how a run ended at most two seconds after it."""
EVIDENCE_STEP_US = SECOND_US // 10
RESUBSCRIBE_US = SECOND_US // 5
GIVE_UP_EARLIER_US = SECOND_US // 2
"""Than the pending-timeout, at most a tenth of it: so that it is told what was not ready, and not only that it was."""

_CLEAN = (Ending.STOPPED, Ending.SHUT_DOWN, Ending.ASKED)


class VirtualMachineDriver:
    """One for all VMs of the node; `_open` holds the latest context of each."""

    def __init__(self, services: DriverServices) -> None:
        self._runtime = services.runtime
        self._hypervisor = services.hypervisor
        self._storage = services.storage
        self._readiness = ReadinessChecks(hypervisor=services.hypervisor, reach=services.reach, log=services.log)
        self._log = services.log
        self._open: dict[str, DriverContext] = {}
        self._known: dict[str, tuple[ResourceSpec, tuple[VmSpec, Readiness | None]]] = {}
        self._waiting: dict[str, Waiting] = {}
        self._runs: dict[str, str] = {}

    async def startup(self) -> None:
        """Listen to VMMS."""
        self._runtime.spawn(self._follow(), name="notices of VMs")

    async def open(self, context: DriverContext) -> DriverStatus:
        """Have a stopped container ready, or adopt what runs. Raises DriverError for a wrong property."""
        spec, _ = self._read(context)
        self._begin(context)
        view = await self._hypervisor.prepare(spec, epoch=context.epoch, adopt=context.adopt)
        return self._opened(context, view)

    async def close(self, context: DriverContext) -> Proof:
        """End it conclusively and forget it."""
        self._waiting.pop(context.resource, None)
        proof = await self._hypervisor.close(context.resource, epoch=context.epoch)
        self._open.pop(context.resource, None)
        self._known.pop(context.resource, None)
        self._runs.pop(context.resource, None)
        return proof

    async def online(self, context: DriverContext) -> DriverStatus:
        """Start it. Prepared again first: VMMS may have been restarted since `open`, and know only containers."""
        self._begin(context)
        spec, check = self._read(context)
        began_us = self._runtime.now()
        if check is None:
            return await self._status(context, await self._start(context, spec))
        # Before the start: the notice of it must not be taken for the end of the waiting.
        waiting = self._waiting[context.resource] = Waiting()
        try:
            status = await self._status(context, await self._start(context, spec))
        except BaseException:
            self._stop_waiting(context, waiting)
            raise
        if status.state is not ResourceState.ONLINE:
            self._stop_waiting(context, waiting)
            return status
        waiting.run = status.run
        self._runtime.spawn(
            self._wait_ready(context, spec, check, waiting, began_us), name=f"readiness of {context.resource}"
        )
        return DriverStatus(state=ResourceState.ONLINE_PENDING, run=status.run)

    async def offline(self, context: DriverContext) -> DriverStatus:
        """Shut it down gracefully."""
        self._waiting.pop(context.resource, None)
        proof = await self._hypervisor.shut_down(context.resource, grace_us=GRACE_US)
        return DriverStatus(state=ResourceState.OFFLINE, proof=proof)

    async def terminate(self, context: DriverContext) -> Proof:
        """End it at once, conclusively."""
        self._waiting.pop(context.resource, None)
        return await self._hypervisor.terminate(context.resource)

    async def is_alive(self, context: DriverContext) -> DriverStatus:
        """Is the VM up, are its dependencies and its entries in the database right; is it ready, if it says how
        to ask.
        """
        spec, check = self._read(context)
        strangers = [name for names in context.spec.depends_on for name in names if name not in context.siblings]
        if strangers:
            return _failed(f"depends on {', '.join(strangers)}, which group {context.group} does not have here")
        view = await self._hypervisor.view(context.resource)
        if view.group and view.group != context.group:
            return _failed(f"its container belongs to group {view.group}")
        status = await self._status(context, view)
        if status.state is ResourceState.ONLINE and check is not None:
            failure = await self._readiness.failed(spec, check)
            if failure:
                return DriverStatus(state=ResourceState.FAILED, evidence=failure, run=status.run)
        return status

    async def looks_alive(self, context: DriverContext) -> DriverStatus:
        """The thorough check: also its configuration file and its virtual disk."""
        try:
            spec, _ = self._read(context)
            missing = await self._storage.missing(context.resource, volumes=tuple(spec.volumes))
        except OSError as error:
            return _failed(f"its files cannot be read: {error}")
        if missing:
            return _failed(f"missing on the cluster shared volume: {', '.join(missing)}")
        return await self.is_alive(context)

    def _read(self, context: DriverContext) -> tuple[VmSpec, Readiness | None]:
        """The VM's entries in the database, checked anew when they are others. Raises DriverError."""
        known = self._known.get(context.resource)
        if known is None or known[0] is not context.spec:
            read = vm_spec(context.spec, group=context.group), vm_readiness(context.spec)
            known = self._known[context.resource] = context.spec, read
        return known[1]

    # Readiness.

    def _begin(self, context: DriverContext) -> None:
        self._open[context.resource] = context
        self._waiting.pop(context.resource, None)
        self._readiness.forget(context.resource)

    async def _start(self, context: DriverContext, spec: VmSpec) -> VmView:
        await self._hypervisor.prepare(spec, epoch=context.epoch, adopt=True)
        return await self._hypervisor.start(context.resource, order=context.order)

    def _stop_waiting(self, context: DriverContext, waiting: Waiting) -> bool:
        """Whether somebody still waited."""
        if self._waiting.get(context.resource) is not waiting:
            return False
        del self._waiting[context.resource]
        return True

    async def _wait_ready(
        self, context: DriverContext, spec: VmSpec, check: Readiness, waiting: Waiting, began_us: int
    ) -> None:
        """Until it is ready, has ended, or takes too long; then tells, unless nobody waits any more."""
        timeout_us = context.spec.policy.pending_timeout_us
        gives_up_us = began_us + timeout_us - min(GIVE_UP_EARLIER_US, timeout_us // 10)
        status: DriverStatus | None = None
        while status is None:
            seen = await self._look(context, spec, check, waiting, gives_up_us)
            now = self._runtime.now()
            if self._waiting.get(context.resource) is not waiting:
                return
            after_s = (now - began_us) / 1e6
            if isinstance(seen, DriverStatus):
                status = seen
                if status.state is ResourceState.ONLINE:
                    message = f"{context.resource} is ready {after_s:.1f} s after its start was ordered"
                    self._log("vm-ready", message, resource=context.resource, group=context.group)
            elif now + check.interval_us >= gives_up_us:
                evidence = f"not ready {after_s:.1f} s after its start was ordered: {seen}"
                status = DriverStatus(state=ResourceState.FAILED, evidence=evidence, run=waiting.run)
            else:
                await self._runtime.sleep(check.interval_us)
        if self._stop_waiting(context, waiting):
            context.report(status)

    async def _look(
        self, context: DriverContext, spec: VmSpec, check: Readiness, waiting: Waiting, gives_up_us: int
    ) -> DriverStatus | str:
        """Ready, ended, or why not yet."""
        limit_us = max(gives_up_us - self._runtime.now(), 1)
        try:
            seen = await self._readiness.ask(spec, check, limit_us=limit_us)
            if not seen:
                return DriverStatus(state=ResourceState.ONLINE, run=waiting.run)
            view = await self._hypervisor.view(context.resource)
            if view.state in (VmState.RUNNING, VmState.PAUSED):
                return seen
            return _ended(await self._concluded(view), live=False)
        except EngineError as error:
            return str(error)

    # What a view means.

    def _opened(self, context: DriverContext, view: VmView) -> DriverStatus:
        if view.state in (VmState.RUNNING, VmState.PAUSED):
            self._runs[context.resource] = view.run
            return DriverStatus(state=ResourceState.ONLINE, run=view.run, live=False)
        return DriverStatus(state=ResourceState.OFFLINE, run=view.run, ending=view.ending, live=False)

    async def _status(self, context: DriverContext, view: VmView) -> DriverStatus:
        if view.state is VmState.RUNNING:
            self._runs[context.resource] = view.run
            return DriverStatus(state=ResourceState.ONLINE, run=view.run)
        if view.state is VmState.PAUSED:
            return DriverStatus(state=ResourceState.FAILED, evidence="the VM is paused", run=view.run)
        return _ended(await self._concluded(view), live=False)

    async def _concluded(self, view: VmView) -> VmView:
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
                pass  # VMMS was lost; the next subscription begins with every VM as it is
            await self._runtime.sleep(RESUBSCRIBE_US)

    def _hear(self, notice: VmNotice) -> None:
        view = notice.view
        context = self._open.get(view.name)
        if context is None or not view.run:
            return
        waiting = self._waiting.get(view.name)
        if waiting is not None and view.run != waiting.run:
            return  # of an earlier run, or of one whose start is not answered yet: the waiting looks for itself
        if view.state is VmState.RUNNING:
            if view.run != self._runs.get(view.name):
                self._runtime.spawn(self._verify_start(context, notice), name=f"start by hand of {view.name}")
        elif view.state is not VmState.PAUSED and view.ending is not None:
            context.report(_ended(view, live=notice.live))

    async def _verify_start(self, context: DriverContext, notice: VmNotice) -> None:
        """A run that nobody here ordered, unless its order has not been answered yet: look again, for a notice may be
        older than a call's answer.
        """
        run = notice.view.run
        try:
            view = await self._hypervisor.view(context.resource)
        except EngineError:
            return  # the notices begin anew when VMMS is back
        if view.state is VmState.RUNNING and view.run == run:
            context.report(
                DriverStatus(state=ResourceState.ONLINE, run=run, live=notice.live, evidence="found running")
            )


def _failed(evidence: str) -> DriverStatus:
    return DriverStatus(state=ResourceState.FAILED, evidence=evidence)


def _ended(view: VmView, *, live: bool) -> DriverStatus:
    clean = view.ending in _CLEAN
    return DriverStatus(
        state=ResourceState.OFFLINE if clean else ResourceState.FAILED,
        evidence=view.evidence or f"the VM is {view.state}",
        ending=view.ending,
        run=view.run,
        live=live,
    )
