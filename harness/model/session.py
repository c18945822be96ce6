"""A session: one life of a node, from one start of its PID 1 to its end.

The owner of a group is a session, never a node: a rebooted node owns nothing that its earlier life owned (safety
review, finding 1).
"""

import re
from typing import NamedTuple

__all__ = ["Session"]

_FORM = re.compile(r"(?P<node>[a-z0-9][a-z0-9-]*)@(?P<container>[0-9a-z]+)/(?P<started>[0-9A-Za-z:.+-]+)")


class Session(NamedTuple):
    """Named by the node, the first digits of the engine's container id, and the engine's StartedAt, as the engine
    writes it.
    """

    node: str
    container: str
    started: str

    def __str__(self) -> str:
        return f"{self.node}@{self.container}/{self.started}"

    @classmethod
    def parse(cls, text: str) -> "Session":
        """The session that `str` wrote. Raises ValueError on anything else."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"not a session: {text!r}, expected NODE@CONTAINER/STARTED")
        return cls(match["node"], match["container"], match["started"])
