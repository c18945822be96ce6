"""`service.hang`: the cluster service stands still (SIGSTOP).

The node's lease ends unrenewed: PID 1 ends the VMs with it and resets the node after the grace, and the others
take its groups. Thawed before that, it goes on as if nothing had been.
"""

from chaos.arena.process_effects import NodeProgram
from chaos.faults.program import ProgramHang

__all__ = ["ServiceHang"]


class ServiceHang(ProgramHang):
    """The cluster service stands still (SIGSTOP), with its children."""

    name = "service.hang"
    program = NodeProgram.SERVICE
    undo = "service.thaw"
    ends_node = True
