"""What a register holds: a record, its version, and the ids of the last changes.

The ids let a proposer recognise its own effect: after an accept whose fate it does not know it prepares again, and
finds its id or can be sure that the change will never appear (safety review, finding 9).
"""

import functools
import json
from dataclasses import dataclass
from typing import Protocol

from harness.model.changes import Record, record_from_plain, record_to_plain
from harness.model.records import ClusterRecord, GroupRecord
from harness.model.shard import shard_of

__all__ = ["IDS_KEPT", "Codec", "JsonCodec", "Stored"]

IDS_KEPT = 16
"""Of each register, and of the cluster's two for each node where that is more: before somebody comes to look whether
its change was made, every node may have made one and another one.
"""

_ENCODER = json.JSONEncoder(separators=(",", ":"), sort_keys=True, check_circular=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The content of one register. `version` grows by one with every change, an identity change not counted."""

    version: int
    ids: tuple[str, ...]
    record: Record

    @property
    def owner(self) -> str:
        """The node that owns the register's subject; empty where there is none. Travels with the notices, as a hint."""
        record = self.record
        return record.owner.node if isinstance(record, GroupRecord) and record.owner is not None else ""

    @property
    def circle(self) -> str:
        """The circle of the register's subject; empty for the cluster's. Travels with each accept, for the notices."""
        return shard_of(self.record.spec) if isinstance(self.record, GroupRecord) else ""

    def after(self, change_id: str, record: Record) -> "Stored":
        """The content after the change of that id."""
        kept = max(IDS_KEPT, 2 * len(record.nodes)) if isinstance(record, ClusterRecord) else IDS_KEPT
        return Stored(version=self.version + 1, ids=(*self.ids, change_id)[-kept:], record=record)


class Codec(Protocol):
    """How a register's content becomes the text that voters keep."""

    def encode(self, stored: Stored) -> str: ...
    def decode(self, value: str) -> Stored: ...


MAX_DECODED = 512
"""Texts whose content is kept. One takes some 7 KiB, so a service under faults grows by at most 4 MiB until all are."""


class JsonCodec:
    """Versioned JSON. Reading a text again costs nothing: the same voters answer with the same text."""

    FORMAT = 1

    def encode(self, stored: Stored) -> str:
        """One line of JSON, with sorted keys, so that equal contents are equal texts."""
        plain = {
            "format": self.FORMAT,
            "version": stored.version,
            "ids": list(stored.ids),
            "record": record_to_plain(stored.record),
        }
        return _ENCODER.encode(plain)

    def decode(self, value: str) -> Stored:
        """The content. Raises ValueError on another format or a record that does not fit."""
        return _decode(value)


@functools.lru_cache(maxsize=MAX_DECODED)
def _decode(value: str) -> Stored:
    plain = json.loads(value)
    if plain.get("format") != JsonCodec.FORMAT:
        raise ValueError(f"register of format {plain.get('format')!r}, this version reads {JsonCodec.FORMAT}")
    return Stored(
        version=plain["version"], ids=tuple(plain["ids"]), record=record_from_plain(plain["record"])
    )
