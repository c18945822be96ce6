"""The only place that writes to the process's standard output and standard error.

Printing is a side effect that may fail: a full disk, a reader that has gone, a character that the terminal lacks, a
closed stream. It decides nothing: the first failure is kept in `Stream.problem`, further text is discarded, and the
command goes on to its clean-up and its exit code. Text from guests, files and the engine is shown, never sent: control
characters are replaced before they reach a terminal (`chaos.output.sanitized_text`).
"""

import contextlib
import functools
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from chaos.output.sanitized_text import shown

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Stream",
    "aside",
    "console",
    "echo",
    "echo_json",
    "echo_traceback",
    "echo_verbatim",
    "guarded",
    "markup",
    "reader_gone",
    "standard_streams",
    "urgent",
]

_STANDARD_DESCRIPTORS = (0, 1, 2)

P = ParamSpec("P")
S = TypeVar("S")


class Stream(io.TextIOBase):
    """A text stream that keeps its failures to itself. Invariant: `write` and `flush` never raise for text.

    `problem` is the first failure as text. `gone` says that the reader closed its end, which is no failure: it asked
    for no more.
    """

    def __init__(self, target: IO[str] | None) -> None:
        """`target` is None for a stream that was closed before the process started: its text is discarded."""
        self._target = target
        self.problem = ""
        self.gone = False

    def write(self, text: str, /) -> int:
        """Writes `text`; characters that the target's encoding lacks are written as `\\u` escapes."""
        if not isinstance(text, str):
            raise TypeError(f"a text stream takes str, not {type(text).__name__}")
        self._attempt(lambda target: self._put(target, text))
        return len(text)

    def flush(self) -> None:
        """Hands everything to the operating system."""
        self._attempt(lambda target: target.flush())

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether the target is a terminal."""
        try:
            return self._target is not None and self._target.isatty()
        except ValueError:
            return False  # it is closed

    def fileno(self) -> int:
        """The target's descriptor. Raises OSError when it has none."""
        if self._target is None:
            raise OSError("the stream is closed")
        return self._target.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The target's encoding."""
        return getattr(self._target, "encoding", None) or "utf-8"

    def _put(self, target: IO[str], text: str) -> None:
        try:
            target.write(text)
        except UnicodeEncodeError:
            target.write(text.encode(self.encoding, errors="backslashreplace").decode(self.encoding))

    def _attempt(self, call: Callable[[IO[str]], object]) -> None:
        if self._target is None:
            return
        try:
            call(self._target)
        except BrokenPipeError:
            self.gone = True
            self._discard()
        except (OSError, ValueError) as error:  # ValueError: the target was closed
            self.problem = getattr(error, "strerror", None) or str(error)
            self._discard()

    def _discard(self) -> None:
        """Nothing more is written. The descriptor leads nowhere, so that Python's last flush cannot fail either."""
        target, self._target = self._target, None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if target is not None and target.fileno() in _STANDARD_DESCRIPTORS:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, target.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def standard_streams() -> Iterator[tuple[Stream, Stream]]:
    """Guard `sys.stdout` and `sys.stderr` for the length of a command, other libraries' output included."""
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    out, err = Stream(before[0]), Stream(before[1])
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def guarded(*, err: bool = False) -> Stream:
    """Standard output (or standard error) of this moment as a `Stream`."""
    target = sys.stderr if err else sys.stdout
    return target if isinstance(target, Stream) else Stream(target)


def reader_gone() -> bool:
    """Whether standard output takes no more text, so that a command that prints without end can end."""
    stream = guarded()
    return stream.gone or bool(stream.problem)


def echo(text: object = "", *, err: bool = False) -> None:
    """One line, or several separated by line breaks, safe to show."""
    _write(f"{shown(text)}\n", err=err)


def echo_verbatim(text: str) -> None:
    """A document for another program: unchanged, without a further line break."""
    _write(text, err=False)


def echo_json(value: Any, *, indent: int | None = None) -> None:
    """JSON in ASCII: every control character is an escape, so that it is valid and safe to show."""
    _write(json.dumps(value, indent=indent).replace("\x7f", "\\u007f") + "\n", err=False)


def echo_traceback() -> None:
    """The exception that is being handled, on standard error."""
    echo(traceback.format_exc().rstrip("\n"), err=True)


def urgent(text: str) -> None:
    """One line on standard error from inside a signal handler, past Python's buffers, which may be in use."""
    with contextlib.suppress(OSError):
        os.write(2, f"{shown(text)}\n".encode())


def console(*, err: bool = False, **settings: Any) -> "Console":
    """A console on a guarded stream: colours on a terminal only, nothing highlighted, no emoji codes."""
    from rich.console import Console

    return Console(file=cast(IO[str], guarded(err=err)), highlight=False, emoji=False, **settings)


def markup(text: object) -> str:
    """Foreign text as markup that shows it: no control characters, no tags."""
    from rich.markup import escape

    return escape(shown(text))


def aside(method: "Callable[Concatenate[S, P], None]") -> "Callable[Concatenate[S, P], None]":
    """Decorate a method that only prints: an error in it is reported on standard error and never raised."""

    @functools.wraps(method)
    def never_raises(self: S, /, *arguments: P.args, **named: P.kwargs) -> None:
        try:
            method(self, *arguments, **named)
        except Exception as error:  # noqa: BLE001 - a defect of a renderer must not leave faults in a rig
            echo(f"cannot print {method.__name__}: {type(error).__name__}: {error}", err=True)

    return never_raises


def _write(text: str, *, err: bool) -> None:
    stream = guarded(err=err)
    stream.write(text)
    stream.flush()


def _open_closed_descriptors() -> None:
    """A closed standard descriptor would be given to the next file that is opened, and printed text would go there."""
    for descriptor in _STANDARD_DESCRIPTORS:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
