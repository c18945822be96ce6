"""The ledger: every fault on disk before it is injected, with how to undo it and until when.

A run that is killed leaves its ledger behind, and whoever repairs (`read_open`) knows from it alone what is still
broken and how to heal it. It is a record, not the doer: the runner injects and heals, and says so here. Append-only
JSON lines, each forced to the disk before `write` returns.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

__all__ = ["Ledger", "OpenFault", "read_open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFault:
    """A fault that was meant to be injected and is not known to be healed.

    `undo` is the fault that heals it, empty if it heals by itself.

    `deadline_ns` is Unix time: from then on nobody is coming back for it, and a reaper may undo it.
    """

    number: int
    rig: str
    fault: str
    target: str
    undo: str
    deadline_ns: int


class Ledger:
    """One run's ledger.

    Invariant: an entry is on the disk before the fault is in the world, and open until its healing was seen.
    """

    def __init__(self, path: Path, *, rig: str) -> None:
        """Makes the file, and its directory.

        Raises HarnessError when it cannot be written: then no fault may be injected.
        """
        self.path = path
        self._rig = rig
        self._open: dict[int, OpenFault] = {}
        self._number = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            _force_directory(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error

    def intend(self, *, fault: str, target: str, undo: str, at_ns: int, deadline_ns: int) -> OpenFault:
        """Write that a fault is about to be injected."""
        self._number += 1
        entry = OpenFault(
            number=self._number,
            rig=self._rig,
            fault=fault,
            target=target,
            undo=undo,
            deadline_ns=deadline_ns,
        )
        self._write({"entry": "intended", "at_ns": at_ns, **asdict(entry)})
        self._open[entry.number] = entry
        return entry

    def note(self, entry: OpenFault, *, at_ns: int, what: str, seen: str = "") -> None:
        """Write what became of a fault; changes nothing about whether it is open."""
        self._write({"entry": what, "at_ns": at_ns, "number": entry.number, "seen": seen})

    def heal(self, entry: OpenFault, *, at_ns: int, how: str) -> None:
        """Write that a fault is healed, or that it needs no healing."""
        self._write({"entry": "healed", "at_ns": at_ns, "number": entry.number, "seen": how})
        self._open.pop(entry.number, None)

    def open_faults(self) -> list[OpenFault]:
        """What is to be undone, newest first."""
        return sorted(self._open.values(), key=lambda entry: -entry.number)

    def close(self, *, rig_gone: bool) -> None:
        """Close the file. It is removed when nothing is open in it, or when the rig that it speaks of is gone."""
        os.close(self._file)
        if rig_gone or not self._open:
            self.path.unlink(missing_ok=True)

    def _write(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        try:
            written = os.write(self._file, data)
            if written != len(data):
                raise OSError(f"{written} of {len(data)} bytes were taken")
            os.fsync(self._file)
        except OSError as error:
            raise _unwritable(self.path, error) from error


def read_open(path: Path) -> list[OpenFault]:
    """The faults that a ledger left open, newest first. A torn last line is an entry whose fault was never injected."""
    found: dict[int, OpenFault] = {}
    for raw in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if line.get("entry") == "intended":
            fields = {key: value for key, value in line.items() if key not in ("entry", "at_ns")}
            found[line["number"]] = OpenFault(**fields)
        elif line.get("entry") == "healed":
            found.pop(line["number"], None)
    return sorted(found.values(), key=lambda entry: -entry.number)


def _force_directory(directory: Path) -> None:
    """A new file's name is on the disk only when its directory is."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> HarnessError:
    return HarnessError(f"the ledger {path} cannot be written: {error}; without it no fault is injected. Free its disk")
