"""The last deadline that a service of this node told PID 1, left for the service that comes after it.

A service that is started again must know whether PID 1 has ended the VMs meanwhile: if not, a VM that it
finds ended has failed. The note lies in memory (`/dev/shm` of the node's container), so that writing it never waits
for a disk and it is gone with the node; it names the session all the same.
"""

import contextlib
import os
from pathlib import Path

from harness.model.session import Session

__all__ = ["LeaseNote"]

NOTE = Path("/dev/shm/blackstart-lease")
SIZE = 256


class LeaseNote:
    """One line, `SESSION MICROSECONDS`, of fixed length. Whatever cannot be read or written is as if nothing was
    noted: a failure then does not count.
    """

    def __init__(self, path: Path = NOTE) -> None:
        self._path = path
        self._file: int | None = None

    def read(self, session: Session) -> int:
        """When the guests were to end, on the boot-time clock; 0 when nothing is noted of this session."""
        try:
            name, _, end_us = self._path.read_text().strip().rpartition(" ")
            return int(end_us) if name == str(session) else 0
        except (OSError, ValueError):
            return 0

    def write(self, session: Session, guests_end_us: int) -> None:
        """Note what PID 1 is being told."""
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.pwrite(self._file, f"{session} {guests_end_us}".ljust(SIZE).encode(), 0)
