"""The watchers of what the Database Managers tell, and the service that lets them hear it.

- Reads: what one shows is no older than what was chosen when it began; with the changes, whose order the chosen values
  carry, that makes the history of a register linearizable.
- Made once: a change that is acknowledged was accepted by a majority of one set under that set's version, and no change
  is made twice. An id stands for one change: under one that was used before, a change is taken for made.
"""

from collections.abc import Callable
from typing import Any

from harness.cluster_service.core.messages import ChangeRegister, Event, RegisterSeen
from harness.cluster_service.database import DatabaseManager
from harness.cluster_service.service import ClusterService
from harness.database.proposer import Result, Settlement
from harness.database.register import Stored
from harness.model.records import ClusterRecord
from harness.model.register_keys import CLUSTER_KEY
from harness.simulation.invariants.starts import ChosenValueOracle

__all__ = ["FreshReads", "MadeOnce", "WatchedDatabase", "WatchedService"]


class FreshReads:
    """Hook `began` and `ended` to the Database Managers: `reader` is one of them. `chosen` knows the truth.
    `on_cluster_seen` is told of each content of the cluster's register that the service of a node is about to hear of.
    """

    def __init__(self, *, chosen: ChosenValueOracle, told: Callable[[str], None]) -> None:
        self.on_cluster_seen: list[Callable[[str, ClusterRecord], None]] = []
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


class MadeOnce:
    """Hook `acknowledged` to the Database Managers, and `chose` to the chosen values."""

    def __init__(self, *, told: Callable[[str], None]) -> None:
        self._told = told
        self._made: set[tuple[str, str]] = set()
        self._acknowledged: set[tuple[str, str]] = set()

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        for change in newer.ids[-(newer.version - older.version) :]:
            if (key, change) in self._made:
                self._told(f"register {key}: the change {change} is made again in version {newer.version}")
            self._made.add((key, change))

    def acknowledged(self, key: str, change: str) -> None:
        """Whoever has asked for the change of that id hears that it was made."""
        if (key, change) in self._acknowledged:
            self._told(f"register {key}: two changes were acknowledged under the id {change}")
        elif (key, change) not in self._made:
            self._told(f"register {key}: the change {change} was acknowledged, and no majority of a set accepted it")
        self._acknowledged.add((key, change))


class WatchedDatabase(DatabaseManager):
    """The production manager, whose reads and acknowledgements are told."""

    reads: FreshReads
    changes: MadeOnce

    def _read(self, now: int, key: str) -> None:
        if key not in self._reading:
            self.reads.began(id(self), key)
        super()._read(now, key)

    def _settle(self, now: int, settlement: Settlement, events: list[Event]) -> None:
        if settlement.result is Result.DONE:
            wish = self._wishes.get(settlement.operation)
            if wish is None:
                self.reads.ended(id(self), settlement.key, settlement.stored.version if settlement.stored else 0)
            elif isinstance(wish, ChangeRegister):
                self.changes.acknowledged(settlement.key, f"{self._identity}:{settlement.operation}")
        known = len(events)
        super()._settle(now, settlement, events)
        for event in events[known:] if settlement.key == CLUSTER_KEY else ():
            if isinstance(event, RegisterSeen) and isinstance(event.record, ClusterRecord):
                for seen in self.reads.on_cluster_seen:
                    seen(self._node, event.record)


class WatchedService(ClusterService):
    """The production service, whose database is watched if there is somebody who does."""

    def __init__(self, *, watchers: tuple[FreshReads, MadeOnce] | None, **named: Any) -> None:
        self._watchers = watchers
        super().__init__(**named)

    def _build_database(self) -> DatabaseManager:
        database = super()._build_database()
        if self._watchers is not None:
            database.__class__ = WatchedDatabase
            assert isinstance(database, WatchedDatabase)
            database.reads, database.changes = self._watchers
        return database
