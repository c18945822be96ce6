"""Files that a user names, as text: regular files only, of a bounded size, in UTF-8.

The one way in which experiments, topologies, schedules and journals are read. A pipe, a device or a directory is
refused before a byte of it is read, because each of them can keep a reader for ever. It does not judge the text.
"""

import os
import stat
from pathlib import Path

from harness.errors import UsageError

__all__ = ["read_text_file"]

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_PIECE_BYTES = 1 << 20


def read_text_file(path: Path, *, max_bytes: int, expected: str) -> str:
    """The text of a regular file of at most `max_bytes`. Raises UsageError, with the line where there is one, for any
    other; `expected` names the wanted content, such as "an experiment".
    """
    data = _read(path, max_bytes, expected)
    if len(data) > max_bytes:
        line = data.count(b"\n", 0, max_bytes) + 1
        raise UsageError(f"{_shown(path)}:{line}: more than {max_bytes:,} bytes down to this line, expected {expected}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{data[error.start]:02x} is not UTF-8"
        raise UsageError(f"{_shown(path)}:{line}: {found}, expected {expected} as UTF-8 text") from error


def _read(path: Path, max_bytes: int, expected: str) -> bytes:
    """The bytes of the file, at most one more than `max_bytes`."""
    try:
        # Without O_NONBLOCK, to open a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error, expected) from error
    except ValueError as error:
        raise UsageError(f"the file name {str(path)!r} is refused: {error}, expected {expected}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no regular file")
            raise UsageError(f"{_shown(path)}: {kind}, expected a regular file with {expected}")
        pieces: list[bytes] = []
        left = max_bytes + 1
        while left > 0 and (piece := os.read(descriptor, min(left, _PIECE_BYTES))):
            pieces.append(piece)
            left -= len(piece)
    except OSError as error:
        raise _unreadable(path, error, expected) from error
    finally:
        os.close(descriptor)
    return b"".join(pieces)


def _shown(path: Path) -> str:
    """The name as messages have it: a newline in it must not begin another message."""
    return str(path) if str(path).isprintable() else repr(str(path))


def _unreadable(path: Path, error: OSError, expected: str) -> UsageError:
    return UsageError(f"{_shown(path)}: cannot be read: {error.strerror}, expected {expected}")
