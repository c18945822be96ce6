"""Driver of resource type `ip-address`: puts an address on the node's interface, announces it, and takes it away.

Without the announcement a client waits half a minute for its stale neighbour entry; it is repeated a few times because
it is not acknowledged.
"""

import functools
import ipaddress

from harness.model.states import ResourceState
from harness.model.topology import SECOND_US, ResourceSpec
from harness.model.vm import Proof
from harness.resource_host.driver import DriverContext, DriverError, DriverServices, DriverStatus

__all__ = ["IpAddressDriver", "interface_address"]

ANNOUNCE_AGAIN_US = (SECOND_US // 2, SECOND_US, 2 * SECOND_US)


def interface_address(resource: ResourceSpec) -> str:
    """The address in CIDR notation from the properties `address` (with or without length) and `prefix`; alone a single
    host. Raises DriverError.
    """
    text = resource.properties.get("address", "")
    prefix = resource.properties.get("prefix", "")
    if prefix and "/" not in text:
        text = f"{text}/{prefix}"
    try:
        return _read(text)
    except ValueError as error:
        raise DriverError(f"{resource.name}: the property address is not usable: {error}") from error


@functools.lru_cache(maxsize=1024)
def _read(text: str) -> str:
    return str(ipaddress.ip_interface(text))


class IpAddressDriver:
    """One for all addresses of the node. `_turns` tells an address that was taken away from one that is still to be
    announced.
    """

    def __init__(self, services: DriverServices) -> None:
        self._runtime = services.runtime
        self._addresses = services.addresses
        self._log = services.log
        self._turns: dict[str, int] = {}

    async def open(self, context: DriverContext) -> DriverStatus:
        """Adopt it where it is, or make sure that it is not here."""
        address = interface_address(context.spec)
        if context.adopt and address in await self._addresses.present():
            return DriverStatus(state=ResourceState.ONLINE, live=False)
        await self._take_away(address)
        return DriverStatus(state=ResourceState.OFFLINE, live=False)

    async def close(self, context: DriverContext) -> Proof:
        """Take it away."""
        await self._take_away(interface_address(context.spec))
        return Proof.REMOVED

    async def online(self, context: DriverContext) -> DriverStatus:
        """Add and announce it."""
        address = interface_address(context.spec)
        turn = self._turns[address] = self._turns.get(address, 0) + 1
        await self._addresses.add(address)
        if self._turns[address] != turn:
            await self._addresses.remove(address)
            raise DriverError(f"{address} was taken away while it was added")
        await self._addresses.announce(address)
        self._runtime.spawn(self._announce_again(address, turn), name=f"announce {address}")
        return DriverStatus(state=ResourceState.ONLINE)

    async def offline(self, context: DriverContext) -> DriverStatus:
        """Take it away."""
        await self._take_away(interface_address(context.spec))
        return DriverStatus(state=ResourceState.OFFLINE, proof=Proof.REMOVED)

    async def terminate(self, context: DriverContext) -> Proof:
        """Take it away."""
        await self._take_away(interface_address(context.spec))
        return Proof.REMOVED

    async def is_alive(self, context: DriverContext) -> DriverStatus:
        """Whether the interface has it."""
        address = interface_address(context.spec)
        if address in await self._addresses.present():
            return DriverStatus(state=ResourceState.ONLINE)
        return DriverStatus(state=ResourceState.FAILED, evidence=f"{address} is not on the interface")

    async def looks_alive(self, context: DriverContext) -> DriverStatus:
        """There is nothing more thorough to look at."""
        return await self.is_alive(context)

    async def _take_away(self, address: str) -> None:
        self._turns[address] = self._turns.get(address, 0) + 1
        await self._addresses.remove(address)

    async def _announce_again(self, address: str, turn: int) -> None:
        for pause_us in ANNOUNCE_AGAIN_US:
            await self._runtime.sleep(pause_us)
            if self._turns[address] != turn:
                return
            try:
                await self._addresses.announce(address)
            except OSError as error:
                self._log("announce-failed", f"{address}: {error}", address=address)
