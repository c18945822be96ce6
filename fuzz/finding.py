"""A finding: a surface did something with a document that it must never do."""

import traceback
from dataclasses import dataclass
from pathlib import Path, PurePath

__all__ = ["Finding", "TooSlow", "finding_of"]


_SOURCES = tuple(str(Path(__file__).parents[1] / package) for package in ("chaos", "harness"))


class TooSlow(BaseException):
    """A document took longer than any may. No surface catches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`kind` is the same for all documents that show the same fault: the shrinker keeps to it."""

    kind: str
    text: str


def finding_of(error: BaseException) -> Finding:
    """The finding that an escaped exception is: its class, and the last line of this project that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_SOURCES)]
    last = (ours or list(frames))[-1]
    where = "" if isinstance(error, TooSlow) else f" at {PurePath(last.filename).name}:{last.name}"
    text = "".join(traceback.format_exception(error))[-4000:]
    return Finding(kind=f"{type(error).__name__}{where}", text=text)
