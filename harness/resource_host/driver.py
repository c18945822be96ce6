"""What a resource driver is: the entry points that the host calls, what it hands over, what it gets back.

A driver never reads the database, never looks at a clock and awaits nothing but the ports in its `DriverServices` and
their runtime, so that the same driver runs live and simulated. Third parties register theirs as an entry point of the
group `blackstart.drivers`: the resource type is its name, a `DriverFactory` its value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.model.host_messages import CallReason
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import ResourceSpec
from harness.model.vm import Ending, Order, Proof
from harness.ports import Addresses, Hypervisor, Log, Prober, Runtime, Storage

__all__ = ["DriverContext", "DriverError", "DriverFactory", "DriverServices", "DriverStatus", "ResourceDriver"]


class DriverError(Exception):
    """The driver cannot do what it was asked: a property is wrong, a file is missing. The text is for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverStatus:
    """What a driver says of its resource. `run` names the VM's run it speaks of; `live` is False for what was not
    seen happening.
    """

    state: ResourceState
    evidence: str = ""
    ending: Ending | None = None
    run: str = ""
    live: bool = True
    proof: Proof | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverContext:
    """One call of an entry point: the resource, the right under which it is called, and why.

    `wanted` is its PersistentState; `siblings` are the states of the group's resources on this node. `report` tells a
    status at any time, during a call or without one; each call of it proves that the driver is alive.
    """

    resource: str
    group: str
    spec: ResourceSpec
    wanted: bool
    session: Session
    epoch: int
    order: Order
    adopt: bool
    why: CallReason
    siblings: Mapping[str, ResourceState]
    report: Callable[[DriverStatus], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverServices:
    """The ports that a driver may use."""

    runtime: Runtime
    hypervisor: Hypervisor
    addresses: Addresses
    storage: Storage
    reach: Prober
    log: Log


class ResourceDriver(Protocol):
    """The entry points. A driver may lack any of them: the host then discards the request and logs it.

    `startup` is called once, before all others. `online` and `offline` may return a pending status and report the end
    later. Any exception is an error of that call; after one from `online` the host calls `terminate`. `terminate` and
    `close` return only with proof.
    """

    async def startup(self) -> None: ...
    async def open(self, context: DriverContext) -> DriverStatus: ...
    async def close(self, context: DriverContext) -> Proof: ...
    async def online(self, context: DriverContext) -> DriverStatus: ...
    async def offline(self, context: DriverContext) -> DriverStatus: ...
    async def terminate(self, context: DriverContext) -> Proof: ...
    async def is_alive(self, context: DriverContext) -> DriverStatus: ...
    async def looks_alive(self, context: DriverContext) -> DriverStatus: ...
    async def control(self, context: DriverContext, code: str, argument: Any) -> Any: ...


DriverFactory = Callable[[DriverServices], object]
"""Makes the one driver of a type for the life of a host: a `ResourceDriver`, or an object with some of its entry
points.
"""
