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
from chaos.faults.rhs_hang import RhsHang
from chaos.faults.rhs_kill import RhsKill
from chaos.faults.rhs_thaw import RhsThaw
from chaos.faults.service_hang import ServiceHang
from chaos.faults.service_kill import ServiceKill
from chaos.faults.service_thaw import ServiceThaw
from chaos.faults.vm_crash import VmCrash
from chaos.faults.vm_hang import VmHang
from chaos.faults.vm_kill import VmKill
from chaos.faults.vm_start import VmStart
from chaos.faults.vm_stop import VmStop
from chaos.faults.vm_thaw import VmThaw
from chaos.faults.vmms_hang import VmmsHang
from chaos.faults.vmms_kill import VmmsKill
from chaos.faults.vmms_thaw import VmmsThaw
from chaos.faults.voter_disk_full import VoterDiskFull
from chaos.faults.voter_free_disk import VoterFreeDisk
from chaos.faults.voter_hang import VoterHang
from chaos.faults.voter_kill import VoterKill
from chaos.faults.voter_thaw import VoterThaw
from chaos.faults.voter_wipe import VoterWipe

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
    VmKill(),
    VmStop(),
    VmStart(),
    VmHang(),
    VmThaw(),
    ServiceKill(),
    ServiceHang(),
    ServiceThaw(),
    RhsKill(),
    RhsHang(),
    RhsThaw(),
    VmmsKill(),
    VmmsHang(),
    VmmsThaw(),
    VoterKill(),
    VoterHang(),
    VoterThaw(),
    VoterWipe(),
    VoterDiskFull(),
    VoterFreeDisk(),
)

FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}
"""Every fault by its name."""
