"""`service.thaw`: the cluster service that was stopped goes on (SIGCONT). It heals `service.hang`."""

from chaos.arena.process_effects import NodeProgram
from chaos.faults.program import ProgramThaw

__all__ = ["ServiceThaw"]


class ServiceThaw(ProgramThaw):
    """The cluster service that was stopped goes on (SIGCONT)."""

    name = "service.thaw"
    program = NodeProgram.SERVICE
    heals = frozenset({"service.hang"})
