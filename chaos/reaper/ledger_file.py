"""The file in which a reaper keeps the ledger of its run: inside its container, where a repair finds it as well.

Each line is forced to the disk before it is acknowledged. A container that has ended keeps its files until it is
removed, so the ledger outlives runner and reaper.
"""

import json
import os
from pathlib import Path

from chaos.reaper.ledger import OpenFault, read_open
from chaos.reaper.sources import LEDGER_DIRECTORY
from harness.errors import HarnessError

__all__ = ["LEDGER", "LedgerFile"]

LEDGER = f"{LEDGER_DIRECTORY}/ledger.jsonl"


class LedgerFile:
    """An append-only file of lines. Invariant: a line that `keep` has taken is on the disk."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it. Raises HarnessError."""
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            _force(path.parent)
        except OSError as error:
            raise HarnessError(f"cannot open the ledger {path}: {error}") from error

    def keep(self, line: str) -> None:
        """Appends one line. Raises HarnessError when it is not certain that it is on the disk."""
        data = line.encode() + b"\n"
        try:
            if os.write(self._file, data) != len(data):
                raise OSError("the disk took a part of the line")
            os.fsync(self._file)
        except OSError as error:
            raise HarnessError(f"cannot write the ledger {self._path}: {error}") from error

    def open_faults(self) -> list[OpenFault]:
        """The faults that are not healed, newest first."""
        return read_open(self._path.read_text(encoding="utf-8", errors="replace"))

    def mark_runner_gone(self, *, at_ns: int) -> None:
        """Records that the lease has lapsed, for a repair that cannot see the runner's process. Raises HarnessError."""
        self.keep(json.dumps({"entry": "runner-gone", "at_ns": at_ns}))

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def _force(directory: Path) -> None:
    """A new file's name is on the disk only when its directory is."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
