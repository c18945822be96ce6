"""The refusals of one document: each with file, line and the expected form, in the order of the file.

A document can be wrong in a hundred thousand places. The first twenty are shown and the others counted, and the work
for a refusal that is not shown is a few microseconds: its expected form is computed only when it is printed. Each
refusal is one line of printable characters: no document can forge a line of output or send control characters to a
terminal.
"""

import difflib
import itertools
import reprlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UsageError

__all__ = ["MAX_SHOWN", "Nearest", "Refusals", "listed", "nearest", "shown", "visible"]

MAX_SHOWN = 20
"""Refusals that are printed for one document: as many as fit on a screen."""

MAX_PART_CHARACTERS = 600
"""In the finding and in the expected form, each: the longest form of this project has 280 characters."""

MAX_NAMES = 20
"""Names that an expected form lists: a rig can have thousands of VMs."""

MAX_COMPARED_CHARACTERS = 64
"""A longer word is compared with no known name: none is as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The expected form in place of the unknown `word`; computed by `str`, because most refusals are never shown."""

    word: str
    known: Iterable[str]
    but: str = ""

    def __str__(self) -> str:
        names = sorted({name for name in self.known if name and name != self.but})
        if len(self.word) <= MAX_COMPARED_CHARACTERS:
            close = difflib.get_close_matches(self.word, names, n=1, cutoff=0.6)
            if close:
                return f"{close[0]} (did you mean that?)"
        return f"one of {listed(names)}" if names else "nothing here"


def nearest(word: object, known: Collection[str], *, but: str = "") -> Nearest:
    """The nearest name of `known` if one is near, else all of them; `but` is never among them. `known` must not change
    before the refusals are raised.
    """
    return Nearest(word=str(word) if isinstance(word, str | int | float) else "", known=known, but=but)


def listed(names: Collection[str]) -> str:
    """The first of `names`, and how many more there are."""
    first = ", ".join(itertools.islice(names, MAX_NAMES))
    return f"{first} ({len(names) - MAX_NAMES:,} more)" if len(names) > MAX_NAMES else first


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 60, 60
        self.maxlist = self.maxdict = self.maxtuple = self.maxset = 10

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """In the order of the document; the inherited form is sorted."""
        if level <= 0 and x:
            return "{...}"
        entries = itertools.islice(x.items(), self.maxdict)
        pieces = [f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}" for key, value in entries]
        return f"{{{', '.join([*pieces, *(['...'] if len(x) > self.maxdict else [])])}}}"

    def repr_int(self, x: int, level: int) -> str:
        """A number of thousands of digits has no decimal form in Python."""
        return super().repr_int(x, level) if x.bit_length() < 200 else f"a number of {x.bit_length()} bits"


_SHORT = _Short()


def shown(value: object) -> str:
    """`value` as a document has it, cut to a length that fits a line."""
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    text = repr(value[:60]) if isinstance(value, str) else _SHORT.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def visible(text: str) -> str:
    """`text` with an escape for each character that is not printable, as Python writes it: newlines, control
    characters, halves of surrogate pairs, marks that turn the direction of a line.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)


@dataclass(slots=True)
class Refusals:
    """The refusals of the document called `name`. Invariant: nothing is usable that was read from a document with a
    refusal.
    """

    name: str
    _found: dict[tuple[int, str], object] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, line: int, what: str, expected: object = "") -> None:
        """Note the refusal `what` on `line`; the same twice counts once."""
        self._found.setdefault((line, what), expected)

    def lines(self) -> list[str]:
        """The first of the refusals in the order of the file, a line each, and one that counts the others."""
        ordered = sorted(self._found.items(), key=lambda entry: entry[0][0])
        lines = [self._line(line, what, str(expected)) for (line, what), expected in ordered[:MAX_SHOWN]]
        if len(ordered) > MAX_SHOWN:
            (line, _), _ = ordered[MAX_SHOWN]
            what = f"{len(ordered) - MAX_SHOWN:,} further refusals from this line on"
            lines.append(self._line(line, what, "a file without those above"))
        return lines

    def raise_any(self) -> None:
        """Raise one UsageError with `lines`, unless nothing was refused."""
        if self._found:
            raise UsageError("\n".join(self.lines()))

    def _line(self, line: int, what: str, expected: str) -> str:
        text = f"{self.name}:{line}: {_cut(what)}"
        return visible(f"{text}, expected {_cut(expected)}" if expected else text)


def _cut(text: str) -> str:
    if len(text) <= MAX_PART_CHARACTERS:
        return text
    return f"{text[:MAX_PART_CHARACTERS]}... ({len(text) - MAX_PART_CHARACTERS:,} more characters)"
