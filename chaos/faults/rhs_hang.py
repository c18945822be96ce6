"""`rhs.hang`: the resource host stands still (SIGSTOP).

Nobody polls and nobody restarts a VM meanwhile. The cluster service notices it by the questions that it does not
answer and has PID 1 start another, which adopts what runs: no VM stops.
"""

from chaos.arena.process_effects import NodeProgram
from chaos.faults.program import ProgramHang

__all__ = ["RhsHang"]


class RhsHang(ProgramHang):
    """The resource host stands still (SIGSTOP), with its children."""

    name = "rhs.hang"
    program = NodeProgram.RESOURCE_HOST
    undo = "rhs.thaw"
