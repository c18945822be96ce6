"""A YAML (or JSON) document as plain data that still knows its line numbers.

Topology files and experiment files are read through here, so that every refusal can name file, line and the expected
form. It is not a schema: what a document must contain is said by its readers. Only what JSON can say comes out (text
keys, no dates, no tags that build objects): two readers of one file must not disagree about a value. YAML 1.1's
base-sixty numbers (`12:30`) and dates stay text for the same reason.
"""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, repeat
from typing import Any

import yaml

from harness.errors import UsageError

__all__ = ["Path", "Source", "load", "nearest", "refuse", "shown"]

Path = tuple[str | int, ...]

MAX_VALUES = 250_000
"""Values in one document, aliases expanded. The largest real document, 64 nodes with 8,000 machines in groups of their
own, has half as many when each says its owners and its policy; an alias bomb has millions.
"""

MAX_CHARACTERS = 8 << 20
"""In one document. The largest real one has two million; each takes half a microsecond, whatever it is part of."""

_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))
_MERGE_TAG = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One document. `name` is what messages call the file; `data` is None for an empty document. One that was made here
    and read from no file has line 1 only.
    """

    name: str
    data: Any
    _root: yaml.Node | None = field(default=None, repr=False)

    def line_of(self, path: Path) -> int:
        """The line, from 1, of the key or list item at `path`, or of the last part of it that exists."""
        node = self._root
        line = 1 if node is None else node.start_mark.line + 1
        for step in path:
            found = _child(node, step)
            if found is None:
                return line
            line, node = found
        return line

    def at(self, path: Path) -> str:
        """`FILE:LINE` of the value at `path`."""
        return f"{self.name}:{self.line_of(path)}"

    def error(self, path: Path, what: str, expected: str = "") -> UsageError:
        """The refusal of the value at `path`: `FILE:LINE: what, expected form`."""
        return UsageError(self.refusal(path, what, expected))

    def refusal(self, path: Path, what: str, expected: str = "") -> str:
        """The text of `error`, for readers that collect all refusals of a document before they raise one error."""
        return f"{self.at(path)}: {what}, expected {expected}" if expected else f"{self.at(path)}: {what}"


def load(text: str, *, name: str) -> Source:
    """The document in `text`. Raises UsageError, with `name` and line, unless it is one document of plain values."""
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"{name}: {len(text):,} characters, expected at most {MAX_CHARACTERS:,}")
    if text.lstrip().startswith("{"):
        text = _without_leading_tabs(text)
    _refuse_crowd(text, name)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return Source(name=name, data=None, _root=None)
        refuse(_problems(root, name))
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise UsageError(_describe(error, name)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UsageError(f"{name}:{line}: a character that YAML does not allow, expected printable text") from error
    except RecursionError as error:
        raise UsageError(f"{name}:1: nested too deeply, expected a document of some dozens of levels") from error
    except ValueError as error:
        raise UsageError(f"{name}:1: a value does not fit its tag: {error}, expected values without tags") from error
    return Source(name=name, data=data, _root=root)


def refuse(refusals: Iterable[str]) -> None:
    """Raises one UsageError with all `refusals`, a line each; returns when there are none."""
    lines = list(dict.fromkeys(refusals))
    if lines:
        raise UsageError("\n".join(lines))


def nearest(word: str, known: Iterable[str]) -> str:
    """What to expect in place of the unknown `word`: the nearest of `known` if one is near, else all of them."""
    names = sorted({name for name in known if name})
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"{close[0]} (did you mean that?)"
    return f"one of {', '.join(names)}" if names else "nothing here"


def shown(value: object) -> str:
    """`value` as a document has it, cut to a length that fits a line."""
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Loader(yaml.SafeLoader):
    """The safe loader with JSON's idea of a number and without dates."""


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    replaced = {f"tag:yaml.org,2002:{kind}" for kind in ("timestamp", "int", "float")}
    kept = {
        first: [(tag, form) for tag, form in forms if tag not in replaced]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return {first: forms for first, forms in kept.items() if forms}


_INT = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"""[-+]?( [0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)? | [0-9]+[eE][-+]?[0-9]+ | \.[0-9][0-9_]*([eE][-+]?[0-9]+)?
        | \.(inf|Inf|INF) )$ | \.(nan|NaN|NAN)$""",
    re.VERBOSE,
)
_Loader.yaml_implicit_resolvers = _resolvers()
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _without_leading_tabs(text: str) -> str:
    """JSON may be indented by tabs, YAML may not; a JSON string never spans lines, so only layout changes."""
    return re.sub(r"^[ \t]*\t[ \t]*", lambda match: match[0].replace("\t", " "), text, flags=re.MULTILINE)


def _refuse_crowd(text: str, name: str) -> None:
    """Raises UsageError at the first value that is too many, aliases not expanded.

    A tree of values takes 30 microseconds for each, libyaml's events take one: so a text that may have too many is
    counted through first. What else is wrong with it is left to the parser that makes the tree.
    """
    if len(text) <= MAX_VALUES:
        return
    with contextlib.suppress(yaml.YAMLError, UnicodeError):
        for count, line in enumerate(_value_lines(text), start=1):
            if count > MAX_VALUES:
                found = f"more than {MAX_VALUES:,} values down to this line"
                raise UsageError(f"{name}:{line}: {found}, expected at most {MAX_VALUES:,} in a document")


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


def _child(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        # Merged entries were put in front of the mapping's own, and the last one wins, as in the data.
        for key, value in reversed(node.value):
            if key.value == step:
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and 0 <= step < len(node.value):
        item = node.value[step]
        return item.start_mark.line + 1, item
    return None


def _problems(root: yaml.Node, name: str) -> list[str]:
    """Duplicate keys, keys that are no text, tags, loops and alias bombs, in the order of the document."""
    walk = _Walk(name)
    if walk.size(root) > MAX_VALUES:
        what = f"more than {MAX_VALUES:,} values when its aliases are expanded"
        walk.refuse(root, what, f"at most {MAX_VALUES:,} in a document")
    return walk.found


class _Walk:
    """One look at every node of a document, however often aliases name it."""

    def __init__(self, name: str) -> None:
        self.found: list[str] = []
        self._name = name
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def refuse(self, node: yaml.Node, what: str, expected: str) -> None:
        self.found.append(f"{self._name}:{node.start_mark.line + 1}: {what}, expected {expected}")

    def size(self, node: yaml.Node) -> int:
        """How many values `node` stands for, itself included."""
        if id(node) in self._open:
            self.refuse(node, "a value that contains itself through an alias", "a finite document")
            return 1
        if id(node) not in self._sizes:
            self._open.add(id(node))
            self._sizes[id(node)] = 1 + self._size_inside(node)
            self._open.discard(id(node))
        return self._sizes[id(node)]

    def _size_inside(self, node: yaml.Node) -> int:
        if node.tag not in _PLAIN_TAGS:
            expected = "a plain value (text, number, true, false, null, list or mapping)"
            self.refuse(node, f"the tag {node.tag!r}", expected)
            return 0
        if isinstance(node, yaml.SequenceNode):
            return sum(self.size(item) for item in node.value)
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            return sum(self.size(value) for _, value in node.value)
        return 0

    def _check_keys(self, node: yaml.MappingNode) -> None:
        first_lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag == _MERGE_TAG:
                continue
            if key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                self.refuse(key, f"the key {shown} is not text", "text; put it in quotes if it means that word")
            elif key.value in first_lines:
                first = first_lines[key.value]
                self.refuse(key, f"the key {key.value!r} stands here again, first on line {first}", "each key once")
            else:
                first_lines[key.value] = key.start_mark.line + 1


def _describe(error: yaml.MarkedYAMLError, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 1
    parts = [part for part in (error.context, error.problem) if part]
    column = f" (column {mark.column + 1})" if mark is not None else ""
    return f"{name}:{line}: not well-formed YAML: {'; '.join(parts)}{column}, expected one document, indented by spaces"
