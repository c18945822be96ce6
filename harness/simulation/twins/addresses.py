"""The addresses of a simulated node's interface, and the wire on which they are announced."""

from harness.simulation.kernel.runtime import SimulatedRuntime

__all__ = ["SimulatedAddresses"]

LATENCY_US = 3_000


class SimulatedAddresses:
    """The `Addresses` port of one life of one node: they vanish with its network namespace, so each life gets a new
    one.
    """

    def __init__(self, runtime: SimulatedRuntime) -> None:
        self._runtime = runtime
        self._present: set[str] = set()
        self.announced: list[tuple[int, str]] = []

    @property
    def now(self) -> frozenset[str]:
        """What the interface has, for whoever plays the network."""
        return frozenset(self._present)

    async def add(self, address: str) -> None:
        """Add an address in CIDR notation; adding it twice is harmless."""
        await self._runtime.sleep(LATENCY_US)
        self._present.add(address)

    async def remove(self, address: str) -> None:
        """Remove it; harmless when it is not there."""
        await self._runtime.sleep(LATENCY_US)
        self._present.discard(address)

    async def present(self) -> frozenset[str]:
        """What the interface has now."""
        await self._runtime.sleep(LATENCY_US)
        return frozenset(self._present)

    async def announce(self, address: str) -> None:
        """A gratuitous ARP; kept in `announced` with its time for whoever plays the network."""
        await self._runtime.sleep(LATENCY_US)
        self.announced.append((self._runtime.now(), address))

    def drop(self, address: str) -> None:
        """By hand: the address is gone, as after an administrator's `ip addr del`."""
        self._present.discard(address)
