"""Threads that read the engine's streams, and signals at bad moments."""

import signal
import threading

import pytest

from chaos.arena.reader_thread import ReaderThread


def test_a_signal_that_comes_while_it_begins_strikes_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    start, closed, begun = threading.Thread.start, threading.Event(), []

    def start_and_be_interrupted(thread: threading.Thread) -> None:
        signal.raise_signal(signal.SIGINT)
        start(thread)
        begun.append(thread)

    monkeypatch.setattr(threading.Thread, "start", start_and_be_interrupted)
    reading = ReaderThread(closed.wait, name="reader")

    with pytest.raises(KeyboardInterrupt):
        reading.begin()

    assert len(begun) == 1
    closed.set()
    reading.end()
    assert not begun[0].is_alive()


def test_signals_are_no_business_of_the_thread() -> None:
    blocked: set[int] = set()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    reading = ReaderThread(lambda: blocked.update(signal.pthread_sigmask(signal.SIG_BLOCK, ())), name="reader")

    reading.begin()
    reading.end()

    assert blocked >= {signal.SIGINT, signal.SIGTERM}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_what_never_began_has_ended() -> None:
    ReaderThread(threading.Event().wait, name="reader").end()
