"""`vmms.hang`: VMMS stands still (SIGSTOP).

Nobody on the node hears of its VMs meanwhile. The cluster service notices it by the questions that it does not
answer and has PID 1 start another, which finds the VMs again: none stops.
"""

from chaos.arena.process_effects import NodeProgram
from chaos.faults.program import ProgramHang

__all__ = ["VmmsHang"]


class VmmsHang(ProgramHang):
    """VMMS stands still (SIGSTOP), with its children."""

    name = "vmms.hang"
    program = NodeProgram.VMMS
    undo = "vmms.thaw"
