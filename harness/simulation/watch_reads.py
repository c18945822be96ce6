"""The watcher of reads, and the service that tells it of them.

What a read shows is no older than what was chosen when it began: with the changes, whose order the chosen values
carry, that makes the history of a register linearizable.
"""

from collections.abc import Callable
from typing import Any

from harness.cluster_service.database import DatabaseManager
from harness.cluster_service.messages import Event
from harness.cluster_service.service import ClusterService
from harness.database.proposer import Result, Settlement
from harness.simulation.watch import ChosenValues

__all__ = ["FreshReads", "WatchedDatabase", "WatchedService"]


class FreshReads:
    """Hook `began` and `ended` to the Database Managers: `reader` is one of them. `chosen` knows the truth."""

    def __init__(self, *, chosen: ChosenValues, told: Callable[[str], None]) -> None:
        self._chosen = chosen
        self._told = told
        self._began: dict[tuple[int, str], int] = {}

    def began(self, reader: int, key: str) -> None:
        """A read of that register begins."""
        self._began[reader, key] = self._chosen.newest_version(key)

    def ended(self, reader: int, key: str, version: int) -> None:
        """It has shown that version; 0 for nothing."""
        newest = self._began.pop((reader, key), 0)
        if version < newest:
            self._told(f"register {key}: a read that began when version {newest} was chosen shows version {version}")


class WatchedDatabase(DatabaseManager):
    """The production manager, whose reads are told."""

    reads: FreshReads

    def _read(self, now: int, key: str) -> None:
        if key not in self._reading:
            self.reads.began(id(self), key)
        super()._read(now, key)

    def _settle(self, now: int, settlement: Settlement, events: list[Event]) -> None:
        if settlement.operation not in self._wishes and settlement.result is Result.DONE:
            self.reads.ended(id(self), settlement.key, settlement.stored.version if settlement.stored else 0)
        super()._settle(now, settlement, events)


class WatchedService(ClusterService):
    """The production service, whose reads are told to a watcher if there is one."""

    def __init__(self, *, reads: FreshReads | None, **named: Any) -> None:
        self._reads = reads
        super().__init__(**named)

    def _build_database(self) -> DatabaseManager:
        database = super()._build_database()
        if self._reads is not None:
            database.__class__ = WatchedDatabase
            assert isinstance(database, WatchedDatabase)
            database.reads = self._reads
        return database
