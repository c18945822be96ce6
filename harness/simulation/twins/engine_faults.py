"""What befalls the simulated engine's work on single VMs and on the switch of a node's power.

Each trouble has an end, in the world's microseconds. A start or an end that never comes is one that comes after that.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum

from harness.errors import EngineError

__all__ = ["EngineTroubles", "StartTrouble", "StopTrouble"]

SLOW_START_US = 2_500_000


class StartTrouble(StrEnum):
    """How starts of a VM go wrong."""

    SLOW = "slow"
    FAILING = "failing"
    ENDLESS = "endless"


class StopTrouble(StrEnum):
    """How ends of a VM go wrong: it ignores TERM; the engine cannot kill it; nothing can; they take a while."""

    DEAF = "deaf"
    FAILING = "failing"
    ENDLESS = "endless"
    SLOW = "slow"


@dataclass(slots=True)
class EngineTroubles:
    """By VM, or node, until when."""

    starts: dict[tuple[str, StartTrouble], int] = field(default_factory=lambda: defaultdict(int))
    stops: dict[tuple[str, StopTrouble], int] = field(default_factory=lambda: defaultdict(int))
    switch_unreachable: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    switch_late: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    switch_delay_us: int = 0
    end_takes_us: int = 0

    def clear(self) -> None:
        """Everything works again."""
        for table in (self.starts, self.stops, self.switch_unreachable, self.switch_late):
            table.clear()

    def start_takes_us(self, vm: str, now_us: int) -> int:
        """How much longer than usual a start takes that begins now. Raises EngineError for one that fails."""
        if not self.starts:
            return 0
        if now_us < self.starts[vm, StartTrouble.FAILING]:
            raise EngineError(f"start of {vm}: OCI runtime create failed: no space left on device")
        endless_us = max(self.starts[vm, StartTrouble.ENDLESS] - now_us, 0)
        return endless_us + (SLOW_START_US if now_us < self.starts[vm, StartTrouble.SLOW] else 0)

    def end_takes(self, vm: str, now_us: int) -> int:
        """How long from its SIGKILL until the VM has ended, in microseconds: while nothing can end it, until then.
        """
        slow_us = self.end_takes_us if self.stops_badly(vm, now_us, StopTrouble.SLOW) else 0
        return max(slow_us, self.stops_badly(vm, now_us, StopTrouble.ENDLESS))

    def stops_badly(self, vm: str, now_us: int, how: StopTrouble) -> int:
        """For how many microseconds more ends of that VM go wrong in that way; 0 when they do not."""
        return max(self.stops[vm, how] - now_us, 0) if self.stops else 0
