"""Which faults can be carried out on this machine, and why not: the findings of `doctor`, fault by fault."""

from collections.abc import Sequence
from dataclasses import dataclass

from chaos.faults.table import fault_rows
from harness.rig.doctor import FREEZING, LIMITED_DISK, Check, Health

__all__ = ["FaultAbility", "abilities"]

_NEEDS = {
    "vm.hang": FREEZING,
    "node.hang": FREEZING,
    "engine.stall": FREEZING,
    "voter.disk-full": LIMITED_DISK,
}
"""What a fault needs beyond what every rig needs, by the name of the check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultAbility:
    """Whether a fault can be injected here, and why not."""

    fault: str
    effect: str
    available: bool
    why_not: str = ""


def abilities(checks: Sequence[Check]) -> tuple[FaultAbility, ...]:
    """Every fault, in the order of the table of faults. A cure is available where its fault is."""
    lacking = {check.name: f"{check.name}: {check.saw}" for check in checks if check.health is not Health.OK}
    common = [f"{check.name}: {check.saw}" for check in checks if check.health is Health.FAIL]
    found = []
    for row in fault_rows():
        needs = {_NEEDS[name] for name in (row.name, *row.heals) if name in _NEEDS}
        why_not = "; ".join([*common, *(lacking[name] for name in sorted(needs) if name in lacking)])
        found.append(FaultAbility(fault=row.name, effect=row.does, available=not why_not, why_not=why_not))
    return tuple(found)
