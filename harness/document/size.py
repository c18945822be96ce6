"""Sizes of memory and disks as people write them (`64MiB`, `1GiB`) and as bytes.

A bare number is refused, as it is for durations: it may mean bytes or mebibytes.
"""

import re

from harness.document.refusals import shown

__all__ = ["SIZE_FORM", "format_size", "parse_size_bytes"]

SIZE_FORM = "a size with its unit, such as 512KiB, 64MiB or 1GiB"

_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_FORM = re.compile(r"(?P<number>[0-9]{1,6})\s?(?P<unit>Ki|Mi|Gi)B?")


def parse_size_bytes(value: object) -> int:
    """Bytes. Raises ValueError, whose text says what was wrong, on anything that is not of `SIZE_FORM`."""
    match = _FORM.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{shown(value)} is no size")
    return int(match["number"]) * _UNITS[match["unit"]]


def format_size(size: int) -> str:
    """The shortest exact form: 67108864 is `64MiB`."""
    for unit in ("Gi", "Mi", "Ki"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}B"
    return f"{size} bytes"
