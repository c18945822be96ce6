"""The faults, one file each, and the table of them."""

from chaos.faults.fault import Fault, FaultRefused, Plan, Receipt
from chaos.faults.node_power_off import NodePowerOff
from chaos.faults.node_power_on import NodePowerOn
from chaos.faults.vm_crash import VmCrash

__all__ = ["FAULTS", "Fault", "FaultRefused", "Plan", "Receipt"]

_ALL: tuple[Fault, ...] = (VmCrash(), NodePowerOff(), NodePowerOn())

FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}
"""Every fault by its name."""
