"""`vmms.kill`: VMMS dies of SIGKILL.

PID 1 starts the next one, which finds the VMs by their labels: none stops. What was asked of the killed one may
have happened, and is found out.
"""

from chaos.arena.process_effects import NodeProgram
from chaos.faults.program import ProgramKill

__all__ = ["VmmsKill"]


class VmmsKill(ProgramKill):
    """VMMS dies of SIGKILL, past the engine and past PID 1, which starts it again."""

    name = "vmms.kill"
    program = NodeProgram.VMMS
