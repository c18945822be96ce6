"""`voter.kill`: a node's voter dies of SIGKILL.

PID 1 starts it again at once, and it loads its file: nothing that was acknowledged is lost. Meanwhile a majority of the
others goes on.
"""

from chaos.arena.process_effects import NodeProgram
from chaos.faults.program import ProgramKill

__all__ = ["VoterKill"]


class VoterKill(ProgramKill):
    """A node's voter dies of SIGKILL, past the engine and past PID 1, which starts it again."""

    name = "voter.kill"
    program = NodeProgram.VOTER
