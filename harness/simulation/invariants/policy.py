"""Watchers of what the cluster decides, fed like those of `watch` with every event.

- Wishes: a PersistentState changes only to what somebody asked for, by request or by hand.
- Thresholds: no more restarts in place within the restart-period than the policy allows, no move for a failure before
  they are used up, no more moves for failures within the failover-period than the group allows.
- Fences: only of a session that is recorded Down, and only by a session whose lease is live in truth.
- Places: a group goes to a possible owner only, and to no Paused node while another could take it.
- Delays: a second restart in a row waits as long as the policy says.
- Ends: nothing that a VM depends on goes while the VM runs there.
"""

from collections.abc import Callable

from harness.model import labels as label
from harness.model.host_messages import EntryPoint, HostRequest
from harness.model.records import ClusterRecord, GroupRecord, MoveCause, Restart
from harness.model.register_keys import CLUSTER_KEY, group_key
from harness.model.session import Session
from harness.model.topology import ResourceSpec, Topology
from harness.simulation.invariants.starts import AtMostOneInstance, ChosenValueOracle, GroupRegisterMonitor, PausedNodes
from harness.simulation.twins.container import SimulatedContainer

__all__ = [
    "DependentsGoneFirst",
    "OnlyRequestedStateChanges",
    "OnlyTheDownAreFenced",
    "PlacedWhereItMayRun",
    "RestartDelays",
    "Thresholds",
]

DECIDED_US = 8_000_000
"""From a failure, by which restarts are counted, to the record of what followed, while the voters are slow."""


class OnlyRequestedStateChanges(GroupRegisterMonitor):
    """Hook `chose` to the chosen values. `may_be_wanted` tells what the requests so far can have left."""

    def __init__(self, *, may_be_wanted: Callable[[str], set[bool]], told: Callable[[str], None]) -> None:
        self._may_be_wanted = may_be_wanted
        self._told = told

    def changed(self, key: str, before: GroupRecord, after: GroupRecord) -> None:
        """A group's register has a newer content."""
        if before.persistent == after.persistent:
            return
        for resource in after.spec.resources:
            wanted = after.persistent.get(resource.name)
            changed = wanted is not None and wanted != before.persistent.get(resource.name)
            if changed and resource.type == "virtual-machine" and wanted not in self._may_be_wanted(resource.name):
                self._told(f"register {key}: PersistentState of {resource.name} became {wanted:d}, and nobody asked")


class Thresholds(GroupRegisterMonitor):
    """Hook `chose` to the chosen values, and `stays_failed` to what nodes tell of a group that has been moved too often
    for one more move.
    """

    def __init__(
        self, topology: Topology, *, chosen: ChosenValueOracle, one_clock: bool, told: Callable[[str], None]
    ) -> None:
        """`one_clock`: every node reads the same time, so that the times of several owners can be compared."""
        self._nodes = len(topology.nodes)
        self._chosen = chosen
        self._one_clock = one_clock
        self._told = told

    def changed(self, key: str, before: GroupRecord, after: GroupRecord) -> None:
        """A group's register has a newer content."""
        if before.restarts != after.restarts:
            self._look_at_restarts(key, before, after)
        if after.move is not None and before.move is None and len(after.failovers) > len(before.failovers):
            self._look_at_move(key, before, after)

    def _look_at_restarts(self, key: str, before: GroupRecord, after: GroupRecord) -> None:
        for entry in after.restarts:
            spec = _spec(after, entry.resource)
            if entry in before.restarts or spec is None:
                continue
            made, allowed = _within_period(after, spec, entry.session, entry.at_us), spec.policy.restart_threshold
            if len(made) > allowed:
                self._told(f"register {key}: restart {len(made)} of {spec.name}, {allowed} are allowed in its period")

    def _look_at_move(self, key: str, before: GroupRecord, after: GroupRecord) -> None:
        assert after.move is not None
        decided_us = after.failovers[-1]
        if before.owner is not None and after.move.cause is MoveCause.FAILURE:
            failed = [spec for spec in after.spec.resources if after.move.reason.startswith(f"{spec.name} failed")]
            for spec in failed:
                made = _within_period(before, spec, before.owner, decided_us, slack_us=DECIDED_US)
                if len(made) < spec.policy.restart_threshold:
                    allowed = spec.policy.restart_threshold
                    self._told(f"register {key}: moved for {spec.name} after {len(made)} restarts of {allowed}")
        failovers, allowed = self._failovers(after, decided_us)
        if self._one_clock and failovers > allowed:
            self._told(f"register {key}: failover {failovers}, {allowed} are allowed in its period")

    def stays_failed(self, group: str, now_us: int) -> None:
        """By a node's clock."""
        record = self._chosen.newest(group_key(group))
        if not self._one_clock or not isinstance(record, GroupRecord):
            return
        made, allowed = self._failovers(record, now_us, slack_us=DECIDED_US)
        if made < allowed:
            told = f"stays Failed after {made} failovers, {allowed} are allowed in its period"
            self._told(f"register group/{group}: {told}")

    def _failovers(self, record: GroupRecord, at_us: int, slack_us: int = 0) -> tuple[int, int]:
        """Of the period before: how many were made, and how many are allowed."""
        spec, allowed = record.spec, record.spec.failover_threshold
        made = sum(0 <= at_us - failed_us <= spec.failover_period_us + slack_us for failed_us in record.failovers)
        return made, allowed if allowed is not None else self._nodes - 1


def _spec(record: GroupRecord, name: str) -> ResourceSpec | None:
    return next((spec for spec in record.spec.resources if spec.name == name), None)


def _within_period(
    record: GroupRecord, spec: ResourceSpec, session: Session, at_us: int, slack_us: int = 0
) -> list[Restart]:
    return [
        entry
        for entry in record.restarts
        if entry.resource == spec.name
        and entry.session == session
        and 0 <= at_us - entry.at_us <= spec.policy.restart_period_us + slack_us
    ]


class PlacedWhereItMayRun(GroupRegisterMonitor):
    """Hook `chose` to the chosen values."""

    def __init__(self, *, chosen: ChosenValueOracle, paused: PausedNodes, told: Callable[[str], None]) -> None:
        self._chosen = chosen
        self._paused = paused
        self._told = told

    def changed(self, key: str, before: GroupRecord, after: GroupRecord) -> None:
        """A group's register has a newer content."""
        if after.owner is None:
            return
        possible = after.spec.possible_owners
        if before.owner != after.owner and possible and after.owner.node not in possible:
            self._told(f"register {key}: placed on {after.owner.node}, and possible are {' and '.join(possible)}")
        known_us = self._paused.known_for_us(after.owner.node, at_us=self._chosen.proposed_us)
        if before.owner != after.owner and known_us:
            self._look_for_another(key, after)

    def _look_for_another(self, key: str, record: GroupRecord) -> None:
        cluster = self._chosen.newest(CLUSTER_KEY)
        assert isinstance(cluster, ClusterRecord)
        assert record.owner is not None
        possible = record.spec.possible_owners
        able = [entry.name for entry in cluster.up_nodes() if not entry.paused]
        others = [name for name in able if not possible or name in possible]
        if others:
            there = " or ".join(others)
            self._told(f"register {key}: placed on {record.owner.node}, which is Paused, and not on {there}")


class RestartDelays(GroupRegisterMonitor):
    """Hook `chose` to the chosen values, `ended` to the engine's ends, `lapsed` to the ends of leases and `ordered` to
    every node's way to its engine.

    A start is a restart when its VM ended on that node under the owner of now, and a restart was recorded since.
    A node whose lease has lapsed begins anew: what has failed before is started, and not restarted.
    """

    SLOWEST = 0.98
    """What a clock may make of a delay."""

    def __init__(
        self,
        topology: Topology,
        *,
        chosen: ChosenValueOracle,
        now: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._chosen = chosen
        self._now = now
        self._told = told
        self._delays_us = {
            resource.name: resource.policy.restart_delay_us
            for group in topology.groups
            for resource in group.resources
            if resource.policy.restart_delay_us
        }
        self._ended: dict[str, tuple[int, str, int]] = {}
        self._recorded_us: dict[str, int] = {}

    def changed(self, key: str, before: GroupRecord, after: GroupRecord) -> None:
        """A group's register has a newer content."""
        del key
        if before.restarts != after.restarts:
            for entry in after.restarts:
                if entry not in before.restarts:
                    self._recorded_us[entry.resource] = self._now()

    def ended(self, box: SimulatedContainer, at_us: int) -> None:
        """A container's main process is gone."""
        if box.vm in self._delays_us:
            record = self._record_of(box)
            self._ended[box.vm] = at_us, box.node, record.epoch if record is not None else -1

    def lapsed(self, node: str) -> None:
        """The lease of that node has ended, and it learns everything afresh."""
        self._ended = {vm: end for vm, end in self._ended.items() if end[1] != node}

    def ordered(self, box: SimulatedContainer, now_us: int) -> None:
        """Somebody orders that container to start."""
        delay_us = self._delays_us.get(box.vm)
        record = self._record_of(box) if delay_us is not None else None
        if delay_us is None or record is None:
            return
        ended_us, node, epoch = self._ended.get(box.vm, (-1, "", -1))
        session = box.labels.get(label.SESSION)
        used = [one for one in record.restarts if one.resource == box.vm and str(one.session) == session]
        again = (node, epoch) == (box.node, record.epoch) and self._recorded_us.get(box.vm, -1) >= ended_us
        if again and len(used) > 1 and now_us - ended_us < delay_us * self.SLOWEST:
            waited_s = (now_us - ended_us) / 1e6
            self._told(
                f"VM {box.vm} is ordered to start on {box.node} {waited_s:.6f} s after its end, "
                f"as restart {len(used)}: its restart-delay is {delay_us / 1e6:g} s"
            )

    def _record_of(self, box: SimulatedContainer) -> GroupRecord | None:
        record = self._chosen.newest(group_key(box.labels.get(label.GROUP, "")))
        return record if isinstance(record, GroupRecord) else None


class OnlyTheDownAreFenced:
    """Hook `ordered` to every node."""

    def __init__(self, *, chosen: ChosenValueOracle, told: Callable[[str], None]) -> None:
        self._chosen = chosen
        self._told = told

    def ordered(self, by: Session, whom: Session) -> None:
        """A node sets out to fence a session."""
        cluster = self._chosen.newest(CLUSTER_KEY)
        if isinstance(cluster, ClusterRecord) and cluster.is_up(whom):
            self._told(f"{by} fences {whom}, which is recorded Up")


class DependentsGoneFirst:
    """Hook `ordered` to every node. What has failed is ended at once, whatever depends on it: that is not looked at."""

    def __init__(self, topology: Topology, *, instances: AtMostOneInstance, told: Callable[[str], None]) -> None:
        self._instances = instances
        self._told = told
        self._vms: dict[str, list[str]] = {}
        for group in topology.groups:
            for spec in group.resources:
                for provider in _only_providers(spec):
                    self._vms.setdefault(provider, []).append(spec.name)

    def ordered(self, node: str, request: HostRequest) -> None:
        """A node's service asks its resource host for something."""
        if request.entry_point not in (EntryPoint.OFFLINE, EntryPoint.CLOSE):
            return
        for vm in self._vms.get(request.resource, ()):
            if any(box.node == node for box in self._instances.running(vm)):
                self._told(f"{request.resource} is ended on {node} while VM {vm} runs there")


def _only_providers(spec: ResourceSpec) -> list[str]:
    """What a VM depends on without an alternative."""
    return [names[0] for names in spec.depends_on if len(names) == 1] if spec.type == "virtual-machine" else []
