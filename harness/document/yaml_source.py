"""A YAML (or JSON) document as plain data that still knows its line numbers.

Topology files, experiment files and schedules are read through here, so that every refusal can name file, line and the
expected form. It is not a schema: the readers of a document define its keys. Which values are plain is decided by
`plain_values`. YAML 1.1's base-sixty numbers (`12:30`) and dates stay text: two readers of one file must not disagree
about a value. Reading is linear in the size of the document, and each measure of a document has a limit.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, repeat
from pathlib import Path as FilePath
from typing import Any

import yaml

from harness.document.plain_values import FLOAT, INT, MAX_CHARACTERS, MAX_DEPTH, MAX_VALUES, check_plain
from harness.document.refusals import Refusals, nearest, shown
from harness.document.text_file import read_text_file
from harness.errors import UsageError

__all__ = ["MAX_CHARACTERS", "Path", "Refusals", "Source", "load", "load_file", "nearest", "shown"]

Path = tuple[str | int, ...]

_Children = dict[str | int, tuple[int, yaml.Node]]

_NOT_RESOLVED = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("timestamp", "value", "int", "float"))
"""Implicit tags of YAML 1.1 that plain text does not get here; numbers get those of `plain_values`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One document. `name` is what messages call the file; `data` is None for an empty document. One that was made here
    and read from no file has line 1 only.
    """

    name: str
    data: Any
    _root: yaml.Node | None = field(default=None, repr=False)
    _children: dict[int, _Children] = field(default_factory=dict, repr=False, compare=False)
    """The lines and nodes below a mapping, by the node's id: filled when a line below it is first asked for."""

    def line_of(self, path: Path) -> int:
        """The line, from 1, of the key or list item at `path`, or of the last part of it that exists."""
        node = self._root
        line = 1 if node is None else node.start_mark.line + 1
        for step in path:
            found = self._child(node, step)
            if found is None:
                return line
            line, node = found
        return line

    def at(self, path: Path) -> str:
        """`FILE:LINE` of the value at `path`."""
        return f"{self.name}:{self.line_of(path)}"

    def error(self, path: Path, what: str, expected: str = "") -> UsageError:
        """The refusal of the value at `path`, alone: `FILE:LINE: what, expected form`."""
        refusals = Refusals(self.name)
        refusals.add(self.line_of(path), what, expected)
        return UsageError("\n".join(refusals.lines()))

    def _child(self, node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and 0 <= step < len(node.value):
            item = node.value[step]
            return item.start_mark.line + 1, item
        if not isinstance(node, yaml.MappingNode):
            return None
        if id(node) not in self._children:
            # Merged entries were put in front of the mapping's own, and the last one wins, as in the data.
            self._children[id(node)] = {
                key.value: (key.start_mark.line + 1, value)
                for key, value in node.value
                if isinstance(key, yaml.ScalarNode)
            }
        return self._children[id(node)].get(step)


def load_file(path: FilePath, *, expected: str, max_bytes: int = MAX_CHARACTERS) -> Source:
    """The document in a file; `expected` names it, such as "an experiment". Raises UsageError as `load` does, and for
    anything but a regular file in UTF-8 of at most `max_bytes`.
    """
    return load(read_text_file(path, max_bytes=max_bytes, expected=expected), name=str(path))


def load(text: str, *, name: str) -> Source:
    """The document in `text`. Raises UsageError, with `name` and line, unless it is one document of plain values."""
    if len(text) > MAX_CHARACTERS:
        line = text.count("\n", 0, MAX_CHARACTERS) + 1
        found = f"more than {MAX_CHARACTERS:,} characters down to this line"
        raise _refused(name, line, found, f"at most {MAX_CHARACTERS:,} in a document")
    if text.lstrip().startswith("{"):
        text = _without_leading_tabs(text)
    _refuse_crowd(text, name)
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return Source(name=name, data=None, _root=None)
        refusals = Refusals(name)
        check_plain(root, refusals)
        refusals.raise_any()
        return Source(name=name, data=loader.construct_document(root), _root=root)
    except yaml.MarkedYAMLError as error:
        raise _not_well_formed(error, name) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _refused(name, line, "a character that YAML does not allow", "printable text") from error
    except (ValueError, OverflowError) as error:
        # The scanner computes characters from escapes, and versions from directives, without a check of its own.
        line = loader.line + 1 if loader is not None else 1
        raise _refused(name, line, f"not well-formed YAML: {error}", "characters and numbers that exist") from error


class _Loader(yaml.SafeLoader):
    """The safe loader with JSON's idea of a number, without dates, and with limits on depth and number of values."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node with all below it. Raises a MarkedYAMLError where the document goes beyond a limit."""
        self._depth += 1
        self._values += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"more than {MAX_DEPTH} lists and mappings inside one another")
        if self._values > 2 * MAX_VALUES:  # keys are nodes as well
            self._refuse(f"more than {MAX_VALUES:,} values down to this line")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refuse(self, what: str) -> None:
        raise yaml.composer.ComposerError(None, None, what, self.peek_event().start_mark)  # type: ignore[no-untyped-call]


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    kept = {
        first: [(tag, form) for tag, form in forms if tag not in _NOT_RESOLVED]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return {first: forms for first, forms in kept.items() if forms}


_Loader.yaml_implicit_resolvers = _resolvers()
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


def _without_leading_tabs(text: str) -> str:
    """JSON may be indented by tabs, YAML may not; a JSON string never spans lines, so only layout changes."""
    return re.sub(r"^[ \t]*\t[ \t]*", lambda match: match[0].replace("\t", " "), text, flags=re.MULTILINE)


def _refuse_crowd(text: str, name: str) -> None:
    """Raises UsageError at the first value that is too many, aliases not expanded.

    A tree of values takes 30 microseconds for each, libyaml's events take one: so a text that may have too many is
    counted through first. Other errors in it are left to the parser that makes the tree.
    """
    if len(text) <= MAX_VALUES:
        return
    with contextlib.suppress(yaml.YAMLError, ValueError):
        for count, line in enumerate(_value_lines(text), start=1):
            if count > MAX_VALUES:
                found = f"more than {MAX_VALUES:,} values down to this line"
                raise _refused(name, line, found, f"at most {MAX_VALUES:,} in a document")


def _value_lines(text: str) -> Iterator[int]:
    """The line, from 1, of each value. Raises yaml.YAMLError where the text is no YAML."""
    is_value: list[Iterator[bool]] = [repeat(True)]  # of each node to come, in each collection that is open
    for event in yaml.parse(text, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):
        if isinstance(event, yaml.NodeEvent) and next(is_value[-1]):
            yield event.start_mark.line + 1 if event.start_mark is not None else 1
        if isinstance(event, yaml.MappingStartEvent):
            is_value.append(cycle((False, True)))
        elif isinstance(event, yaml.SequenceStartEvent):
            is_value.append(repeat(True))
        elif isinstance(event, yaml.CollectionEndEvent):
            is_value.pop()
        if len(is_value) > MAX_DEPTH + 1:
            return  # the parser that makes the tree refuses it there


def _not_well_formed(error: yaml.MarkedYAMLError, name: str) -> UsageError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 1
    parts = [part for part in (error.context, error.problem) if part]
    column = f" (column {mark.column + 1})" if mark is not None else ""
    what = f"not well-formed YAML: {'; '.join(parts)}{column}"
    return _refused(name, line, what, "one document, indented by spaces")


def _refused(name: str, line: int, what: str, expected: str) -> UsageError:
    refusals = Refusals(name)
    refusals.add(line, what, expected)
    return UsageError("\n".join(refusals.lines()))
