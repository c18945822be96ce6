"""A thread that reads a stream of the engine until the stream is closed.

A signal that strikes the main thread while another one is being started leaves Python's own locks as they happen to
be: the process may then never end. So signals wait until the thread is there.
"""

import signal
import threading
from collections.abc import Callable

from chaos.arena.interrupt import STOP_SIGNALS

__all__ = ["ReaderThread"]

END_LIMIT_S = 2.0


class ReaderThread:
    """Begun once. It ends with the process, too."""

    def __init__(self, read: Callable[[], None], *, name: str) -> None:
        self._thread = threading.Thread(target=read, name=name, daemon=True)

    def begin(self) -> None:
        """Start it. What signals do to this thread they do afterwards, and never to that one."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end(self) -> None:
        """Wait a little for its end. It may never have begun."""
        if self._thread.is_alive():
            self._thread.join(timeout=END_LIMIT_S)
