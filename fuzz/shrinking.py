"""Shrinks a document that shows a finding: pieces are removed as long as the finding stays of its kind."""

from collections.abc import Callable

__all__ = ["shrunk"]

MAX_TRIALS = 1500
"""Of one finding: each costs as much as a document."""


def shrunk(document: bytes, shows: Callable[[bytes], bool]) -> bytes:
    """The smallest document found that still `shows` the finding: halves first, single bytes last."""
    trials = MAX_TRIALS
    size = max(1, len(document) // 2)
    while trials > 0:
        begin, smaller = 0, False
        while begin < len(document) and trials > 0:
            trial = document[:begin] + document[begin + size :]
            trials -= 1
            if shows(trial):
                document, smaller = trial, True
            else:
                begin += size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return document
