"""Frozen records to plain JSON values and back, by their type hints.

Used for registers and for frames between a node's processes. It is not a validator of what people write: those files
are read where line numbers are known. A value that does not fit raises ValueError with the field's name; unknown
keys are refused, because a register written by a newer version must not lose what this one does not know.
"""

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from harness.model.session import Session

__all__ = ["from_json_value", "to_json_value"]

T = TypeVar("T")

_PLAIN = frozenset({str, int, float, bool, type(None)})


def to_json_value(value: Any) -> Any:
    """`value` as dicts, lists, strings, numbers, booleans and None. Raises TypeError for what has no such form."""
    kind: Any = type(value)
    return value if kind in _PLAIN else _writer(kind)(value)


def from_json_value(cls: type[T], value: Any) -> T:
    """The record that `to_json_value` wrote. Raises ValueError, naming the field, on a value that does not fit."""
    return cast(T, _reader(cast(Any, cls))(value))


@functools.cache
def _writer(kind: type) -> Callable[[Any], Any]:
    """How a value of exactly that type is written, found once a type: every change of a register goes through here."""
    if issubclass(kind, enum.Enum):
        return lambda value: value.value
    if issubclass(kind, str | int | float):
        return lambda value: value
    if kind is Session:
        return str
    if dataclasses.is_dataclass(kind):
        return functools.partial(_write_record, tuple(field.name for field in dataclasses.fields(kind)))
    if issubclass(kind, tuple | list):
        return lambda value: [item if type(item) in _PLAIN else to_json_value(item) for item in value]
    if issubclass(kind, Mapping):
        return lambda value: {str(key): to_json_value(item) for key, item in value.items()}
    raise TypeError(f"no plain form for {kind.__name__}")


def _write_record(names: tuple[str, ...], record: Any) -> dict[str, Any]:
    plain = {}
    for name in names:
        value = getattr(record, name)
        kind: Any = type(value)
        plain[name] = value if kind in _PLAIN else _writer(kind)(value)
    return plain


@functools.cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _optional_reader(hint)
    if origin is tuple:
        return _tuple_reader(hint)
    if origin is not None and issubclass(origin, Mapping):
        item = _reader(typing.get_args(hint)[1])
        return lambda value: {key: item(entry) for key, entry in _expect(value, dict).items()}
    if hint is Session:
        return lambda value: Session.parse(_expect(value, str))
    if hint is Any:
        return lambda value: value
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint
    if dataclasses.is_dataclass(hint):
        return functools.partial(_read_record, hint)
    if hint is float:
        return lambda value: float(_expect(value, (int, float)))
    return lambda value: _expect(value, hint)


def _optional_reader(hint: Any) -> Callable[[Any], Any]:
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    if len(options) != 1:
        raise TypeError(f"only X | None is supported, not {hint}")
    inner = _reader(options[0])
    return lambda value: None if value is None else inner(value)


def _tuple_reader(hint: Any) -> Callable[[Any], Any]:
    arguments = typing.get_args(hint)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return functools.partial(_read_tuple, arguments[0], _reader(arguments[0]))
    readers = [_reader(argument) for argument in arguments]
    return lambda value: tuple(
        reader(entry) for reader, entry in zip(readers, _expect(value, list), strict=True)
    )


def _read_tuple(kind: Any, item: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    """Taken as they are where they can be: a cluster's register has the names of all of its groups."""
    entries = _expect(value, list)
    as_they_are = kind in _PLAIN and set(map(type, entries)) <= {kind}
    return tuple(entries if as_they_are else map(item, entries))


def _read_record(cls: Any, value: Any) -> Any:
    fields = _fields(cls)
    given = _expect(value, dict)
    if not given.keys() <= fields.keys():
        raise ValueError(f"{cls.__name__} has no field {', '.join(sorted(given.keys() - fields.keys()))}")
    arguments, name = {}, ""
    try:
        for name, entry in given.items():
            kind, read = fields[name]
            arguments[name] = entry if type(entry) is kind else read(entry)
    except ValueError as error:
        raise ValueError(f"{cls.__name__}.{name}: {error}") from error
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}") from error


@functools.cache
def _fields(cls: Any) -> dict[str, tuple[type | None, Callable[[Any], Any]]]:
    """For each field the type of which a value is taken as it is, if there is one, and how any other is read."""
    return {
        name: (hint if hint in (str, int, bool, float) else None, _reader(hint))
        for name, hint in typing.get_type_hints(cls).items()
    }


def _expect(value: Any, kind: Any) -> Any:
    wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
    if wrong:
        name = kind.__name__ if isinstance(kind, type) else "number"
        raise ValueError(f"{name} expected, got {value!r}")
    return value
