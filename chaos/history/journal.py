"""The journal of a run: lines appended as things happen, and one document made of them at the end.

`journal.jsonl` is flushed line by line, so that a run that is killed leaves its evidence; `journal.json` is a superset
of the Chaos Toolkit's journal and is written under another name first, so that it is either the old one or a whole new
one.
"""

import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaos.history.records import History, Record, to_plain
from harness.errors import HarnessError

__all__ = ["Journal", "about_this_host", "holds_lines"]

_FIRST_LINE = re.compile(r'\s*\{\s*"record"\s*:')


class Journal:
    """The two files of one run, in one directory.

    Invariant: what was written is in the file at once, unless `error` says so.
    """

    def __init__(self, directory: Path) -> None:
        """Makes the directory and empties the lines of an earlier run. Raises HarnessError when it cannot."""
        self.lines_path = directory / "journal.jsonl"
        self.path = directory / "journal.json"
        self.error = ""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            self._file = self.lines_path.open("wb", buffering=0)
        except OSError as error:
            raise HarnessError(f"the journal {self.lines_path} cannot be written: {error}") from error

    def follow(self, history: History) -> None:
        """Write every record that is appended to the history from now on."""
        history.listen(self._write_record)

    def write(self, kind: str, content: Mapping[str, Any]) -> None:
        """One line that is no record of the history."""
        self._append({"record": kind, **to_plain(content)})

    def assemble(self, document: Mapping[str, Any]) -> Path:
        """Write the document of the whole run. Raises HarnessError when it cannot."""
        unfinished = self.path.with_suffix(".json.new")
        try:
            with unfinished.open("w", encoding="utf-8") as file:
                file.write(_text(to_plain(document)))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.path)
        except OSError as error:
            raise HarnessError(f"the journal {self.path} cannot be written: {error}") from error
        return self.path

    def close(self) -> None:
        """No more lines."""
        self._file.close()

    def _write_record(self, record: Record) -> None:
        self._append(to_plain(record))

    def _append(self, line: Mapping[str, Any]) -> None:
        """A full disk must not end a run in the middle of a fault: the first error is kept, and told at the end."""
        try:
            self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        except OSError as error:
            self.error = self.error or f"the journal {self.lines_path} is incomplete: {error}"


def holds_lines(text: str) -> bool:
    """Whether it is a `journal.jsonl`, whole or torn, and neither a `journal.json` nor a file that a person writes."""
    return _FIRST_LINE.match(text) is not None


def _text(document: dict[str, Any]) -> str:
    """Indented for people; but the history, thousands of records, has one on each line."""
    history = document.pop("history", None)
    text = json.dumps(document, indent=2, allow_nan=False)
    if history is None:
        return f"{text}\n"
    records = ",\n    ".join(json.dumps(record, allow_nan=False) for record in history)
    before = text.removesuffix("}").rstrip() + ("," if document else "")
    return f'{before}\n  "history": [\n    {records}\n  ]\n}}\n'


def about_this_host() -> dict[str, str]:
    """What the Chaos Toolkit's journal says of the host that ran it."""
    return {"platform": platform.platform(), "node": platform.node()}
