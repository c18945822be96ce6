"""Which faults can be injected on this host, as far as its doctor has seen, and why not."""

from collections.abc import Sequence
from dataclasses import dataclass

from chaos.compatibility.arenas import barred_from
from chaos.faults.fault_table import fault_rows
from harness.rig.lifecycle.doctor import DISKS_IN_MEMORY, FREEZING, PACKET_FILTER, Check, Health

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
    """Whether a fault can be injected here, and why not. `only_in`: the one arena that can carry it out; empty when all
    can.
    """

    fault: str
    effect: str
    available: bool
    why_not: str = ""
    only_in: str = ""


def fault_abilities(checks: Sequence[Check]) -> tuple[FaultAbility, ...]:
    """Every fault: not available when something that every rig needs is missing, or something that it needs itself."""
    missing = [f"{check.name}: {check.saw}" for check in checks if check.health is Health.FAIL]
    lacking = {check.name: f"{check.name}: {check.saw}" for check in checks if _lacks(check)}
    abilities = []
    for row in fault_rows():
        own = lacking.get(NEEDS.get(row.name, ""))
        barred = barred_from(row.name)
        why_not = "; ".join([*missing, *([own] if own else []), *([barred["docker"]] if "docker" in barred else [])])
        abilities.append(
            FaultAbility(
                fault=row.name,
                effect=row.does,
                available=not why_not,
                why_not=why_not,
                only_in="docker" if "sim" in barred else "sim" if "docker" in barred else "",
            )
        )
    return tuple(abilities)


def _lacks(check: Check) -> bool:
    """A packet filter that can do less than it should still cuts a node off."""
    without = check.health is not Health.OK
    return without and not (check.name == PACKET_FILTER and check.saw.startswith("iptables"))
