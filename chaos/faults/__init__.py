"""The faults, one file each, and the table of them."""

from chaos.faults.engine_resume import EngineResume
from chaos.faults.engine_stall import EngineStall
from chaos.faults.fault import Adjustable, Fault, FaultRefused, Plan, Receipt
from chaos.faults.node_hang import NodeHang
from chaos.faults.node_isolate import NodeIsolate
from chaos.faults.node_join_network import NodeJoinNetwork
from chaos.faults.node_power_off import NodePowerOff
from chaos.faults.node_power_on import NodePowerOn
from chaos.faults.node_reset import NodeReset
from chaos.faults.node_thaw import NodeThaw
from chaos.faults.vm_crash import VmCrash

__all__ = ["FAULTS", "Adjustable", "Fault", "FaultRefused", "Plan", "Receipt"]

_ALL: tuple[Fault, ...] = (
    VmCrash(),
    NodePowerOff(),
    NodePowerOn(),
    NodeHang(),
    NodeThaw(),
    NodeReset(),
    NodeIsolate(),
    NodeJoinNetwork(),
    EngineStall(),
    EngineResume(),
)

FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}
"""Every fault by its name."""
