"""`service.thaw`: the cluster service that was stopped goes on (SIGCONT). It heals `service.hang`."""

from chaos.faults.program import ProgramThaw
from chaos.process_effects import NodeProgram

__all__ = ["ServiceThaw"]


class ServiceThaw(ProgramThaw):
    """The cluster service that was stopped goes on (SIGCONT)."""

    name = "service.thaw"
    program = NodeProgram.SERVICE
    heals = frozenset({"service.hang"})
