"""A further copy of a run's journal, where `--journal` asks for one."""

import shutil
from pathlib import Path

from harness.errors import HarnessError, UsageError

__all__ = ["copy_journal", "prepare_journal_copy"]


def prepare_journal_copy(place: Path) -> None:
    """Remove an earlier run's copy. Raises UsageError, before anything starts, where no copy can be written."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.touch()
        place.unlink()
    except OSError as error:
        raise UsageError(f"cannot write the journal {place}: {error.strerror}; name another place") from error


def copy_journal(journal: Path, place: Path) -> None:
    """Raises HarnessError, naming the run's own journal, when the copy cannot be written."""
    try:
        shutil.copyfile(journal, place)
    except OSError as error:
        raise HarnessError(
            f"cannot write the journal {place}: {error.strerror or error}; the run's own journal is {journal}"
        ) from error
