"""What answers at the addresses of a simulated node: the VMs that run there and are ready."""

from harness.model.workload import Endpoint
from harness.ports import Runtime
from harness.simulation.twins.engine import SimulatedEngine

__all__ = ["SimulatedReach"]

ANSWER_US = 300


class SimulatedReach:
    """The `Reach` port of one node."""

    def __init__(self, engine: SimulatedEngine, *, node: str, runtime: Runtime) -> None:
        self._engine = engine
        self._node = node
        self._runtime = runtime

    async def ask(self, address: str, endpoint: Endpoint, *, limit_us: int) -> str:
        """Empty when the VM with this address is ready; a frozen one keeps its caller waiting."""
        boxes = [box for box in self._engine.boxes.values() if box.node == self._node and box.spec is not None]
        here = [box for box in boxes if box.alive and box.spec is not None and box.spec.address == address]
        if any(box.paused for box in here):
            await self._runtime.sleep(limit_us)
            return f"{address} did not answer within {limit_us / 1e6:g} s"
        await self._runtime.sleep(min(ANSWER_US, limit_us))
        return "" if any(self._engine.ready(box) for box in here) else f"{address}: connection refused on {endpoint}"
