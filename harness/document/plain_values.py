"""Which values of a YAML document are plain: those that JSON can express, within limits.

One walk over the tree of nodes, before any value is made of it: text keys that stand once, numbers that are finite and
printable, characters that exist, no tags that build objects, and aliases that stay finite when they are expanded. The
cost of a document is decided here: its readers meet no more values, and no deeper ones, than the limits say.
"""

import math
import re
from dataclasses import dataclass
from typing import cast

import yaml

from harness.document.refusals import Refusals, shown

__all__ = ["FLOAT", "INT", "MAX_CHARACTERS", "MAX_DEPTH", "MAX_VALUES", "check_plain"]

MAX_VALUES = 250_000
"""Values in one document, aliases expanded. The largest real document, 64 nodes with 8,000 VMs in groups of their
own, has half as many when each says its owners and its policy; an alias bomb has millions.
"""

MAX_CHARACTERS = 8 << 20
"""In one document, and in its values with aliases expanded. The largest real one has two million; each takes half a
microsecond.
"""

MAX_DEPTH = 40
"""Lists and mappings inside one another, aliases expanded. A real document has nine."""

MAX_TEXT_CHARACTERS = 65_536
"""In one value: the longest real ones, descriptions, have some hundred."""

MAX_KEY_CHARACTERS = 256
MAX_NUMBER_CHARACTERS = 40
"""A number of 64 bits has twenty digits; Python refuses to print one of more than 4,300."""

INT = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$")
FLOAT = re.compile(
    r"""[-+]?( [0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)? | [0-9]+[eE][-+]?[0-9]+ | \.[0-9][0-9_]*([eE][-+]?[0-9]+)?
        | \.(inf|Inf|INF) )$ | \.(nan|NaN|NAN)$""",
    re.VERBOSE,
)

_TAG = "tag:yaml.org,2002:"
_MERGE_TAG = f"{_TAG}merge"
_NUMBER_FORM = f"a finite number of at most {MAX_NUMBER_CHARACTERS} characters, or text in quotes"
_SCALAR_FORMS = {
    f"{_TAG}null": (re.compile(r"(~|null|Null|NULL|)$"), "null, or text in quotes"),
    f"{_TAG}bool": (re.compile(r"(yes|no|true|false|on|off)$", re.IGNORECASE), "true or false, or text in quotes"),
    f"{_TAG}int": (INT, _NUMBER_FORM),
    f"{_TAG}float": (re.compile(rf"[-+]?[0-9][0-9_]*$ | {FLOAT.pattern}", re.VERBOSE), _NUMBER_FORM),
}
_PLAIN_TAGS = frozenset((*_SCALAR_FORMS, f"{_TAG}str", f"{_TAG}seq", f"{_TAG}map"))
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_plain(root: yaml.Node, refusals: Refusals) -> None:
    """Refuse every value below `root` that is not plain. Halves of surrogate pairs that form a pair are joined in
    place: JSON writes characters beyond 65,535 so.
    """
    walk = _Walk(refusals)
    measure = walk.measure(root)
    for found, most, what in (
        (measure.values, MAX_VALUES, "values"),
        (measure.characters, MAX_CHARACTERS, "characters"),
        (measure.depth, MAX_DEPTH, "lists and mappings inside one another"),
    ):
        if found > most:
            line = root.start_mark.line + 1
            refusals.add(line, f"more than {most:,} {what} when its aliases are expanded", f"at most {most:,}")


@dataclass(frozen=True, slots=True)
class _Measure:
    """Of a node and everything below it, aliases expanded."""

    values: int = 1
    characters: int = 0
    depth: int = 0


class _Walk:
    """One look at every node of a document, however often aliases name it."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._measures: dict[int, _Measure] = {}
        self._open: set[int] = set()

    def measure(self, node: yaml.Node) -> _Measure:
        """The measure of `node`; its values that are not plain are refused at the first visit."""
        known = self._measures.get(id(node))
        if known is not None:
            return known
        if id(node) in self._open:
            self._refuse(node, "a value that contains itself through an alias", "a finite document")
            return _Measure()
        if isinstance(node, yaml.ScalarNode):
            found = self._measure_scalar(node)
        else:
            self._open.add(id(node))
            found = self._measure_collection(cast(yaml.CollectionNode, node))
            self._open.discard(id(node))
        self._measures[id(node)] = found
        return found

    def _measure_collection(self, node: yaml.CollectionNode) -> _Measure:
        items = list(node.value)
        key_characters = 0
        if node.tag not in _PLAIN_TAGS:
            self._refuse_tag(node)
        elif isinstance(node, yaml.MappingNode):
            key_characters = self._check_keys(node)
            items = [value for _, value in node.value]
        measures = [self.measure(item) for item in items] if node.tag in _PLAIN_TAGS else []
        return _Measure(
            values=1 + sum(inner.values for inner in measures),
            characters=key_characters + sum(inner.characters for inner in measures),
            depth=1 + max((inner.depth for inner in measures), default=0),
        )

    def _measure_scalar(self, node: yaml.ScalarNode) -> _Measure:
        if node.tag not in _PLAIN_TAGS:
            self._refuse_tag(node)
        elif node.tag in _SCALAR_FORMS:
            self._check_form(node)
        else:
            self._check_text(node, "text", MAX_TEXT_CHARACTERS)
        return _Measure(characters=len(node.value))

    def _check_form(self, node: yaml.ScalarNode) -> None:
        """A value with a tag of its own must look as that tag does, and numbers must be finite and short."""
        form, expected = _SCALAR_FORMS[node.tag]
        value = str(node.value)
        fits = len(value) <= MAX_NUMBER_CHARACTERS and form.match(value) is not None and not value.endswith("\n")
        if fits and expected is _NUMBER_FORM:
            fits = _is_number(value)
        if not fits:
            kind = node.tag.removeprefix(_TAG)
            self._refuse(node, f"{shown(value)} is no plain value of the kind {kind}", expected)

    def _check_text(self, node: yaml.ScalarNode, kind: str, most: int) -> None:
        if len(node.value) > most:
            self._refuse(node, f"a {kind} of {len(node.value):,} characters", f"a {kind} of at most {most:,}")
        if _SURROGATE.search(node.value):
            try:
                node.value = node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                self._refuse(node, f"half of a surrogate pair in {shown(node.value)}", "whole characters")
        if "\0" in node.value:
            self._refuse(node, f"the character \\0 in {shown(node.value)}", "characters that a text can hold")

    def _check_keys(self, node: yaml.MappingNode) -> int:
        """How many characters the keys have."""
        first_lines: dict[str, int] = {}
        characters = 0
        for key, _ in node.value:
            if key.tag not in (f"{_TAG}str", _MERGE_TAG) or not isinstance(key, yaml.ScalarNode):
                what = shown(key.value) if isinstance(key, yaml.ScalarNode) else "that is a list or mapping"
                self._refuse(key, f"the key {what} is not text", "text; put it in quotes if it means that word")
                continue
            self._check_text(key, "key", MAX_KEY_CHARACTERS)
            characters += len(key.value)
            if key.value in first_lines:
                what = f"the key {shown(key.value)} stands here again, first on line {first_lines[key.value]}"
                self._refuse(key, what, "each key once")
            else:
                first_lines[key.value] = key.start_mark.line + 1
        return characters

    def _refuse_tag(self, node: yaml.Node) -> None:
        expected = "a plain value (text, number, true, false, null, list or mapping)"
        self._refuse(node, f"the tag {shown(node.tag)}", expected)

    def _refuse(self, node: yaml.Node, what: str, expected: str) -> None:
        self._refusals.add(node.start_mark.line + 1, what, expected)


def _is_number(value: str) -> bool:
    """Whether a text of the form of a number has a digit, and is finite."""
    digits = value.replace("_", "").lstrip("+-").lower()
    if digits in (".inf", ".nan"):
        return False
    if digits[:2] in ("0b", "0x"):
        return len(digits) > 2
    return math.isfinite(float(digits))
