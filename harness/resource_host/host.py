"""The resource host: carries out the service's requests on drivers, polls what is Online, and reports.

It compares nothing with PersistentState and restarts nothing. One worker per resource keeps its calls from overlapping;
TERMINATE overtakes. When the service's connection breaks, everything runs on and keeps its state: `hello` tells it to
the next service.
"""

from collections.abc import Callable, Mapping

from harness.model.host_messages import EntryPoint, HostReport, HostRequest
from harness.model.states import ResourceState
from harness.ports import Addresses, Hypervisor, Log, Prober, Runtime, Storage
from harness.resource_host.driver import DriverFactory, DriverServices, DriverStatus
from harness.resource_host.entry_points import EntryPoints
from harness.resource_host.polls import Polls
from harness.resource_host.resource import HostedResource, ReportLine

__all__ = ["ResourceHost"]


class ResourceHost:
    """One process's life. `run` must be spawned once; `take` hands a request over and never waits."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        hypervisor: Hypervisor,
        addresses: Addresses,
        storage: Storage,
        reach: Prober,
        drivers: Mapping[str, DriverFactory],
        report: Callable[[HostReport], None],
        log: Log,
        on_deadlock: Callable[[str], None] | None = None,
    ) -> None:
        """`drivers` by resource type; `on_deadlock` is told the resource whose entry point did not return: its shell
        should end the process.
        """
        services = DriverServices(
            runtime=runtime, hypervisor=hypervisor, addresses=addresses, storage=storage, reach=reach, log=log
        )
        self._runtime = runtime
        self._log = log
        self._drivers: dict[str, object] = {name: make(services) for name, make in drivers.items()}
        self._line = ReportLine(runtime, report)
        self._resources: dict[str, HostedResource] = {}
        self._groups: dict[str, dict[str, HostedResource]] = {}
        self._started = runtime.pending()
        self._polls = Polls(runtime=runtime, log=log, siblings=self._siblings)
        self._entry_points = EntryPoints(
            runtime=runtime,
            log=log,
            siblings=self._siblings,
            on_deadlock=on_deadlock or (lambda _resource: None),
        )

    async def run(self) -> None:
        """Start the drivers; requests taken before wait for it."""
        for name, driver in self._drivers.items():
            startup = getattr(driver, "startup", None)
            if startup is None:
                continue
            try:
                await startup()
            except Exception as error:  # noqa: BLE001 - a third party's driver must not take the others with it
                self._log("driver-startup-failed", f"driver of {name}: {error!r}", type=name)
        self._started.set_result(None)

    def take(self, request: HostRequest) -> None:
        """A request of the service. It is settled by one report with its number."""
        resource = self._resources.get(request.resource)
        if request.entry_point is EntryPoint.OPEN:
            resource = self._opened(request, resource)
        if resource is None:
            if request.entry_point is not EntryPoint.OPEN:
                self._refuse(request, f"{request.resource} is not open in this resource host")
            return
        if request.entry_point is EntryPoint.TERMINATE:
            self._terminate(resource, request)
        else:
            resource.queue.append(request)
            resource.changed.notify()

    def hello(self) -> list[HostReport]:
        """The state of every open resource, for a service that has just connected."""
        return [resource.hello() for resource in self._resources.values()]

    # Parts.

    def _opened(self, request: HostRequest, known: HostedResource | None) -> HostedResource | None:
        if known is not None:
            return known
        if request.spec is None:
            self._refuse(request, f"OPEN of {request.resource} came without its specification")
            return None
        driver = self._drivers.get(request.spec.type)
        if driver is None:
            types = ", ".join(sorted(self._drivers))
            self._refuse(request, f"no driver for resources of type {request.spec.type}; there are: {types}")
            return None
        resource = HostedResource(
            runtime=self._runtime,
            request=request,
            spec=request.spec,
            driver=driver,
            line=self._line,
            log=self._log,
            when_online=self._polls.begin,
        )
        self._resources[request.resource] = resource
        self._groups.setdefault(resource.group, {})[resource.name] = resource
        self._runtime.spawn(self._work(resource), name=f"resource {request.resource}")
        return resource

    def _terminate(self, resource: HostedResource, request: HostRequest) -> None:
        overtaken = [queued for queued in resource.queue if queued.entry_point is EntryPoint.ONLINE]
        for queued in overtaken:
            resource.queue.remove(queued)
            resource.tell(number=queued.number, error="overtaken by TERMINATE before it began")
        resource.turn += 1
        resource.terminations += 1
        resource.changed.notify()
        self._runtime.spawn(self._terminate_now(resource, request), name=f"terminate {resource.name}")

    async def _terminate_now(self, resource: HostedResource, request: HostRequest) -> None:
        await self._started
        try:
            await self._entry_points.terminate(resource, request)
        finally:
            resource.terminations -= 1
            resource.changed.notify()

    async def _work(self, resource: HostedResource) -> None:
        await self._started
        while not resource.closed:
            if not resource.queue or resource.terminations:
                await resource.changed.wait()
                continue
            request = resource.queue.popleft()
            await self._entry_points.carry_out(resource, request)
        if self._resources.get(resource.name) is resource:
            del self._resources[resource.name]
            del self._groups[resource.group][resource.name]
        for late in resource.queue:
            # An OPEN that came while it was being closed opens it anew.
            self.take(late)

    def _refuse(self, request: HostRequest, reason: str) -> None:
        self._log("request-refused", reason, resource=request.resource, entry_point=request.entry_point)
        unknown = DriverStatus(state=ResourceState.INITIALIZING)
        report = self._line.make(
            request.resource, request.group, epoch=request.epoch, status=unknown, number=request.number, error=reason
        )
        self._line.send(report)

    def _siblings(self, group: str) -> dict[str, ResourceState]:
        return {name: resource.state for name, resource in self._groups.get(group, {}).items()}
