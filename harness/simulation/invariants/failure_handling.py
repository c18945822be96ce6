"""Watchers of why the cluster does something, fed like those of `watch` with every event.

- Restart actions: what shall stay Failed is not restarted, and what may not move moves nothing.
- Failovers: each move for a failure counts as one, and nothing else does; a move after a node's death does not.
- Drains: one is told Completed only by a node that owns nothing any more.
- Stops by hand: a VM that somebody stopped, while nothing else was wrong, is not started again.
- Starts by hand: a VM that somebody started on its owner, while nothing else was wrong, is not ended again.
- Pauses: what runs on a Paused node stays there, unless the node is drained.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.database.register import Stored
from harness.model import labels as label
from harness.model.host_messages import EntryPoint, HostRequest
from harness.model.records import ClusterRecord, GroupRecord, MoveCause
from harness.model.register_keys import group_key
from harness.model.session import Session
from harness.model.states import DrainState
from harness.model.topology import SECOND_US, RestartAction, ShutdownAction, Topology
from harness.simulation.invariants.starts import AtMostOneInstance, ChosenValueOracle, GroupRegisterMonitor
from harness.simulation.twins.container import SimulatedContainer
from harness.simulation.world.fault_kinds import FaultKind, Planned

__all__ = [
    "RECOVERED_US",
    "DisturbanceTracker",
    "DrainedOwnsNothing",
    "FailuresCount",
    "RestartActions",
    "RunningStays",
    "StartsAreWishes",
    "StopsAreWishes",
]

RECOVERED_US = 6 * SECOND_US
"""After trouble is over, by when nothing of it is left; half of it after a start, by when the cluster knows of that."""


class RestartActions(GroupRegisterMonitor):
    """Hook `chose` to the chosen values."""

    def __init__(self, *, told: Callable[[str], None]) -> None:
        self._told = told

    def changed(self, key: str, before: GroupRecord, after: GroupRecord) -> None:
        """A group's register has a newer content."""
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
        self, *, chosen: ChosenValueOracle, seen_us: int, now: Callable[[], int], told: Callable[[str], None]
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
                record = self._chosen.newest(group_key(name))
                owned = isinstance(record, GroupRecord) and record.owner == entry.session
                known_us = self._chosen.proposed_us - self._owned_us.get(group_key(name), 0)
                if owned and known_us > self._seen_us:
                    self._told(f"register {key}: the drain of {entry.name} is Completed, and it owns {name}")


class DisturbanceTracker:
    """Hook `struck` to the faults and `lapsed` to the ends of leases. `on_trouble` hears what is befallen: a node, a
    VM or a group; empty for everything. That clocks drift, and have done so all the time, is none; nor is a fault
    of a kind that is `meant`.
    """

    def __init__(self, *, now: Callable[[], int], meant: FaultKind | None = None) -> None:
        self.on_trouble: list[Callable[[str], None]] = []
        self._now = now
        self._none = (FaultKind.CLOCK_DRIFT, meant)
        self._until_us: dict[str, int] = {}

    def struck(self, fault: Planned) -> None:
        """A fault strikes."""
        if fault.kind not in self._none:
            _, _, group = fault.target.partition("/")
            befallen = group if fault.kind is FaultKind.COMMAND else fault.target
            self._trouble(befallen, fault.at_us + 3 * fault.duration_us)

    def lapsed(self, node: str) -> None:
        """The lease of that node has ended, and it learns everything afresh."""
        self._trouble(node, self._now())

    def _trouble(self, befallen: str, until_us: int) -> None:
        self._until_us[befallen] = max(self._until_us.get(befallen, 0), until_us + RECOVERED_US)
        for told in self.on_trouble:
            told(befallen)

    def spares(self, *names: str) -> bool:
        """Whether nothing is left of what has befallen those nodes, VMs and groups."""
        return all(self._until_us.get(name, 0) <= self._now() for name in ("", *names))


@dataclass(frozen=True, slots=True)
class _Act:
    """Something that was done to a VM by hand, where, and under which epoch of its group."""

    at_us: int
    node: str
    epoch: int


class _ByHand:
    """What was done by hand while nothing else was wrong, until something else befalls the VM, its group or its
    node.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        instances: AtMostOneInstance,
        chosen: ChosenValueOracle,
        troubles: DisturbanceTracker,
        now: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._instances = instances
        self._chosen = chosen
        self._troubles = troubles
        self._now = now
        self._told = told
        self._acts: dict[str, _Act] = {}
        self._group_of = {spec.name: group.name for group in topology.groups for spec in group.resources}
        troubles.on_trouble.append(self._troubled)

    def _troubled(self, befallen: str) -> None:
        for vm, act in list(self._acts.items()):
            if befallen in ("", vm, act.node, self._group_of[vm]):
                del self._acts[vm]


class StopsAreWishes(_ByHand):
    """Hook `by_hand` to the engine, `struck` to the faults before the `troubles` are, `chose` to the chosen values and
    `ordered` to every node's way to its engine.

    A stop is certainly seen, and certainly a wish, when the VM has run for a while under an owner that holds its
    lease all the time, and nothing else befalls the VM, its group or its node from well before the stop on.
    """

    def __init__(self, topology: Topology, **named: Any) -> None:
        super().__init__(topology, **named)
        self._stops_now: dict[str, int] = {}
        self._failures = {
            spec.name
            for group in topology.groups
            for spec in group.resources
            if spec.policy.shutdown_action is ShutdownAction.FAIL
        }

    def struck(self, fault: Planned) -> None:
        """A fault strikes."""
        if fault.kind is FaultKind.VM_STOP_BY_HAND and self._troubles.spares(fault.target):
            self._stops_now[fault.target] = fault.at_us

    def by_hand(self, vm: str, wanted: bool) -> None:
        """Somebody is about to start or stop it past the cluster."""
        self._acts.pop(vm, None)
        now_us, running = self._now(), self._instances.running(vm)
        if wanted or vm in self._failures or len(running) != 1 or self._stops_now.get(vm) != now_us:
            return
        box, group = running[0], self._group_of[vm]
        record = self._chosen.newest(group_key(group))
        if not isinstance(record, GroupRecord) or record.move is not None or not record.persistent.get(vm, False):
            return
        known = box.labels.get(label.SESSION) == str(record.owner) and now_us - box.started_us > RECOVERED_US // 2
        if known and self._troubles.spares(box.node, group):
            self._acts[vm] = _Act(now_us, box.node, record.epoch)

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        del key, older
        record = newer.record
        if self._acts and isinstance(record, GroupRecord):
            for name, wanted in record.persistent.items():
                if not wanted:
                    self._acts.pop(name, None)

    def ordered(self, box: SimulatedContainer, now_us: int) -> None:
        """Somebody orders that container to start."""
        stop = self._acts.pop(box.vm, None)
        record = self._chosen.newest(group_key(box.labels.get(label.GROUP, ""))) if stop is not None else None
        if stop is None or not isinstance(record, GroupRecord):
            return
        if (stop.node, stop.epoch) == (box.node, record.epoch):
            what, after_s = f"VM {box.vm} is ordered to start on {box.node}", (now_us - stop.at_us) / 1e6
            self._told(f"{what} {after_s:.6f} s after somebody stopped it there")


class StartsAreWishes(_ByHand):
    """Hook `started` to the engine, `chose` to the chosen values and `asked` to every node's calls of its resource
    host; once `disturbed` nothing more is said here. To the `troubles` a start by hand is none.

    A start is certainly seen, and certainly a wish, when it is of a container of the owner of now, of a VM that is
    not wanted and of which that node has asked nothing for a while, and nothing else befalls the VM, its group or
    its node from well before the start on.
    """

    def __init__(self, topology: Topology, **named: Any) -> None:
        super().__init__(topology, **named)
        self._asked_us: dict[tuple[str, str], int] = {}
        self._disturbed = False

    def disturbed(self) -> None:
        """Something else happens."""
        self._disturbed = True
        self._acts.clear()

    def started(self, box: SimulatedContainer, at_us: int) -> None:
        """A container's main process runs."""
        vm = box.vm
        if box.id not in self._instances.foreign or self._disturbed:
            return
        self._acts.pop(vm, None)
        group = self._group_of[vm]
        record = self._chosen.newest(group_key(group))
        if not isinstance(record, GroupRecord) or record.move is not None or record.persistent.get(vm, False):
            return
        asked_us = self._asked_us.get((box.node, vm), at_us)
        known = box.labels.get(label.SESSION) == str(record.owner) and at_us - asked_us > RECOVERED_US // 2
        if known and self._troubles.spares(box.node, vm, group):
            self._acts[vm] = _Act(at_us, box.node, record.epoch)

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content. What a group's says may be why the VM is ended."""
        del key, older
        record = newer.record
        if self._acts and isinstance(record, GroupRecord):
            for spec in record.spec.resources:
                self._acts.pop(spec.name, None)

    def asked(self, node: str, request: HostRequest) -> None:
        """A service asks something of its resource host."""
        vm, now_us = request.resource, self._now()
        self._asked_us[node, vm] = now_us
        start = self._acts.pop(vm, None)
        ends = request.entry_point in (EntryPoint.OFFLINE, EntryPoint.TERMINATE)
        if start is not None and ends and (start.node, start.epoch) == (node, request.epoch):
            after_s = (now_us - start.at_us) / 1e6
            self._told(f"VM {vm} is ended on {node} {after_s:.6f} s after somebody started it there")


class RunningStays(GroupRegisterMonitor):
    """Hook `chose` to the chosen values; once `disturbed` nothing more is said here."""

    def __init__(
        self,
        *,
        instances: AtMostOneInstance,
        troubles: DisturbanceTracker,
        now: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._instances = instances
        self._troubles = troubles
        self._now = now
        self._told = told
        self._calm = True

    def disturbed(self) -> None:
        """Something happens that is no fault of a schedule."""
        self._calm = False

    def changed(self, key: str, before: GroupRecord, after: GroupRecord) -> None:
        """A group's register has a newer content."""
        moves = before.move is None and after.move is not None and after.move.cause is MoveCause.PAUSED
        if not moves or before.owner is None or not self._calm:
            return
        vms = [spec.name for spec in before.spec.resources if spec.type == "virtual-machine"]
        wanted = [name for name in vms if before.persistent.get(name, False)]
        runs = bool(wanted) and all(self._runs(name, before.owner) for name in wanted)
        if runs and self._troubles.spares(before.owner.node, before.spec.name, *vms):
            what = " and ".join(wanted)
            self._told(f"register {key}: leaves {before.owner.node}, which is Paused, although {what} runs there")

    def _runs(self, vm: str, owner: Session) -> bool:
        return any(
            box.labels.get(label.SESSION) == str(owner) and self._now() - box.started_us > RECOVERED_US
            for box in self._instances.running(vm)
        )
