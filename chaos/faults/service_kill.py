"""`service.kill`: the cluster service dies of SIGKILL.

PID 1 starts the next one, which finds the session's lease running and adopts what runs: no VM stops.
"""

from chaos.arena.process_effects import NodeProgram
from chaos.faults.program import ProgramKill

__all__ = ["ServiceKill"]


class ServiceKill(ProgramKill):
    """The cluster service dies of SIGKILL, past the engine and past PID 1, which starts it again."""

    name = "service.kill"
    program = NodeProgram.SERVICE
