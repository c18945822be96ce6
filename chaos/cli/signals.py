"""Signals that ask a command to end, and the sections that they must not cut in two.

Outside a section a signal ends the command at once, as Ctrl-C does. Inside one it is only noted: the section checks for
it where it may give up, and no second signal cuts its clean-up short. Each call in a section has a limit of its own.
The state is the process's, because signals are.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from chaos.arena.interrupt import STOP_SIGNALS
from chaos.output.printing import urgent

__all__ = ["ProtectedSection", "Signalled", "exit_code_of", "held", "install", "reports_written"]

CODE_BASE = 128
"""A shell's exit code for a program that signal n has ended is 128 + n."""


class Signalled(KeyboardInterrupt):
    """A signal has asked the command to end. A KeyboardInterrupt, so that no `except Exception` takes it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class ProtectedSection:
    """A part of a command that no signal cuts in two. Invariant: `number` is the first signal that came, or None."""

    def __init__(self, announcement: str) -> None:
        """`announcement` is the effect of the first signal, as a sentence without a full stop."""
        self._announcement = announcement
        self._complete = False
        self._told_again = False
        self.number: int | None = None

    def check(self) -> None:
        """Raises Signalled once a signal has come."""
        if self.number is not None and not self._complete:
            raise Signalled(self.number)

    def complete(self) -> None:
        """From here on a signal changes nothing: the work of the section is done."""
        self._complete = True

    def note(self, number: int) -> None:
        """Keep a signal. Called by the handler."""
        name = signal.Signals(number).name
        if self.number is None:
            self.number = number
            urgent(f"blackstart: {name}: {self._announcement}")
        elif not self._told_again:
            self._told_again = True
            urgent(f"blackstart: {name}: the clean-up is under way and goes on to its end; each part has a limit")


_section: ProtectedSection | None = None


def install() -> None:
    """Take the `STOP_SIGNALS`, but for a SIGHUP that is ignored (`nohup`): that stays ignored."""
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _take)


@contextlib.contextmanager
def held(announcement: str) -> Iterator[ProtectedSection]:
    """Hold signals off; one that came is raised at the end of the section, unless the section is complete.

    A section inside a section is the outer one.
    """
    global _section
    if _section is not None:
        yield _section
        return
    section = _section = ProtectedSection(announcement)
    try:
        yield section
    finally:
        _section = None
    section.check()


@contextlib.contextmanager
def reports_written() -> Iterator[None]:
    """A section that no signal ends: runs are over, their reports are written, and the exit code is theirs."""
    with held("the runs are over, and their reports are being written") as section:
        section.complete()
        yield


def exit_code_of(error: BaseException) -> int:
    """128 and the number of the signal that `error` came from; a plain KeyboardInterrupt is SIGINT."""
    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, Signalled):
            return CODE_BASE + cause.number
    return CODE_BASE + int(signal.SIGINT)


def _take(number: int, _frame: FrameType | None) -> None:
    if _section is None:
        raise Signalled(number)
    _section.note(number)
