"""`voter.hang`: a node's voter stands still (SIGSTOP).

Connections to it are accepted and nothing is answered, which is worse than a refusal: every call to it takes its whole
limit. A majority of the others goes on. Nobody restarts it.
"""

from chaos.arena.process_effects import NodeProgram
from chaos.faults.program import ProgramHang

__all__ = ["VoterHang"]


class VoterHang(ProgramHang):
    """A node's voter stands still (SIGSTOP), with its children."""

    name = "voter.hang"
    program = NodeProgram.VOTER
    undo = "voter.thaw"
