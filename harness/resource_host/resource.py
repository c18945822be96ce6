"""One resource as the resource host keeps it: its state, its place in the schedule, and the call under way.

The state follows the transition table; a transition that it lacks raises, because then the host itself is wrong.
"""

from collections import deque
from collections.abc import Callable

from harness.errors import HarnessError
from harness.model.host_messages import HostReport, HostRequest
from harness.model.states import ResourceState, may_become
from harness.model.topology import ResourceSpec
from harness.model.vm import Proof
from harness.ports import Log, Runtime
from harness.resource_host.driver import DriverStatus
from harness.synchronization import Signal

__all__ = ["HostedResource", "ReportLine"]


class ReportLine:
    """Numbers the host's reports and sends them."""

    def __init__(self, runtime: Runtime, send: Callable[[HostReport], None]) -> None:
        self._runtime = runtime
        self._send = send
        self._sequence = 0

    def make(
        self,
        resource: str,
        group: str,
        *,
        epoch: int,
        status: DriverStatus,
        number: int | None = None,
        error: str | None = None,
        checkpoint: int = 0,
    ) -> HostReport:
        """The next report."""
        self._sequence += 1
        return HostReport(
            sequence=self._sequence,
            resource=resource,
            group=group,
            epoch=epoch,
            state=status.state,
            at_us=self._runtime.now(),
            number=number,
            error=error,
            proof=status.proof,
            ending=status.ending,
            evidence=status.evidence,
            run=status.run,
            checkpoint=checkpoint,
            live=status.live,
        )

    def send(self, report: HostReport) -> None:
        """Hand it to the service's connection, which drops it when there is none: the next hello tells the state."""
        self._send(report)


class HostedResource:
    """Invariant: at most one entry point is under way, apart from `terminate`; `online_life` changes whenever it goes
    or ceases to be Online.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        request: HostRequest,
        spec: ResourceSpec,
        driver: object,
        line: ReportLine,
        log: Log,
        when_online: Callable[["HostedResource"], None],
    ) -> None:
        self.name = request.resource
        self.group = request.group
        self.request = request
        self.spec = spec
        self.driver = driver
        self.status = DriverStatus(state=ResourceState.INITIALIZING)
        self.queue: deque[HostRequest] = deque()
        self.changed = Signal(runtime)
        self.entered: str | None = None
        self.terminations = 0
        self.turn = 0
        self.online_life = 0
        self.heard_us = 0
        self.checkpoint = 0
        self.heard_while_busy: DriverStatus | None = None
        self.closed = False
        self.now = runtime.now
        self.when_online = when_online
        self._line = line
        self._log = log

    @property
    def state(self) -> ResourceState:
        """Its present state."""
        return self.status.state

    @property
    def busy(self) -> bool:
        """Whether the driver is at work on it, so that what it says meanwhile is not spontaneous."""
        return self.entered is not None or self.terminations > 0

    def become(self, status: DriverStatus) -> None:
        """Take a new status on. A change of state that needs the pending state in between goes through it."""
        old, new = self.state, status.state
        if old is not new:
            if not may_become(old, new):
                between = ResourceState.ONLINE_PENDING if new is ResourceState.ONLINE else ResourceState.OFFLINE_PENDING
                if not (may_become(old, between) and may_become(between, new)):
                    raise HarnessError(f"resource {self.name}: no transition from {old} to {new}")
            self.online_life += 1
            message = f"resource {self.name}: {old} -> {new}"
            self._log("resource-state", message, resource=self.name, group=self.group, old=str(old), state=str(new))
        self.status = status
        self.changed.notify()

    def take_heard(self) -> DriverStatus | None:
        """The end that the driver told during a call, once."""
        heard, self.heard_while_busy = self.heard_while_busy, None
        return heard

    def tell(self, *, number: int | None = None, error: str | None = None, proof: Proof | None = None) -> None:
        """Report the present state; `number` is the request that this settles."""
        status = self.status
        if proof is not None:
            status = DriverStatus(
                state=status.state, evidence=status.evidence, ending=status.ending, run=status.run, proof=proof
            )
        self._line.send(self._report(status, number=number, error=error))

    def hello(self) -> HostReport:
        """The present state for a new connection: nothing in it was seen happening just now."""
        known = self.status
        status = DriverStatus(
            state=known.state, evidence=known.evidence, ending=known.ending, run=known.run, live=False
        )
        return self._report(status)

    def _report(self, status: DriverStatus, *, number: int | None = None, error: str | None = None) -> HostReport:
        return self._line.make(
            self.name,
            self.group,
            epoch=self.request.epoch,
            status=status,
            number=number,
            error=error,
            checkpoint=self.checkpoint,
        )
