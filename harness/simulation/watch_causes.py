"""Watchers of why the cluster does something, fed like those of `watch` with every event.

- Restart actions: what shall stay Failed is not restarted, and what may not move moves nothing.
- Failovers: each move for a failure counts as one, and nothing else does; a move after a node's death does not.
- Drains: one is told Completed only by a node that owns nothing any more.
- Stops by hand: a machine that somebody stopped, while nothing else was wrong, is not started again.
"""

from collections.abc import Callable
from dataclasses import dataclass

from harness.database.register import Stored
from harness.model import labels as label
from harness.model.records import ClusterRecord, GroupRecord, MoveCause
from harness.model.states import DrainState
from harness.model.topology import SECOND_US, RestartAction, ShutdownAction, Topology
from harness.simulation.container import SimulatedContainer
from harness.simulation.fault_kinds import FaultKind, Planned
from harness.simulation.watch import ChosenValues, OneInstance

__all__ = ["DrainedOwnsNothing", "FailuresCount", "RestartActions", "StopsAreWishes"]

RECOVERED_US = 6 * SECOND_US
"""After trouble is over, by when nothing of it is left; half of it after a start, by when the cluster knows of that."""


class RestartActions:
    """Hook `chose` to the chosen values."""

    def __init__(self, *, told: Callable[[str], None]) -> None:
        self._told = told

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        before, after = older.record, newer.record
        if not isinstance(before, GroupRecord) or not isinstance(after, GroupRecord):
            return
        if before.restarts != after.restarts:
            made = [entry.resource for entry in after.restarts if entry not in before.restarts]
            for spec in after.spec.resources:
                if spec.name in made and spec.policy.restart_action is RestartAction.NONE:
                    self._told(f"register {key}: {spec.name} is restarted, and its restart-action is none")
        if before.move is None and after.move is not None and after.move.cause is MoveCause.FAILURE:
            for spec in after.spec.resources:
                action = spec.policy.restart_action
                failed = after.move.reason.startswith(f"{spec.name} ")
                if failed and action is not RestartAction.RESTART_THEN_FAILOVER:
                    self._told(f"register {key}: moved for {spec.name}, and its restart-action is {action}")


class FailuresCount:
    """Hook `chose` to the chosen values."""

    def __init__(self, *, told: Callable[[str], None]) -> None:
        self._told = told

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        before, after = older.record, newer.record
        if not isinstance(before, GroupRecord) or not isinstance(after, GroupRecord):
            return
        if newer.version != older.version + 1:
            return  # two changes at once, of which each may have counted
        failed = before.move is None and after.move is not None and after.move.cause is MoveCause.FAILURE
        counted = after.failovers != before.failovers
        if counted and not failed:
            what = f"{before.owner} became {after.owner}" if before.owner != after.owner else "it stays where it is"
            self._told(f"register {key}: a failover is counted although nothing has failed: {what}")
        elif failed and not counted:
            self._told(f"register {key}: a move for a failure is not counted as a failover")


class DrainedOwnsNothing:
    """Hook `chose` to the chosen values. `seen_us` after a change was chosen all know of it, or hold no lease."""

    def __init__(
        self, *, chosen: ChosenValues, seen_us: int, now: Callable[[], int], told: Callable[[str], None]
    ) -> None:
        self._chosen = chosen
        self._seen_us = seen_us
        self._now = now
        self._told = told
        self._owned_us: dict[str, int] = {}

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        before, after = older.record, newer.record
        if isinstance(before, GroupRecord) and isinstance(after, GroupRecord) and before.owner != after.owner:
            self._owned_us[key] = self._now()
        if not isinstance(before, ClusterRecord) or not isinstance(after, ClusterRecord):
            return
        for entry in after.nodes:
            old = before.node(entry.name)
            ended = old is not None and old.drain is DrainState.IN_PROGRESS and entry.drain is DrainState.COMPLETED
            for name in after.groups if ended else ():
                record = self._chosen.newest(f"group/{name}")
                owned = isinstance(record, GroupRecord) and record.owner == entry.session
                known_us = self._chosen.proposed_us - self._owned_us.get(f"group/{name}", 0)
                if owned and known_us > self._seen_us:
                    self._told(f"register {key}: the drain of {entry.name} is Completed, and it owns {name}")


@dataclass(frozen=True, slots=True)
class _Stop:
    at_us: int
    node: str
    epoch: int


class StopsAreWishes:
    """Hook `by_hand` to the engine, `struck` to the faults, `lapsed` to the ends of leases, `chose` to the chosen
    values and `ordered` to every node's way to its engine.

    A stop is certainly seen, and certainly a wish, when the machine has run for a while under an owner that holds its
    lease all the time, and nothing else befalls the machine, its group or its node from well before the stop on.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        instances: OneInstance,
        chosen: ChosenValues,
        now: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._instances = instances
        self._chosen = chosen
        self._now = now
        self._told = told
        self._stopped: dict[str, _Stop] = {}
        self._troubled_until_us: dict[str, int] = {}
        self._stops_now: dict[str, int] = {}
        self._group_of = {spec.name: group.name for group in topology.groups for spec in group.resources}
        self._failures = {
            spec.name
            for group in topology.groups
            for spec in group.resources
            if spec.policy.shutdown_action is ShutdownAction.FAIL
        }

    def struck(self, fault: Planned) -> None:
        """A fault strikes. That clocks drift, and have done so all the time, is none."""
        if fault.kind is FaultKind.CLOCK_DRIFT:
            return
        if fault.kind is FaultKind.VM_STOP_BY_HAND and self._troubled_until_us.get(fault.target, 0) <= fault.at_us:
            self._stops_now[fault.target] = fault.at_us
        _, _, group = fault.target.partition("/")
        befallen = group if fault.kind is FaultKind.COMMAND else fault.target
        self._trouble(befallen, fault.at_us + 3 * fault.duration_us)

    def lapsed(self, node: str) -> None:
        """The lease of that node has ended, and it learns everything afresh."""
        self._trouble(node, self._now())

    def _trouble(self, befallen: str, until_us: int) -> None:
        until_us = max(self._troubled_until_us.get(befallen, 0), until_us + RECOVERED_US)
        self._troubled_until_us[befallen] = until_us
        for machine, stop in list(self._stopped.items()):
            if befallen in ("", machine, stop.node, self._group_of[machine]):
                del self._stopped[machine]

    def by_hand(self, machine: str, wanted: bool) -> None:
        """Somebody is about to start or stop it past the cluster."""
        self._stopped.pop(machine, None)
        now_us, running = self._now(), self._instances.running(machine)
        if wanted or machine in self._failures or len(running) != 1 or self._stops_now.get(machine) != now_us:
            return
        box, group = running[0], self._group_of[machine]
        record = self._chosen.newest(f"group/{group}")
        if not isinstance(record, GroupRecord) or record.move is not None or not record.persistent.get(machine, False):
            return
        known = box.labels.get(label.SESSION) == str(record.owner) and now_us - box.started_us > RECOVERED_US // 2
        if known and all(self._troubled_until_us.get(name, 0) <= now_us for name in ("", box.node, group)):
            self._stopped[machine] = _Stop(now_us, box.node, record.epoch)

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        del key, older
        record = newer.record
        if self._stopped and isinstance(record, GroupRecord):
            for name, wanted in record.persistent.items():
                if not wanted:
                    self._stopped.pop(name, None)

    def ordered(self, box: SimulatedContainer, now_us: int) -> None:
        """Somebody orders that container to start."""
        stop = self._stopped.pop(box.machine, None)
        record = self._chosen.newest(f"group/{box.labels.get(label.GROUP)}") if stop is not None else None
        if stop is None or not isinstance(record, GroupRecord):
            return
        if (stop.node, stop.epoch) == (box.node, record.epoch):
            what, after_s = f"machine {box.machine} is ordered to start on {box.node}", (now_us - stop.at_us) / 1e6
            self._told(f"{what} {after_s:.6f} s after somebody stopped it there")
