"""A further copy of a run's journal, where `--journal` asks for one."""

from collections.abc import Sequence
from pathlib import Path

from chaos.output.named_file import try_named_file, write_named_file
from harness.errors import HarnessError, UsageError

__all__ = ["copy_journal", "prepare_journal_copy"]


def prepare_journal_copy(place: Path, *, inputs: Sequence[Path] = ()) -> None:
    """Remove an earlier run's copy. Raises UsageError, before anything starts, where no copy can be written: also for a
    place that is no plain file, or one of the `inputs` of the command.
    """
    try:
        try_named_file(place, inputs=inputs)
    except OSError as error:
        raise UsageError(f"cannot write the journal {place}: {error.strerror}; name another place") from error


def copy_journal(journal: Path, place: Path) -> None:
    """Raises HarnessError, naming the run's own journal, when the copy cannot be written."""
    try:
        write_named_file(place, journal.read_text(encoding="utf-8"))
    except OSError as error:
        raise HarnessError(
            f"cannot write the journal {place}: {error.strerror or error}; the run's own journal is {journal}"
        ) from error
