"""What a fault can be aimed at, and what its arguments must be."""

from enum import StrEnum

__all__ = ["FaultArgument", "TargetKind"]


class TargetKind(StrEnum):
    """What a fault can be aimed at."""

    NODE = "node"
    VM = "vm"

    @property
    def noun(self) -> str:
        """The kind in a sentence."""
        return "VM" if self is TargetKind.VM else "node"


class FaultArgument(StrEnum):
    """What an argument of a fault must be."""

    NODES = "a list of nodes"
    DIRECTION = "in, out or both"
    HELD_CALLS = "forward or drop"
    FREEZING = "pause or sigstop"
