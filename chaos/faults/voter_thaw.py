"""`voter.thaw`: a node's voter that was stopped goes on (SIGCONT). It heals `voter.hang`."""

from chaos.arena.process_effects import NodeProgram
from chaos.faults.program import ProgramThaw

__all__ = ["VoterThaw"]


class VoterThaw(ProgramThaw):
    """A node's voter that was stopped goes on (SIGCONT)."""

    name = "voter.thaw"
    program = NodeProgram.VOTER
    heals = frozenset({"voter.hang"})
