"""`rhs.thaw`: the resource host that was stopped goes on (SIGCONT). It heals `rhs.hang`."""

from chaos.faults.program import ProgramThaw
from chaos.process_effects import NodeProgram

__all__ = ["RhsThaw"]


class RhsThaw(ProgramThaw):
    """The resource host that was stopped goes on (SIGCONT)."""

    name = "rhs.thaw"
    program = NodeProgram.RESOURCE_HOST
    heals = frozenset({"rhs.hang"})
