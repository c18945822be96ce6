"""The kinds of fault that a schedule may have, and what they have in common."""

import random
from dataclasses import dataclass
from enum import StrEnum

from harness.model.topology import Topology

__all__ = [
    "ABOUT_VMS",
    "BEFALLS_NODES",
    "CUTS",
    "DISTURBS_ENDS",
    "DISTURBS_STARTS",
    "ENDS_NODES",
    "HURTS_VOTERS",
    "NOT_UNDER_SELF",
    "OF_VOTERS",
    "ONLY_ABOUT_SETS",
    "SETS",
    "THEMES",
    "FaultKind",
    "Planned",
    "has_others",
]


class FaultKind(StrEnum):
    """What a schedule may do to the world."""

    POWER_OFF = "node.power-off"
    RESET = "node.reset"
    FREEZE = "node.freeze"
    PAUSE = "node.pause"
    CLOCK_DRIFT = "node.clock-drift"
    CLOCK_STEP = "node.clock-step"
    NODE_AWAY = "node.away"
    ISOLATE = "node.isolate"
    ONE_WAY = "node.one-way"
    PARTIAL = "network.partial"
    BRIDGE = "network.bridge"
    RING = "network.ring"
    LOSSY = "network.lossy"
    DOUBLING = "network.double"
    SHUFFLING = "network.shuffle"
    MISROUTED = "network.misroute"
    SERVICE_KILL = "service.kill"
    SERVICE_HANG = "service.hang"
    SERVICE_CRASH_MIDWAY = "service.crash-midway"
    LATE_ACCEPT = "service.late-accept"
    HOST_KILL = "rhs.kill"
    HOST_HANG = "rhs.hang"
    DRIVER_BREAK = "driver.break"
    DRIVER_HANG = "driver.hang"
    VMMS_KILL = "vmms.kill"
    VMMS_HANG = "vmms.hang"
    VOTER_KILL = "voter.kill"
    VOTER_HANG = "voter.hang"
    VOTER_WIPE = "voter.wipe"
    VOTER_TORN_TAIL = "voter.torn-tail"
    WITNESS_KILL = "witness.kill"
    ENGINE_STALL = "engine.stall"
    LOST_ANSWER = "engine.lost-answer"
    LATE_START = "engine.late-start"
    SWITCH_UNREACHABLE = "fence.unreachable"
    SWITCH_LATE = "fence.late"
    VM_CRASH = "vm.crash"
    VM_CRASH_LOOP = "vm.crash-loop"
    VM_KILL = "vm.kill"
    VM_HANG = "vm.hang"
    VM_SLOW_START = "vm.slow-start"
    VM_FAILING_START = "vm.failing-start"
    VM_ENDLESS_START = "vm.endless-start"
    VM_DEAF = "vm.deaf"
    VM_FAILING_STOP = "vm.failing-stop"
    VM_ENDLESS_STOP = "vm.endless-stop"
    VM_SLOW_END = "vm.slow-end"
    VM_STOP_BY_HAND = "vm.stop-by-hand"
    VM_START_BY_HAND = "vm.start-by-hand"
    COMMAND = "administrator.command"


NOT_UNDER_SELF = frozenset(
    {
        FaultKind.FREEZE,
        FaultKind.VM_HANG,
        FaultKind.ENGINE_STALL,
        FaultKind.LOST_ANSWER,
        FaultKind.LATE_START,
        FaultKind.VM_SLOW_START,
        FaultKind.VM_ENDLESS_START,
        FaultKind.VM_ENDLESS_STOP,
        FaultKind.SWITCH_UNREACHABLE,
        FaultKind.SWITCH_LATE,
    }
)
"""What fencing `self` cannot cover: a node that freezes with its watchdog, a VM that nothing can end or that is
frozen when it should end, and engine calls that outlive the bound. It has no switch that could fail.
"""

DISTURBS_STARTS = frozenset({FaultKind.ENGINE_STALL, FaultKind.LOST_ANSWER, FaultKind.LATE_START})
DISTURBS_ENDS = frozenset(
    {
        FaultKind.VM_FAILING_STOP,
        FaultKind.VM_ENDLESS_STOP,
        FaultKind.VM_SLOW_END,
        FaultKind.VM_HANG,
        FaultKind.SWITCH_UNREACHABLE,
        FaultKind.SWITCH_LATE,
    }
)
BEFALLS_NODES = frozenset(
    {
        FaultKind.POWER_OFF,
        FaultKind.RESET,
        FaultKind.FREEZE,
        FaultKind.ISOLATE,
        FaultKind.SERVICE_KILL,
        FaultKind.SERVICE_CRASH_MIDWAY,
        FaultKind.HOST_KILL,
        FaultKind.HOST_HANG,
        FaultKind.VMMS_KILL,
        FaultKind.VMMS_HANG,
    }
)
ABOUT_VMS = frozenset(kind for kind in FaultKind if kind.value.startswith("vm."))

CUTS = frozenset(
    kind for kind in FaultKind if kind.value.startswith("network.") or kind in (FaultKind.ISOLATE, FaultKind.ONE_WAY)
)
HURTS_VOTERS = frozenset(kind for kind in FaultKind if kind.value.startswith("voter."))
OF_VOTERS = HURTS_VOTERS | {FaultKind.CLOCK_STEP, FaultKind.MISROUTED}
"""What concerns nodes with a vote only."""
_NEEDS_ANOTHER = frozenset({FaultKind.PARTIAL, FaultKind.BRIDGE, FaultKind.RING})
ENDS_NODES = frozenset({FaultKind.POWER_OFF, FaultKind.RESET, FaultKind.FREEZE, FaultKind.ISOLATE})
"""What a node does not survive as a member, if it lasts."""

ONLY_ABOUT_SETS = frozenset({FaultKind.NODE_AWAY, FaultKind.WITNESS_KILL})
"""What only schedules about the voter set draw: a long absence, and a witness that most topologies lack, would take the
place of what finds the other rules.
"""

SETS = frozenset(
    {
        FaultKind.VOTER_WIPE,
        FaultKind.VOTER_KILL,
        FaultKind.VOTER_HANG,
        FaultKind.VOTER_TORN_TAIL,
        FaultKind.POWER_OFF,
        FaultKind.RESET,
        FaultKind.ISOLATE,
        FaultKind.ONE_WAY,
        FaultKind.LOSSY,
        FaultKind.SERVICE_KILL,
        FaultKind.SERVICE_HANG,
        FaultKind.VM_CRASH,
    }
    | ONLY_ABOUT_SETS
)
ROUNDS = (
    CUTS
    | HURTS_VOTERS
    | {
        FaultKind.COMMAND,
        FaultKind.VM_CRASH_LOOP,
        FaultKind.SERVICE_KILL,
        FaultKind.SERVICE_CRASH_MIDWAY,
        FaultKind.LATE_ACCEPT,
    }
)

THEMES: tuple[frozenset[FaultKind], ...] = (
    DISTURBS_STARTS | ENDS_NODES,
    SETS,
    ROUNDS,
    DISTURBS_ENDS | ENDS_NODES | {FaultKind.VM_DEAF, FaultKind.COMMAND},
    ABOUT_VMS | ENDS_NODES | {FaultKind.COMMAND, FaultKind.DRIVER_BREAK, FaultKind.DRIVER_HANG},
)
"""What meets its like: starts and ends that go wrong while nodes go, the voter set, rounds with the voters,
VMs.
"""


def has_others(kind: FaultKind, topology: Topology) -> bool:
    """Whether that rig has whom such a fault needs beside its target."""
    if kind in _NEEDS_ANOTHER:
        return len(topology.everybody) > 1
    return kind is not FaultKind.MISROUTED or len(topology.voters) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One fault at one time, with its target and its length in microseconds. What else there is to choose follows from
    these, so that a fault is the same wherever it is played again.
    """

    at_us: int
    kind: FaultKind
    target: str
    duration_us: int

    def __str__(self) -> str:
        return f"{self.at_us / 1e6:7.3f} s {self.kind} {self.target} for {self.duration_us / 1e6:.3f} s"

    @property
    def choice(self) -> random.Random:
        """What chooses among several ways of the same fault."""
        return random.Random(f"{self.at_us}.{self.duration_us}")
