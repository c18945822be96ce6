"""What the commands print: lines of progress, tables, JSON. Colours only on a terminal (and not with NO_COLOR).

Results go to standard output, progress to standard error, so that `--json` can be piped while a person still sees
what is going on.
"""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from chaos.output.printing import aside, console, echo_json, markup
from chaos.output.sanitized_text import shown

__all__ = ["Progress", "coloured", "print_json", "print_table", "table"]

_COLOURS = {
    "ok": "green",
    "on": "green",
    "Up": "green",
    "Online": "green",
    "running": "green",
    "available": "green",
    "warn": "yellow",
    "Unknown": "yellow",
    "Joining": "yellow",
    "Paused": "yellow",
    "Pending": "yellow",
    "PartialOnline": "yellow",
    "OnlinePending": "yellow",
    "OfflinePending": "yellow",
    "Initializing": "yellow",
    "paused": "yellow",
    "restarting": "yellow",
    "fail": "red",
    "off": "red",
    "held off": "red",
    "missing": "red",
    "Down": "red",
    "Failed": "red",
    "not available": "red",
    "exited": "red",
}


_WIDTH_OF_A_FILE = 10_000
"""Off a terminal rich would wrap at 80 columns; a table in a file or a pipe is read line by line."""


class Progress:
    """Says what is being done, with the seconds since the command began."""

    def __init__(self) -> None:
        self._console = console(err=True, soft_wrap=True)
        self._began = time.monotonic()

    @aside
    def __call__(self, text: str) -> None:
        """One line."""
        elapsed_s = time.monotonic() - self._began
        self._console.print(f"[dim]{elapsed_s:6.1f} s[/]  {markup(text)}")


def coloured(word: str) -> str:
    """A state's word as markup, in the colour that it always has."""
    colour = _COLOURS.get(word)
    return f"[{colour}]{markup(word)}[/]" if colour else markup(word)


def table(*headings: str) -> Table:
    """An empty table, to be filled with `add_row` and printed with `print_table`."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(heading, overflow="fold")
    return made


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Rows of markup; `empty` when there are none. One line each, never wrapped for a file or a pipe."""
    made = table(*headings)
    for row in rows:
        made.add_row(*(shown(cell).replace("\n", " ") for cell in row))
    screen = console()
    if not screen.is_terminal:
        screen = console(width=_WIDTH_OF_A_FILE)
    if made.row_count:
        screen.print(made)
    else:
        screen.print(markup(empty))


def print_json(value: Any) -> None:
    """A record or a list of records, for scripts."""
    echo_json(_plain(value), indent=2)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: _plain(entry) for key, entry in dataclasses.asdict(value).items()}
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
