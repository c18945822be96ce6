"""The simulated cluster shared volume, as far as a driver checks it."""

from collections.abc import Collection

__all__ = ["SimulatedStorage"]


class SimulatedStorage:
    """The `Storage` port of all nodes: everything is there but what a test or a fault took away."""

    def __init__(self) -> None:
        self.lost: dict[str, tuple[str, ...]] = {}
        self.unreachable = False

    async def missing(self, vm: str, *, volumes: Collection[str] = ()) -> tuple[str, ...]:
        """The files of the VM that are gone. Raises OSError while the volume does not answer."""
        if self.unreachable:
            raise OSError("the cluster shared volume does not answer")
        known = ("config.json", "disk", *(f"volumes/{name}" for name in volumes))
        return tuple(name for name in known if name in self.lost.get(vm, ()))
