"""A bench for VMMS, resource host and drivers: the simulated engine with one or two nodes, on virtual time, without any
cluster service.
"""

import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from harness.drivers.registry import built_in_drivers
from harness.model import labels as label
from harness.model.host_messages import CallReason, EntryPoint, HostReport, HostRequest
from harness.model.session import Session
from harness.model.topology import ResourcePolicy, ResourceSpec
from harness.model.vm import Order, VmNotice, VmSpec
from harness.ports import Hypervisor
from harness.resource_host.driver import DriverFactory
from harness.resource_host.host import ResourceHost
from harness.simulation.kernel.runtime import SimulatedRuntime, SimulatedTask, VirtualClock
from harness.simulation.twins.addresses import SimulatedAddresses
from harness.simulation.twins.container import SimulatedContainer
from harness.simulation.twins.engine import SimulatedEngine
from harness.simulation.twins.engine_client import SimulatedEngineClient
from harness.simulation.twins.reach import SimulatedReach
from harness.simulation.twins.storage import SimulatedStorage
from harness.simulation.twins.vmms_link import VmmsLink, VmmsProcess
from harness.vmms.vmms import Vmms

SECOND = 1_000_000
MS = 1_000
RIG = "bench"
FAR = 10**15


@dataclass
class Outcome:
    """What became of a call that a test let run."""

    value: Any = None
    error: BaseException | None = None
    done: bool = False


@dataclass
class LogLines:
    """A log that keeps its lines."""

    lines: list[tuple[str, str, int | None]] = field(default_factory=list)

    def __call__(self, event: str, message: str, /, *, number: int | None = None, **fields: str | int | None) -> None:
        del fields
        self.lines.append((event, message, number))

    def events(self) -> list[str]:
        return [event for event, _, _ in self.lines]


class Bench:
    """The engine, its clock, and what started and ended in the kernel's truth."""

    def __init__(self, *, nodes: tuple[str, ...] = ("n1",), seed: int = 1) -> None:
        self.clock = VirtualClock()
        self.engine = SimulatedEngine(self.clock, random.Random(seed))
        self.alive: list[tuple[str, str, int]] = []
        self.engine.on_started.append(lambda box, at: self._note("start", box, at))
        self.engine.on_ended.append(lambda box, at: self._note("end", box, at))
        self.hands = SimulatedRuntime(self.clock, on_error=_fail)
        for node in nodes:
            self.engine.add_node(node, {label.RIG: RIG})
            self.engine.start_node(node)
        self.run(1)

    def _note(self, what: str, box: SimulatedContainer, at_us: int) -> None:
        if not box.is_node:
            self.alive.append((what, box.node, at_us))

    def run(self, seconds: float) -> None:
        self.clock.run_until(self.clock.now_us + round(seconds * SECOND))

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> Outcome:
        """Let a call run by itself."""
        outcome = Outcome()

        async def run() -> None:
            try:
                outcome.value = await coroutine
            except Exception as error:  # noqa: BLE001 - handed to the test
                outcome.error = error
            outcome.done = True

        self.hands.spawn(run(), name="call of the test")
        return outcome

    def do(self, coroutine: Coroutine[Any, Any, Any], *, limit_s: float = 60) -> Any:
        """A call's result, or its error, in as much virtual time as it takes."""
        outcome = self.begin(coroutine)
        end = self.clock.now_us + round(limit_s * SECOND)
        while not outcome.done and self.clock.now_us < end:
            self.clock.run_until(self.clock.now_us + MS)
        assert outcome.done, f"the call did not end within {limit_s} s"
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def wait_until(self, holds: Callable[[], bool], *, limit_s: float = 60) -> float:
        """Seconds of virtual time until it holds."""
        began = self.clock.now_us
        while not holds():
            assert self.clock.now_us - began < limit_s * SECOND, f"does not hold after {limit_s} s"
            self.clock.run_until(self.clock.now_us + MS)
        return (self.clock.now_us - began) / SECOND


class BenchVmms:
    """A VMMS process on one node of the bench."""

    def __init__(self, bench: Bench, node: str = "n1", client: SimulatedEngineClient | None = None) -> None:
        self.bench = bench
        self.node = node
        self.client = client or SimulatedEngineClient(bench.engine)
        self.log = LogLines()
        self.runtime = SimulatedRuntime(bench.clock, on_error=_fail)
        self.vmms = Vmms(
            runtime=self.runtime,
            engine=self.client,
            rig=RIG,
            node=node,
            log=self.log,
            container=bench.engine.node(node).id[:12],
        )
        # It shares the fate of PID 1, like everything on a node.
        bench.engine.on_node_down.append(lambda name: self.runtime.kill() if name == node else None)
        self.runtime.spawn(self.vmms.run(), name="vmms")
        self.notices: list[VmNotice] = []
        self.session: Session = bench.do(self.vmms.identity())
        bench.hands.spawn(self._collect(), name="notices of the test")
        bench.run(0.001)

    async def _collect(self) -> None:
        async for notice in self.vmms.notices():
            self.notices.append(notice)

    def restarted(self) -> "BenchVmms":
        """Killed, and a new process in its place."""
        self.runtime.kill()
        return BenchVmms(self.bench, self.node, self.client)

    def order(self, *, epoch: int = 1, not_after_us: int = FAR, session: Session | None = None) -> Order:
        return Order(session=session or self.session, epoch=epoch, not_after_us=not_after_us)

    def prepare(self, vm: str = "vm", *, epoch: int = 1, adopt: bool = False) -> Any:
        return self.bench.do(self.vmms.prepare(spec(vm), epoch=epoch, adopt=adopt))

    def start(self, vm: str = "vm", **order: Any) -> Any:
        return self.bench.do(self.vmms.start(vm, order=self.order(**order)))

    def running(self, vm: str = "vm") -> str:
        """A VM that runs; the id of its container."""
        self.prepare(vm)
        self.start(vm)
        self.bench.run(0.1)
        return self.bench.engine.vm(vm).id

    def boxes(self, vm: str = "vm") -> list[SimulatedContainer]:
        return [box for box in self.bench.engine.boxes.values() if box.labels.get(label.RESOURCE) == vm]


class BenchHost:
    """A resource host on one node, and the service's end of its connection."""

    def __init__(
        self,
        bench: Bench,
        vmms: BenchVmms,
        *,
        drivers: dict[str, DriverFactory] | None = None,
        hypervisor: Hypervisor | None = None,
    ) -> None:
        self.bench = bench
        self.session = vmms.session
        self.place = VmmsProcess()
        self.place.started(vmms.runtime, vmms.vmms)
        self.log = LogLines()
        self.reports: list[HostReport] = []
        self.deadlocked: list[str] = []
        self.storage = SimulatedStorage()
        self.runtime = SimulatedRuntime(bench.clock, on_error=_fail)
        self.addresses = SimulatedAddresses(self.runtime)
        self.host = ResourceHost(
            runtime=self.runtime,
            hypervisor=hypervisor or VmmsLink(bench.clock, self.place, self.runtime),
            addresses=self.addresses,
            storage=self.storage,
            reach=SimulatedReach(bench.engine, node=vmms.node, runtime=self.runtime),
            drivers=drivers or built_in_drivers(),
            report=self.reports.append,
            log=self.log,
            on_deadlock=self.deadlocked.append,
        )
        self.runtime.spawn(self.host.run(), name="resource host")
        self._number = 0
        bench.run(0.001)

    def replace_vmms(self, vmms: BenchVmms) -> None:
        """The old VMMS process is gone; a new one listens."""
        self.place.ended()
        self.place.started(vmms.runtime, vmms.vmms)

    def ask(self, entry_point: EntryPoint, resource: str = "vm", **fields: Any) -> int:
        """Send a request; its number."""
        self._number += 1
        request: dict[str, Any] = {
            "group": "g",
            "session": self.session,
            "epoch": 1,
            "not_after_us": FAR,
            "why": CallReason.REQUEST,
            **fields,
        }
        self.host.take(HostRequest(number=self._number, entry_point=entry_point, resource=resource, **request))
        return self._number

    def answer(self, number: int, *, limit_s: float = 60) -> HostReport:
        """The report that settles it."""
        self.bench.wait_until(lambda: any(report.number == number for report in self.reports), limit_s=limit_s)
        return next(report for report in self.reports if report.number == number)

    def call(self, entry_point: EntryPoint, resource: str = "vm", *, limit_s: float = 60, **fields: Any) -> HostReport:
        return self.answer(self.ask(entry_point, resource, **fields), limit_s=limit_s)

    def online(self, resource: str = "vm", *, policy: ResourcePolicy | None = None) -> HostReport:
        """Opened and Online."""
        self.call(EntryPoint.OPEN, resource, spec=vm(resource, policy=policy))
        return self.call(EntryPoint.ONLINE, resource)

    def states(self, resource: str = "vm") -> list[str]:
        return [report.state.value for report in self.reports if report.resource == resource]

    def since(self, count: int) -> list[HostReport]:
        return self.reports[count:]


def spec(name: str = "vm", *, group: str = "g") -> VmSpec:
    return VmSpec(name=name, group=group, image="blackstart/guest", address=None, user=10000)


def vm(name: str = "vm", *, policy: ResourcePolicy | None = None, **properties: str) -> ResourceSpec:
    return ResourceSpec(
        name=name,
        type="virtual-machine",
        properties={"image": "blackstart/guest", **properties},
        policy=policy or ResourcePolicy(),
    )


def address(name: str = "ip", text: str = "10.87.1.1/24") -> ResourceSpec:
    return ResourceSpec(name=name, type="ip-address", properties={"address": text})


def _fail(task: SimulatedTask, error: Exception) -> None:
    raise AssertionError(f"task {task.name} failed: {error!r}") from error
