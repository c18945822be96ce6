"""One mapping of a document, read key by key.

Refusals are collected, so that a person sees all errors of a file at once. A reader takes each key that it knows, with
the form that it expects, and calls `finish`, which refuses the keys that nobody took. After a refusal the reader gets
the default and reads on; its values may be used only once `Refusals.raise_any` has returned.
"""

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from harness.document.duration import DURATION_FORM, format_duration, parse_duration_us
from harness.document.refusals import Nearest, Refusals, nearest, shown
from harness.document.size import SIZE_FORM, format_size, parse_size_bytes
from harness.document.yaml_source import Path, Source
from harness.model.name import NAME_FORM, is_name

__all__ = ["NAME_FORM", "MappingReader", "is_name"]

T = TypeVar("T")
E = TypeVar("E", bound=enum.StrEnum)

_NOT_OF_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line separators, and marks that turn the direction of what follows them."""


class MappingReader:
    """`value`, which stands at `path` of `source`. The sections of one document share `refusals`."""

    def __init__(self, value: object, *, source: Source, path: Path, refusals: Refusals, what: str) -> None:
        """`what` names the mapping in messages, such as "a group"."""
        self.path = path
        self.refusals = refusals
        self._source = source
        self._known: set[str] = set()
        self._what = what
        self._readable = isinstance(value, Mapping)
        self._entries: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        if not self._readable:
            self._refuse(path, f"{what} is {shown(value)}", "a mapping (key: value)")

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def refuse(self, key: str | None, what: str, expected: str | Nearest = "") -> None:
        """Notes that the value of `key` (None: the whole mapping) is refused."""
        self._refuse(self.path if key is None else (*self.path, key), what, expected)

    def refuse_item(self, key: str, index: int, what: str, expected: str | Nearest = "") -> None:
        """Notes that one item of the list at `key` is refused."""
        self._refuse((*self.path, key, index), what, expected)

    def refuse_parent(self, key: str, what: str, expected: str | Nearest = "") -> None:
        """Notes a refusal of `key` in the mapping whose list this one is an item of."""
        self._refuse((*self.path[:-2], key), what, expected)

    def demand(self, key: str, expected: str, given: bool) -> None:
        """Notes that `key` is missing, unless it is `given`."""
        self.known(key)
        if not given and self._readable and key not in self._entries:
            self.refuse(None, f"{self._what} has no {key}", expected)
        elif not given and self._readable and self._entries[key] == []:
            self.refuse(key, f"{key} is empty", expected)

    def known(self, key: str) -> None:
        """`finish` will not refuse `key`."""
        self._known.add(key)

    def items(self) -> Iterable[tuple[str, Any]]:
        """Every key with its value, for a mapping whose keys the person chooses."""
        return self._entries.items()

    def finish(self) -> None:
        """Refuses every key that was not asked for."""
        for key in self._entries:
            if key not in self._known:
                self.refuse(key, f"{self._what} has no key {shown(key)}", nearest(key, self._known))

    def raw(self, key: str, default: Any = None) -> Any:
        """The value as it stands."""
        self._known.add(key)
        return self._entries.get(key, default)

    def section(self, key: str, *, what: str) -> "MappingReader":
        """The mapping at `key`; an empty one when it is absent."""
        return self._inner(self.raw(key, {}), (*self.path, key), what)

    def sections(self, key: str, *, what: str) -> list["MappingReader"]:
        """The list of mappings at `key`; `what` names one of them."""
        value = self.raw(key, [])
        if not isinstance(value, list):
            self.refuse(key, f"{key} is {shown(value)}", f"a list, each item {what}")
            return []
        return [self._inner(item, (*self.path, key, index), what) for index, item in enumerate(value)]

    def name(self, key: str) -> str:
        """A name, which must be there; empty when it was refused."""
        value = self.raw(key)
        if key not in self._entries:
            if self._readable:
                self.refuse(None, f"{self._what} has no {key}", f"{key}: and {NAME_FORM}")
        elif not is_name(value):
            self.refuse(key, f"{key} is {shown(value)}", NAME_FORM)
        else:
            return str(value)
        return ""

    def text(self, key: str, default: str) -> str:
        """Text that is not empty."""
        return self._taken(key, default, lambda value: isinstance(value, str) and bool(value.strip()), "some text")

    def line(self, key: str, default: str) -> str:
        """Text of one line, which a terminal shows as it is."""

        def fits(value: object) -> bool:
            return isinstance(value, str) and bool(value.strip()) and _NOT_OF_A_LINE.search(value.strip()) is None

        return self._taken(key, default, fits, "text of one line, without control characters").strip()

    def integer(self, key: str, default: int, *, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        value = self.raw(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.refuse(key, f"{key} is {shown(value)}", f"a whole number from {low} to {high}")
        return default

    def boolean(self, key: str, default: bool) -> bool:
        """true or false."""
        return self._taken(key, default, lambda value: isinstance(value, bool), "true or false")

    def choice(self, key: str, default: E) -> E:
        """One of the words of an enumeration."""
        value = self.raw(key, default.value)
        kind = type(default)
        if isinstance(value, str) and value in {str(member) for member in kind}:
            return kind(value)
        self.refuse(key, f"{key} is {shown(value)}", f"one of {', '.join(kind)}")
        return default

    def duration_us(self, key: str, default: int, *, low: int, high: int) -> int:
        """A duration from `low` to `high`, both in microseconds and included."""
        if key not in self._entries:
            self._known.add(key)
            return default
        try:
            duration_us = parse_duration_us(self.raw(key))
        except ValueError as error:
            self.refuse(key, f"{key}: {error}", DURATION_FORM)
            return default
        if low <= duration_us <= high:
            return duration_us
        limits = f"{format_duration(low)} to {format_duration(high)}"
        self.refuse(key, f"{key} is {format_duration(duration_us)}", f"a duration from {limits}")
        return default

    def size_bytes(self, key: str, default: int, *, low: int, high: int) -> int:
        """A size from `low` to `high`, both in bytes and included."""
        if key not in self._entries:
            self._known.add(key)
            return default
        try:
            size = parse_size_bytes(self.raw(key))
        except ValueError as error:
            self.refuse(key, f"{key}: {error}", SIZE_FORM)
            return default
        if low <= size <= high:
            return size
        limits = f"{format_size(low)} to {format_size(high)}"
        self.refuse(key, f"{key} is {format_size(size)}", f"a size from {limits}")
        return default

    def texts(self, key: str, *, what: str) -> tuple[str, ...]:
        """A list of texts; items of another kind are refused one by one."""
        value = self.raw(key, [])
        if not isinstance(value, list):
            self.refuse(key, f"{key} is {shown(value)}", f"a list of {what}")
            return ()
        for index, item in enumerate(value):
            if not isinstance(item, str):
                self.refuse_item(key, index, f"{key} holds {shown(item)}", what)
        return tuple(item for item in value if isinstance(item, str))

    def _inner(self, value: object, path: Path, what: str) -> "MappingReader":
        return MappingReader(value, source=self._source, path=path, refusals=self.refusals, what=what)

    def _taken(self, key: str, default: T, fits: Callable[[object], bool], expected: str) -> T:
        value: Any = self.raw(key, default)
        if fits(value):
            return value  # type: ignore[no-any-return]
        self.refuse(key, f"{key} is {shown(value)}", expected)
        return default

    def _refuse(self, path: Path, what: str, expected: str | Nearest) -> None:
        self.refusals.add(self._source.line_of(path), what, expected)
