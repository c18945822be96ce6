"""The folder of `--out`: held by one command at a time, with a folder of its own below it for every run.

    out/node-power-cut-1/journal.json     what this run has written, as long as no user removes it
    out/node-power-cut-2/...
    out/journal.json, journal.jsonl, evidence     links to those of the latest run

Two files with one name therefore never share a folder, and no run replaces the files of an earlier one. The lock is the
kernel's: it ends with the process that holds it, however that ends.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePath

from harness.errors import HarnessError, UsageError

__all__ = ["LOCK_FILE", "OutputFolder", "held_output", "refuse_held"]

LOCK_FILE = ".in-use"
JOURNALS = ("journal.json", "journal.jsonl")
EVIDENCE = "evidence"
NAME_LENGTH = 60
"""Of the file's name in that of a run's folder: file systems take 255 bytes."""
ATTEMPTS = 100

_ODD = re.compile(r"[^A-Za-z0-9._]+")


class OutputFolder:
    """The folder of `--out`, which this process holds by `held_output`."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def new_run(self, file: str) -> Path:
        """Makes the folder of a run of the experiment in `file`, and leads the links to it. Raises HarnessError."""
        name = _ODD.sub("-", PurePath(file).stem).strip("-.")[:NAME_LENGTH] or "run"
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            folder = self._make(name)
        except OSError as error:
            reason = error.strerror or str(error)
            raise HarnessError(f"cannot make a folder for {file} in {self._place}: {reason}") from error
        for journal in JOURNALS:
            self._link(journal, folder)
        with contextlib.suppress(OSError):
            if (self._place / EVIDENCE).is_symlink():
                os.unlink(self._place / EVIDENCE)
        return folder

    def run_ended(self, folder: Path) -> None:
        """Leads the link of the evidence to the run's, if it has any."""
        if (folder / EVIDENCE).is_dir():
            self._link(EVIDENCE, folder)

    def _make(self, name: str) -> Path:
        numbers = re.compile(re.escape(name) + r"-(\d{1,9})")
        found = [match for entry in os.listdir(self._place) if (match := numbers.fullmatch(entry))]
        last = max((int(match[1]) for match in found), default=0)
        for number in range(last + 1, last + 1 + ATTEMPTS):
            with contextlib.suppress(FileExistsError):
                folder = self._place / f"{name}-{number}"
                folder.mkdir()
                return folder
        raise OSError(f"{ATTEMPTS} names after {name}-{last} are taken")

    def _link(self, name: str, folder: Path) -> None:
        """A convenience: where it cannot be made, the run goes on without it."""
        link = self._place / name
        if not (link.is_symlink() or not link.exists() or _is_journal(link)):
            return  # a user's own file
        unfinished = self._place / f".{name}.new"
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
            unfinished.symlink_to(Path(folder.name) / name)
            unfinished.replace(link)


def refuse_held(place: Path) -> None:
    """Raises UsageError when another process holds the folder. Makes nothing."""
    if (place / LOCK_FILE).exists():
        with held_output(place):
            pass


@contextlib.contextmanager
def held_output(place: Path) -> Iterator[None]:
    """Holds the folder for this process; makes it when it is missing, and removes it again when nothing came into it.

    Raises UsageError when it cannot be used, or when another process holds it: that one's number and start time.
    """
    made = not place.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(place / LOCK_FILE, flags, 0o644)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot write to {place}: {reason}; name another place with --out") from error
    try:
        _take(lock, place)
        yield
        if made:
            _remove_unused(place)
    finally:
        os.close(lock)


def _remove_unused(place: Path) -> None:
    """Removes the folder when nothing but the lock, which this process holds, is in it."""
    with contextlib.suppress(OSError):
        if os.listdir(place) == [LOCK_FILE]:
            os.unlink(place / LOCK_FILE)
            os.rmdir(place)


def _take(lock: int, place: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink == 0:
            raise UsageError(f"cannot write to {place}: another process has just removed it; try again")
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)  # its time of change is when this process began to write here
    except BlockingIOError:
        raise UsageError(
            f"cannot write to {place}: {_holder(lock)} writes there; wait for its end, or name another place with --out"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot lock {place}: {error.strerror or error}; name another place with --out") from error


def _holder(lock: int) -> str:
    try:
        process = int(os.pread(lock, 20, 0))
        since = datetime.fromtimestamp(os.fstat(lock).st_mtime, UTC)
        return f"process {process}, since {since.isoformat(sep=' ', timespec='seconds')},"
    except (OSError, ValueError):
        return "another process"


def _is_journal(path: Path) -> bool:
    """Whether the file is a journal, as earlier versions kept it here."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return head.startswith(b'{"record":') or b'"chaoslib-version"' in head
