"""What every fault has: a plan, an effect, and a receipt measured from outside.

A fault is aimed at one node or VM. `plan` checks that it would do something; the runner then writes it to the
ledger and has the arena apply the plan's effect; `receipt` says from what the engine shows whether it took effect. A
fault that cannot be confirmed is not a lie but not a fault either: the run cannot pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from chaos.arena.port import Arena, Effect
from chaos.faults.kinds import FaultArgument, TargetKind
from chaos.history.records import ContainerRole, ContainerSeen, EngineEventSeen, FaultMoment, StreamGap

__all__ = [
    "RECEIPT_LIMIT_US",
    "Adjustable",
    "Fault",
    "FaultRefused",
    "Plan",
    "Receipt",
    "lost_events",
    "node_container",
    "node_events",
    "vms_on",
]

RECEIPT_LIMIT_US = 10_000_000
"""How long a fault may take to show.

The slowest measured is a node with thirty VMs, one second; ten is a VM under heavy load.
"""


class FaultRefused(Exception):
    """The fault would do nothing now, or something else than it says. Nothing was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is about to be done. `affected` are the VMs that it will end, or may."""

    target: str
    effect: Effect
    affected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """`outcome` is CONFIRMED, MISMATCH (something else happened) or INCONCLUSIVE (nobody can tell); `seen` says why."""

    outcome: FaultMoment
    seen: str


class Fault(Protocol):
    """One kind of fault.

    `undo` names the fault that heals it, empty if there is nothing to heal; `heals` names those that it heals.
    """

    name: str
    target: TargetKind
    effect: type[Effect]
    undo: str
    heals: frozenset[str]

    async def plan(self, arena: Arena, target: str) -> Plan:
        """Raises FaultRefused when the precondition does not hold."""
        ...

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """What is seen from outside of an effect that acted at `at_ns`. Waits at most RECEIPT_LIMIT_US."""
        ...


@runtime_checkable
class Adjustable(Protocol):
    """A fault with arguments of its own, beside its target. None of them is required."""

    arguments: Mapping[str, FaultArgument]

    def adjusted(self, arguments: Mapping[str, Any]) -> Fault:
        """The same fault with these arguments, which the reader has checked."""
        ...


def node_container(containers: tuple[ContainerSeen, ...], node: str) -> ContainerSeen:
    """The container of a node. Raises FaultRefused when there is none."""
    for seen in containers:
        if seen.role is ContainerRole.NODE and seen.node == node:
            return seen
    known = sorted(seen.node for seen in containers if seen.role is ContainerRole.NODE)
    raise FaultRefused(f"the engine lists no node {node}; it lists {', '.join(known) or 'none'}")


def vms_on(containers: tuple[ContainerSeen, ...], node: str) -> tuple[ContainerSeen, ...]:
    """The VMs that run on a node, by name."""
    found = [seen for seen in containers if seen.role is ContainerRole.VM and seen.node == node and seen.running]
    return tuple(sorted(found, key=lambda seen: seen.vm))


def lost_events(arena: Arena, *, since_ns: int) -> str:
    """A sentence when events since then may be lost, else empty."""
    gaps = [gap for gap in arena.history.of(StreamGap) if gap.at_ns >= since_ns and not gap.complete]
    return f"the engine's event stream was interrupted: {gaps[0].reason}" if gaps else ""


def node_events(arena: Arena, node: str, *actions: str, since_ns: int = 0) -> list[EngineEventSeen]:
    """The events of those actions of a node's own container, in their order."""
    found = [
        event
        for event in arena.history.of(EngineEventSeen)
        if event.role is ContainerRole.NODE
        and event.node == node
        and event.action in actions
        and event.at_ns >= since_ns
    ]
    return sorted(found, key=lambda event: event.at_ns)
