"""Files that the user names for output: a plain file is replaced, and nothing else is ever touched.

A mistyped option must not cost a device, a directory, or the document that the same command reads.
"""

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UsageError

__all__ = ["check_named_file", "try_named_file", "write_named_file"]


def check_named_file(path: Path, *, inputs: Sequence[Path] = ()) -> None:
    """Raises UsageError unless `path`, which the user named for output, is free or a plain file that may be replaced:
    no device, no directory, no link, and none of the `inputs` of the same command.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # absent, or in a directory that the write itself will complain of
    if not stat.S_ISREG(mode):
        raise UsageError(f"cannot write {path}: it exists and is no plain file; name another place")
    for given in inputs:
        with contextlib.suppress(OSError):
            if path.samefile(given):
                raise UsageError(f"cannot write {path}: the command reads {given}; name another place")


def write_named_file(path: Path, text: str, *, inputs: Sequence[Path] = ()) -> None:
    """Writes a file that the user named, whole or not at all. Raises UsageError as `check_named_file`, OSError."""
    check_named_file(path, inputs=inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with unfinished.open("x", encoding="utf-8") as file:
            file.write(text)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def try_named_file(path: Path, *, inputs: Sequence[Path] = ()) -> None:
    """Makes the directory of a file that the user named, and removes an old file, which could be taken for the new one.

    Raises UsageError as `check_named_file`, OSError where no file can be written.
    """
    check_named_file(path, inputs=inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch()
    path.unlink()
