"""The lease of a runner, as its reaper sees it: messages, answers, and the moment when it lapses.

No I/O and no clock: times are arguments, in seconds of one monotonic clock. A lease that has lapsed is never given
back, because the reaper may have begun to undo faults under the runner's feet.
"""

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["BEAT_INTERVAL_S", "Lease", "LeaseReply"]

BEAT_INTERVAL_S = 1.0
"""Between two renewals of a runner. A lease is several times as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseReply:
    """The consequence of a message: `keep` is a line to be made durable first, `answer` is sent then."""

    keep: str = ""
    answer: dict[str, Any] | None = None


class Lease:
    """One runner's lease. Invariant: `lapsed` never becomes false again."""

    def __init__(self, *, length_s: float, now: float) -> None:
        """It runs from `now`, although the runner has sent nothing yet."""
        self._length_s = length_s
        self._renewed = now
        self._lapsed = False

    def lapsed(self, now: float) -> bool:
        """Whether the runner has been silent for the whole length, or has handed over."""
        self._lapsed = self._lapsed or now - self._renewed >= self._length_s
        return self._lapsed

    def left_s(self, now: float) -> float:
        """How long the runner may still be silent; at least zero."""
        return 0.0 if self.lapsed(now) else max(0.0, self._length_s - (now - self._renewed))

    def take(self, raw: bytes, *, now: float) -> LeaseReply:
        """One line of the runner: `{"keep": LINE, "number": N}`, `{"hand_over": true}`, or `{}`, which only renews."""
        if self.lapsed(now):
            return LeaseReply(answer={"lapsed": True})
        try:
            message = json.loads(raw)
        except (ValueError, RecursionError):
            return LeaseReply(answer={"error": "not JSON"})
        if not isinstance(message, dict):
            return LeaseReply(answer={"error": "not an object"})
        self._renewed = now
        if isinstance(message.get("keep"), str):
            return LeaseReply(keep=message["keep"], answer={"kept": message.get("number")})
        if message.get("hand_over"):
            self._lapsed = True
            return LeaseReply(answer={"handed_over": True})
        return LeaseReply()
