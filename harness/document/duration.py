"""Durations as people write them (`500ms`, `2s`, `15m`, `1h`) and as integer microseconds.

A bare number is refused: a file in which `30` may mean seconds or milliseconds is read wrongly sooner or later.
"""

import re
from decimal import Decimal

from harness.document.refusals import shown

__all__ = ["DURATION_FORM", "format_duration", "parse_duration_us"]

DURATION_FORM = "a duration with its unit, such as 500ms, 2s, 15m or 1h"

_UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_FORM = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,6})?)\s?(?P<unit>us|ms|s|m|h)")


def parse_duration_us(value: object) -> int:
    """Microseconds. Raises ValueError, whose text says what was wrong, on anything that is not of `DURATION_FORM`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{shown(value)} has no unit")
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is no duration")
    match = _FORM.fullmatch(value.strip())
    if match is None and value.strip().startswith("-"):
        raise ValueError(f"{shown(value)} is negative")
    if match is None:
        raise ValueError(f"{shown(value)} is no duration")
    duration_us = Decimal(match["number"]) * _UNITS_US[match["unit"]]
    if duration_us != int(duration_us):
        raise ValueError(f"{shown(value)} is finer than a microsecond")
    return int(duration_us)


def format_duration(duration_us: int) -> str:
    """The shortest exact form: 500000 is `500ms`, 5400000000 is `90m`."""
    for unit in ("h", "m", "s", "ms"):
        if duration_us and duration_us % _UNITS_US[unit] == 0:
            return f"{duration_us // _UNITS_US[unit]}{unit}"
    return f"{duration_us}us" if duration_us else "0s"
