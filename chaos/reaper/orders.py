"""The standing orders of a reaper: its rig and its times, as one argument of its program."""

import json
from dataclasses import asdict, dataclass

__all__ = ["DEFAULT_TIMES", "Orders", "ReaperTimes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaperTimes:
    """How long the reaper of a run waits, in seconds: for a silent runner (`lease_s`), and then before the removal
    of the rig (`grace_s`).
    """

    lease_s: float
    grace_s: float


DEFAULT_TIMES = ReaperTimes(lease_s=10.0, grace_s=20.0)
"""A loop that is late by a second is common on a host under load, by ten it is not. The grace is for a log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """The standing orders of a reaper. Times are in seconds."""

    rig: str
    keep_rig: bool
    lease_s: float
    grace_s: float

    def text(self) -> str:
        """As the argument of the program."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> "Orders":
        """Raises ValueError, TypeError."""
        return cls(**json.loads(text))
