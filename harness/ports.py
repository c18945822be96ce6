"""The ports between the core and the world: few, small, each with a live adapter and a simulated twin, one contract
test for both.

Two kinds of code stand on them. The managers do no I/O at all: they are fed events and return actions. VMMS, the
resource host and the drivers are coroutines that await calls of these ports and nothing else; asyncio drives them
live, a heap of virtual time drives them in the simulation. All times are integer microseconds of the boot-time clock
of the engine's host.
"""

from collections.abc import AsyncIterator, Collection, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from harness.model.session import Session
from harness.model.vm import Order, Proof, VmNotice, VmSpec, VmView
from harness.model.workload import Endpoint

__all__ = [
    "Addresses",
    "Container",
    "DeadlinePassed",
    "Engine",
    "EngineEvent",
    "EventGap",
    "Hypervisor",
    "Log",
    "OrderRefused",
    "Pending",
    "Prober",
    "Runtime",
    "Storage",
    "Task",
]

T = TypeVar("T")


class DeadlinePassed(Exception):
    """What `Runtime.within` raises: the awaited thing was cancelled; its remote effect is unknown."""


class Pending(Protocol, Generic[T]):
    """A result that somebody will set once; any number of coroutines may await it."""

    def __await__(self) -> Generator[Any, Any, T]: ...
    def set_result(self, value: T, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...
    def done(self) -> bool: ...


class Task(Protocol):
    """A coroutine under way."""

    def cancel(self) -> Any: ...
    def done(self) -> bool: ...


class Runtime(Protocol):
    """Clock and scheduler. Live: asyncio and CLOCK_BOOTTIME. Simulated: a heap."""

    def now(self) -> int: ...
    def spawn(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> Task: ...
    def pending(self) -> Pending[Any]: ...
    async def sleep(self, duration_us: int) -> None: ...
    async def within(self, limit_us: int, coroutine: Coroutine[Any, Any, T]) -> T: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as the engine lists it. `started` is StartedAt, empty if it never ran; `started_ns` the same as a
    number that compares with an event's `at_ns`. `id` is the full id. `running` includes paused, but not the wait of
    a restart policy.
    """

    id: str
    name: str
    running: bool
    paused: bool = False
    started: str = ""
    started_ns: int = 0
    exit_code: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEvent:
    """One event of the engine's stream: `action` is create, start, kill, die, stop, oom, pause, unpause, destroy or
    another word of the engine's.
    """

    at_ns: int
    container: str
    action: str
    exit_code: int | None = None
    signal: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventGap:
    """The stream was interrupted in a way that may have lost events: whoever reads it must list and may conclude
    nothing from silence.
    """


class Engine(Protocol):
    """The container engine. Every call raises EngineUnanswered when its fate is unknown, NoSuchContainer on 404,
    EngineError on another refusal.

    A `start` that was not sent by `not_after_us` of the caller's clock is not sent, and raises EngineTooLate.

    `begin_inside` starts a command in a running container, as the container's user, and returns what names it;
    `ended_inside` says with which status it ended, None while it has not, and never waits.
    """

    async def containers(self, *, labels: Mapping[str, str]) -> list[Container]: ...
    async def inspect(self, container: str) -> Container | None: ...
    async def create_vm(self, spec: VmSpec, *, session: Session, labels: Mapping[str, str]) -> str: ...
    async def start(self, container: str, *, not_after_us: int | None = None) -> None: ...
    async def kill(self, container: str, *, signal: int = 9) -> None: ...
    async def remove(self, container: str) -> None: ...
    async def begin_inside(self, container: str, command: tuple[str, ...]) -> str: ...
    async def ended_inside(self, begun: str) -> int | None: ...
    async def holds(self, rig: str) -> frozenset[str]: ...
    def events(self, *, labels: Mapping[str, str]) -> AsyncIterator[EngineEvent | EventGap]: ...


class OrderRefused(Exception):
    """VMMS refused an order: session, epoch or time no longer hold. The start certainly did not happen and will not."""


class Hypervisor(Protocol):
    """VMMS as its callers see it: the resource host's drivers, and the service for joining and fencing.

    Calls raise EngineUnanswered when the answer is lost (VMMS was killed, the engine is stalled), EngineError when
    the engine refused. VMs are named by resource name; containers are VMMS's own business. `run_inside` answers
    with the status of a command, None when it has not ended within the limit.
    """

    async def alive(self) -> None: ...
    async def identity(self) -> Session: ...
    async def clear_earlier_sessions(self) -> int: ...
    async def prepare(self, spec: VmSpec, *, epoch: int, adopt: bool) -> VmView: ...
    async def start(self, vm: str, *, order: Order) -> VmView: ...
    async def shut_down(self, vm: str, *, grace_us: int) -> Proof: ...
    async def terminate(self, vm: str) -> Proof: ...
    async def close(self, vm: str, *, epoch: int) -> Proof: ...
    async def view(self, vm: str) -> VmView: ...
    async def vms(self) -> list[VmView]: ...
    async def run_inside(self, vm: str, command: tuple[str, ...], *, limit_us: int) -> int | None: ...
    async def fence(self, session: Session, *, not_after_us: int) -> None: ...
    async def power_on(self, node: str) -> bool: ...
    def notices(self) -> AsyncIterator[VmNotice]: ...


class Addresses(Protocol):
    """The addresses of this node's network interface. `announce` sends a gratuitous ARP."""

    async def add(self, address: str) -> None: ...
    async def remove(self, address: str) -> None: ...
    async def present(self) -> frozenset[str]: ...
    async def announce(self, address: str) -> None: ...


class Prober(Protocol):
    """What answers at an address of this node. The answer is empty, or says what was seen instead of a good one."""

    async def ask(self, address: str, endpoint: Endpoint, *, limit_us: int) -> str: ...


class Storage(Protocol):
    """The cluster shared volume as a driver checks it. Raises OSError when the volume does not answer."""

    async def missing(self, vm: str, *, volumes: Collection[str] = ()) -> tuple[str, ...]: ...


class Log(Protocol):
    """Writes one line of the cluster log: `event` is a stable name, `number` the published id where one exists.
    Never raises, never waits.
    """

    def __call__(
        self, event: str, message: str, /, *, number: int | None = None, **fields: str | int | None
    ) -> None: ...
