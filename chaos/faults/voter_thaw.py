"""`voter.thaw`: a node's voter that was stopped goes on (SIGCONT). It heals `voter.hang`."""

from chaos.faults.program import ProgramThaw
from chaos.process_effects import NodeProgram

__all__ = ["VoterThaw"]


class VoterThaw(ProgramThaw):
    """A node's voter that was stopped goes on (SIGCONT)."""

    name = "voter.thaw"
    program = NodeProgram.VOTER
    heals = frozenset({"voter.hang"})
