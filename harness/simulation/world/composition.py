"""The composition root of a simulated world: which parts a node is made of.

The default is the production code. Controls that show that the search finds broken clusters replace single parts here
(`harness.simulation.plants`), so that no production path knows of them.
"""

from collections.abc import Callable, Mapping
from functools import partial

from harness.cluster_service.service import ClusterService, ServiceConfiguration
from harness.database.acceptor import Acceptor
from harness.database.register import Codec, JsonCodec, Stored
from harness.drivers.registry import built_in_drivers
from harness.model.host_messages import HostReport
from harness.model.records import GroupRecord
from harness.model.session import Session
from harness.model.topology import GroupSpec
from harness.ports import Addresses, Engine, Hypervisor, Log, Prober, Runtime
from harness.resource_host.driver import DriverFactory
from harness.resource_host.host import ResourceHost
from harness.simulation.invariants.reads import FreshReads, MadeOnce, WatchedService
from harness.simulation.kernel.fifo_channel import Carry, Frames
from harness.simulation.kernel.runtime import Clock, SimulatedRuntime
from harness.simulation.twins.pid1 import SimulatedInit
from harness.simulation.twins.storage import SimulatedStorage
from harness.simulation.twins.vmms_link import CallFault, FramedVmmsLink, VmmsLink, VmmsProcess
from harness.simulation.world.driver_call_tap import DriverCalls
from harness.vmms.vmms import Vmms

__all__ = ["Composition"]

TEXTS_KEPT = 20_000


class _SharedCodec(JsonCodec):
    """One memory for all nodes of a world, which read the same texts; on containers each process has a small one."""

    def __init__(self) -> None:
        self._read: dict[str, Stored] = {}
        self._specs: dict[str, GroupSpec] = {}

    def encode(self, stored: Stored) -> str:
        """The text. What it will be read as is known where it comes of what was read: no change puts keys into another
        order.
        """
        text, record = super().encode(stored), stored.record
        if isinstance(record, GroupRecord) and self._specs.get(record.spec.name) is record.spec:
            self._keep(text, stored)
        return text

    def decode(self, value: str) -> Stored:
        """The content."""
        known = self._read.get(value)
        if known is None:
            known = self._keep(value, super().decode(value))
            if isinstance(known.record, GroupRecord):
                self._specs[known.record.spec.name] = known.record.spec
        return known

    def _keep(self, text: str, stored: Stored) -> Stored:
        if len(self._read) >= TEXTS_KEPT:
            self._read.clear()
        self._read[text] = stored
        return stored


class Composition:
    """Makes the parts. Subclasses make one of them differently."""

    voters_admit_all = False
    """Whether a voter talks to whoever reaches it, and not only to those who have asked for it by its name."""

    def __init__(self, *, frames: Frames | None = None) -> None:
        """With `frames` all that a node's service, resource host and VMMS say to each other is bytes on its way, as on
        containers. Without, what is played is the same, and sooner over: that is for searches.
        """
        self.codec: Codec = _SharedCodec()
        self.storage = SimulatedStorage()
        self.watchers: tuple[FreshReads, MadeOnce] | None = None
        """The world's, of what the Database Managers tell."""
        self.calls = DriverCalls()
        self.carry: Carry = partial if frames is None else frames.carry
        self._frames = frames

    def acceptor(self) -> Acceptor:
        """A voter's rules, and its empty disk."""
        return Acceptor()

    def voter_lost_power(self, acceptor: Acceptor) -> None:
        """Its node's power is gone: what was not synced never was. Here every answer waits for its sync."""

    def init(self, clock: Clock, *, kill_guests: Callable[[], None], reset: Callable[[], None]) -> SimulatedInit:
        """PID 1 of a node."""
        return SimulatedInit(clock, kill_guests=kill_guests, reset=reset)

    def service(self, *, configuration: ServiceConfiguration, jitter: Callable[[], float]) -> ClusterService:
        """A cluster service."""
        return WatchedService(configuration=configuration, codec=self.codec, jitter=jitter, watchers=self.watchers)

    def vmms(
        self, *, runtime: Runtime, engine: Engine, rig: str, node: str, log: Log, container: str
    ) -> Vmms:
        """A VMMS process."""
        return Vmms(runtime=runtime, engine=engine, rig=rig, node=node, log=log, container=container)

    def vmms_link(
        self, clock: Clock, process: VmmsProcess, caller: SimulatedRuntime, trouble: CallFault | None = None
    ) -> VmmsLink:
        """A caller's way to a VMMS process."""
        if self._frames is None:
            return VmmsLink(clock, process, caller, trouble)
        return FramedVmmsLink(clock, process, caller, trouble, frames=self._frames)

    def drivers(self) -> Mapping[str, DriverFactory]:
        """What a resource host has for each type of resource."""
        return built_in_drivers()

    def resource_host(
        self,
        *,
        runtime: Runtime,
        hypervisor: Hypervisor,
        addresses: Addresses,
        reach: Prober,
        report: Callable[[HostReport], None],
        log: Log,
        on_deadlock: Callable[[str], None],
    ) -> ResourceHost:
        """A resource host, whose calls of its drivers are told."""
        return ResourceHost(
            runtime=runtime,
            hypervisor=hypervisor,
            addresses=addresses,
            storage=self.storage,
            reach=reach,
            drivers=self.calls.told(self.drivers()),
            report=report,
            log=log,
            on_deadlock=on_deadlock,
        )

    async def clear_earlier_sessions(self, hypervisor: Hypervisor) -> None:
        """What a joining node does before it reads a register."""
        await hypervisor.clear_earlier_sessions()

    async def fence(self, hypervisor: Hypervisor, session: Session, not_after_us: int) -> None:
        """What a survivor does to a Down session."""
        await hypervisor.fence(session, not_after_us=not_after_us)
