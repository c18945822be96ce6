"""Which faults can be injected on this machine, as far as its doctor has seen, and why not."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from chaos.faults import FAULTS, Fault
from harness.rig.doctor import DISKS_IN_MEMORY, FREEZING, PACKET_FILTER, Check, Health

__all__ = ["FaultAbility", "fault_abilities"]

NEEDS = {
    "node.isolate": PACKET_FILTER,
    "node.join-network": PACKET_FILTER,
    "node.hang": FREEZING,
    "node.thaw": FREEZING,
    "vm.hang": FREEZING,
    "vm.thaw": FREEZING,
    "engine.stall": FREEZING,
    "engine.resume": FREEZING,
    "voter.disk-full": DISKS_IN_MEMORY,
    "voter.free-disk": DISKS_IN_MEMORY,
}
"""What a fault needs beyond what every rig does, as the name of a check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultAbility:
    """Whether a fault can be injected here, and why not."""

    fault: str
    effect: str
    available: bool
    why_not: str = ""


def fault_abilities(checks: Sequence[Check]) -> tuple[FaultAbility, ...]:
    """Every fault: not available when something that every rig needs is missing, or something that it needs itself."""
    missing = [f"{check.name}: {check.saw}" for check in checks if check.health is Health.FAIL]
    lacking = {check.name: f"{check.name}: {check.saw}" for check in checks if _lacks(check)}
    abilities = []
    for name, fault in FAULTS.items():
        own = lacking.get(NEEDS.get(name, ""))
        why_not = "; ".join([*missing, *([own] if own else [])])
        abilities.append(FaultAbility(fault=name, effect=_effect(fault), available=not why_not, why_not=why_not))
    return tuple(abilities)


def _lacks(check: Check) -> bool:
    """A packet filter that can do less than it should still cuts a node off."""
    without = check.health is not Health.OK
    return without and not (check.name == PACKET_FILTER and check.saw.startswith("iptables"))


def _effect(fault: Fault) -> str:
    """The first sentence of the fault's own page, without its name."""
    page = sys.modules[type(fault).__module__].__doc__ or ""
    first = " ".join(page.split("\n\n", 1)[0].split())
    return first.partition(": ")[2].rstrip(".").partition(". ")[0]
