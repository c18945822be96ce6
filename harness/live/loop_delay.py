"""The watch over the service's own event loop: how late it ran, and how long it waited for a processor.

It decides nothing and has no timer of its own: the service reports when the loop was due and when it ran. A node that
was frozen or stopped is late as well, so lateness alone proves no overload; the kernel's count of the time that the
thread was ready and did not run does. One line a second at most.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["LATE_US", "Lateness", "LoopWatch", "SchedulerFile"]

WINDOW_US = 1_000_000
LATE_US = 500_000
"""Less is not reported: a beat of the leases by default. The runner's stall watch uses the same limit."""
SCHEDULER_FILE = "/proc/self/schedstat"
LOAD_FILE = "/proc/loadavg"
FILE_BYTES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """The delays of the loop in the last `window_us` microseconds.

    `waited_us` is the time that the loop's thread was ready to run and did not, `load` the load average of the node's
    host; each is None where the kernel does not say.
    """

    window_us: int
    late_us: int
    waited_us: int | None
    load: float | None

    def __str__(self) -> str:
        waited = "an unknown part" if self.waited_us is None else f"{self.waited_us / 1e6:.1f} s"
        load = "" if self.load is None else f", load average {self.load:.1f}"
        late, window = self.late_us / 1e6, self.window_us / 1e6
        return f"the loop ran {late:.1f} s late; of {window:.1f} s it waited {waited} for a processor{load}"


class SchedulerFile:
    """The kernel's counts for the process's first thread, which is the loop's. The file stays open: it is read once a
    second.
    """

    def __init__(self, path: str = SCHEDULER_FILE, load_path: str = LOAD_FILE) -> None:
        self._load_path = load_path
        try:
            self._file: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = None

    def waited_us(self) -> int | None:
        """How long the thread was ready and did not run, since it began; None when the kernel does not count."""
        if self._file is None:
            return None
        try:
            return int(os.pread(self._file, FILE_BYTES, 0).split()[1]) // 1000
        except (OSError, ValueError, IndexError):
            return None

    def load(self) -> float | None:
        """The host's load average over the last minute."""
        try:
            with open(self._load_path, "rb", buffering=0) as file:
                return float(file.read(FILE_BYTES).split()[0])
        except (OSError, ValueError, IndexError):
            return None


class LoopWatch:
    """Windows of a second or longer. Invariant: a window is reported when the loop was late or waited half a second."""

    def __init__(self, *, report: Callable[[Lateness], None], scheduler: SchedulerFile | None = None) -> None:
        """`report` gets each window that is worth a line."""
        self._report = report
        self._scheduler = scheduler if scheduler is not None else SchedulerFile()
        self._began_us: int | None = None
        self._waited_us: int | None = None
        self._latest_us = 0

    def ran(self, now_us: int, due_us: int | None) -> None:
        """The loop runs now; `due_us` is when its timer was to wake it, None without one."""
        if due_us is not None and now_us - due_us > self._latest_us:
            self._latest_us = now_us - due_us
        if self._began_us is None:
            self._begin(now_us, self._scheduler.waited_us())
        elif now_us - self._began_us >= WINDOW_US:
            self._end(now_us, self._began_us)

    def _end(self, now_us: int, began_us: int) -> None:
        total, before = self._scheduler.waited_us(), self._waited_us
        waited_us = None if total is None or before is None else total - before
        if max(self._latest_us, waited_us or 0) >= LATE_US:
            self._report(
                Lateness(
                    window_us=now_us - began_us,
                    late_us=self._latest_us,
                    waited_us=waited_us,
                    load=self._scheduler.load(),
                )
            )
        self._begin(now_us, total)

    def _begin(self, now_us: int, waited_us: int | None) -> None:
        self._began_us, self._waited_us, self._latest_us = now_us, waited_us, 0
