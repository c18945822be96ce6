"""`vmms.thaw`: VMMS that was stopped goes on (SIGCONT). It heals `vmms.hang`."""

from chaos.arena.process_effects import NodeProgram
from chaos.faults.program import ProgramThaw

__all__ = ["VmmsThaw"]


class VmmsThaw(ProgramThaw):
    """VMMS that was stopped goes on (SIGCONT)."""

    name = "vmms.thaw"
    program = NodeProgram.VMMS
    heals = frozenset({"vmms.hang"})
