"""`rhs.kill`: the resource host dies of SIGKILL.

PID 1 starts the next one, which opens every resource again and adopts what runs: no VM stops, nothing moves.
"""

from chaos.arena.process_effects import NodeProgram
from chaos.faults.program import ProgramKill

__all__ = ["RhsKill"]


class RhsKill(ProgramKill):
    """The resource host dies of SIGKILL, past the engine and past PID 1, which starts it again."""

    name = "rhs.kill"
    program = NodeProgram.RESOURCE_HOST
