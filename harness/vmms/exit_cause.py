"""How a run of a VM ended, judged from the engine's events: pure, no waiting.

Exit code 137 alone cannot tell a crash from an administrator, so the `kill` events before the `die` decide, and for
TERM the `stop` event after it: `docker stop` gives one, `docker kill -s TERM` does not (docker-trials, section 4).
VMs are created with TERM as their stop signal, therefore no other signal can be the beginning of a stop. In doubt
it was a failure, not a wish.
"""

from dataclasses import dataclass, field

from harness.model.vm import Ending

__all__ = ["SIGKILL", "SIGTERM", "RunEvidence"]

SIGKILL, SIGTERM = 9, 15


@dataclass(slots=True, kw_only=True)
class RunEvidence:
    """What was seen of one run. `asked` is set by VMMS before it ends the run itself; `lost_events` when the
    stream had a gap during the run.
    """

    signals: list[int] = field(default_factory=list)
    out_of_memory: bool = False
    stop_seen: bool = False
    asked: bool = False
    lost_events: bool = False

    def ending(self, exit_code: int | None) -> tuple[Ending, str] | None:
        """How the run ended, and why so, at the moment of its `die`; None when it may have been a wish, which takes a
        second look.
        """
        if self.asked:
            return Ending.ASKED, "ended by this node's own order"
        if SIGTERM in self.signals:
            return None
        if self.signals:
            return Ending.KILLED, f"signal {self.signals[-1]} through the engine"
        if exit_code == 0 and self.lost_events:
            return Ending.UNKNOWN, "exit code 0, but a signal may have been missed"
        if exit_code == 0:
            return None
        detail = ", out of memory" if self.out_of_memory else ""
        return Ending.CRASHED, f"exit code {exit_code}, no signal through the engine{detail}"
