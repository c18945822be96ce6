"""A process of a simulated node as others see it, and the record into which the parts of a node write."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Process", "Record", "log_into"]

Record = Callable[[str, str, str, Mapping[str, Any]], None]
"""Writes one line of the world's trace: node, component, event, fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of a node: known by when it was started; `stopped` by a signal."""

    started_us: int
    stopped: bool


def log_into(record: Record, *, node: str, component: str) -> Callable[..., None]:
    """The `Log` port of a part of a node."""

    def log(event: str, message: str, /, *, number: int | None = None, **fields: str | int | None) -> None:
        record(node, component, event, {"message": message, "id": number, **fields})

    return log
