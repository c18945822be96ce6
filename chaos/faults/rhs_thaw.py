"""`rhs.thaw`: the resource host that was stopped goes on (SIGCONT). It heals `rhs.hang`."""

from chaos.arena.process_effects import NodeProgram
from chaos.faults.program import ProgramThaw

__all__ = ["RhsThaw"]


class RhsThaw(ProgramThaw):
    """The resource host that was stopped goes on (SIGCONT)."""

    name = "rhs.thaw"
    program = NodeProgram.RESOURCE_HOST
    heals = frozenset({"rhs.hang"})
