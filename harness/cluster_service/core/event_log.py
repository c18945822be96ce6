"""Event Log Processor: one ordered, structured cluster log; every line names its component.

It gives each line its place in the order and its time. A condition that lasts is told once, and again after a minute,
so that a log stays readable through a long fault; an event is always told, however often it happens.
"""

from typing import Any

from harness.cluster_service.core.messages import Log
from harness.model.serialization import to_json_value

__all__ = ["REPEAT_US", "EventLogProcessor"]

REPEAT_US = 60_000_000


class EventLogProcessor:
    """Turns Log actions into lines. `node` is written into each of them."""

    def __init__(self, *, node: str) -> None:
        self._node = node
        self._sequence = 0
        self._told_us: dict[tuple[str, str, str], int] = {}

    def line(self, now: int, unix_s: float, log: Log) -> dict[str, Any] | None:
        """The line as a JSON object, or None for a lasting condition told within a minute. `now` is in microseconds."""
        if log.lasting and self._told_lately(now, log):
            return None
        self._sequence += 1
        return {
            "time": round(unix_s, 6),
            "sequence": self._sequence,
            "node": self._node,
            "component": log.component,
            "id": log.id,
            "event": log.event,
            "message": log.message,
            "fields": to_json_value(dict(log.fields)),
        }

    def _told_lately(self, now: int, log: Log) -> bool:
        self._told_us = {key: at for key, at in self._told_us.items() if now - at < REPEAT_US}
        subject = (log.component, log.event, log.message)
        if subject in self._told_us:
            return True
        self._told_us[subject] = now
        return False
