"""Watchers of what nodes ask of their resource hosts and of the answers, fed like those of `watch` with every event.

- Deadlocks: an entry point that does not return within the deadlock-timeout is not waited for.
- Urgency: of the VMs that could be started on a node, those of the more urgent groups go first.
- Starts at once: no more VMs are being started on a node than its engine gains by.
- Restarts: what has failed and is restarted is terminated before it is brought Online.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from harness.cluster_service.placement.ranking import urgency
from harness.cluster_service.resources.resource_control import START_PLACE_US, STARTS_AT_ONCE
from harness.model.host_messages import EntryPoint, HostReport, HostRequest
from harness.model.records import GroupRecord
from harness.model.register_keys import group_key
from harness.model.states import ResourceState
from harness.model.topology import SECOND_US, GroupSpec, ResourceSpec, Topology
from harness.simulation.invariants.starts import ChosenValueOracle, GroupRegisterMonitor
from harness.simulation.world.fault_kinds import FaultKind, Planned

__all__ = ["STOPPED_TIMES", "EntryPointsReturn", "OfStandstills", "StartsAtOnce", "TerminatedFirst", "UrgentFirst"]

ON_THE_WAY_US = SECOND_US // 10
"""From a resource host to its service and back, and what the service makes of it."""
STOPPED_TIMES = 4
"""The length of such a fault, and then some."""

_ONE_CALL = (EntryPoint.OPEN, EntryPoint.CLOSE, EntryPoint.TERMINATE)
"""What a resource host does with one call of a driver; the others may terminate afterwards."""


@dataclass(slots=True)
class _Asked:
    host: object
    at_us: int
    first: bool
    request: HostRequest


class OfStandstills:
    """A watcher that says nothing of what stands still. Hook `struck` to the faults: a fault that `STOPS` something has
    done so until `stopped_until_us` at the latest, and nothing of it is left `LEFT_US` later.
    """

    STOPS: ClassVar[frozenset[FaultKind]] = frozenset({FaultKind.FREEZE, FaultKind.PAUSE, FaultKind.HOST_HANG})
    LEFT_US: ClassVar[int] = 0
    stopped_until_us = -1

    def struck(self, fault: Planned) -> None:
        """A fault strikes."""
        if fault.kind in self.STOPS:
            until_us = fault.at_us + STOPPED_TIMES * fault.duration_us + self.LEFT_US
            self.stopped_until_us = max(self.stopped_until_us, until_us)


class EntryPointsReturn(OfStandstills):
    """Hook `asked` to every node's calls of its resource host, `answered` to the reports, and `struck` to the faults;
    once `disturbed` otherwise nothing more is said here: how long a host stands still then nobody tells. `host_of`
    tells what is the same as long as a node's resource host is, None while there is none.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        host_of: Callable[[str], object | None],
        now: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._host_of = host_of
        self._now = now
        self._told = told
        self._limits_us = {
            resource.name: resource.policy.deadlock_timeout_us
            for group in topology.groups
            for resource in group.resources
        }
        self._asked: dict[tuple[str, str], dict[int, _Asked]] = {}

    def disturbed(self) -> None:
        """Something else happens."""
        self._limits_us.clear()

    def asked(self, node: str, request: HostRequest) -> None:
        """A service asks something of its resource host."""
        if not self._limits_us:
            return
        host = self._host_of(node)
        waiting = self._asked.setdefault((node, request.resource), {})
        for number in [number for number, asked in waiting.items() if asked.host != host]:
            del waiting[number]
        if host is not None:
            waiting[request.number] = _Asked(host, self._now(), not waiting, request)

    def answered(self, node: str, report: HostReport) -> None:
        """A resource host says something."""
        waiting = self._asked.get((node, report.resource))
        if report.number is None or not waiting or not self._limits_us:
            return
        asked = waiting.pop(report.number, None)
        if asked is None or asked.host != self._host_of(node) or asked.request.entry_point not in _ONE_CALL:
            return
        limit_us, took_us = self._limits_us[report.resource], self._now() - asked.at_us
        undisturbed = asked.first and asked.at_us > self.stopped_until_us
        if undisturbed and took_us > limit_us + limit_us // 50 + SECOND_US // 2:
            self._told(
                f"{asked.request.entry_point} of {report.resource} on {node} took {took_us / 1e6:.6f} s:"
                f" its deadlock-timeout is {limit_us / 1e6:g} s"
            )


@dataclass(slots=True)
class _Life:
    """What one owner has asked for and heard of a resource, under one epoch."""

    opened_us: int | None = None
    online_us: int | None = None
    started: bool = False


@dataclass(slots=True)
class _Urgent:
    spec: GroupSpec
    vms: list[ResourceSpec] = field(default_factory=list)


class UrgentFirst:
    """Hook `asked` to every node's calls of its resource host, `answered` to the reports, `struck` to the faults and
    `disturbed` to what else happens: from the first of these on, what could have been started is no longer said here.
    """

    def __init__(
        self, topology: Topology, *, chosen: ChosenValueOracle, now: Callable[[], int], told: Callable[[str], None]
    ) -> None:
        self._chosen = chosen
        self._now = now
        self._told = told
        self._urgency = {group.name: urgency(group) for group in topology.groups}
        self._groups = [
            _Urgent(group, [spec for spec in group.resources if spec.type == "virtual-machine"])
            for group in topology.groups
        ]
        self._vms = {spec.name for group in self._groups for spec in group.vms}
        self._calm = len(set(self._urgency.values())) > 1
        self._asked: dict[tuple[str, int], HostRequest] = {}
        self._lives: dict[tuple[str, str, int], _Life] = {}

    def struck(self, fault: Planned) -> None:
        """A fault strikes."""
        self._calm &= fault.kind is FaultKind.CLOCK_DRIFT

    def disturbed(self) -> None:
        """Something else happens."""
        self._calm = False

    def asked(self, node: str, request: HostRequest) -> None:
        """A service asks something of its resource host."""
        if not self._calm:
            return
        if request.entry_point is EntryPoint.ONLINE and request.resource in self._vms:
            for vm in self._passed_over(node, request):
                self._told(f"{request.resource} is started on {node} before {vm}, whose group is more urgent")
                break
        if request.entry_point in (EntryPoint.OPEN, EntryPoint.ONLINE):
            self._asked[node, request.number] = request
            life = self._lives.setdefault((node, request.resource, request.epoch), _Life())
            life.started |= request.entry_point is EntryPoint.ONLINE

    def answered(self, node: str, report: HostReport) -> None:
        """A resource host says something."""
        request = self._asked.pop((node, report.number), None) if self._calm and report.number is not None else None
        if request is None or report.error is not None:
            return
        life = self._lives[node, request.resource, request.epoch]
        if request.entry_point is EntryPoint.OPEN:
            life.opened_us = self._now()
        else:
            life.online_us = self._now()

    def _passed_over(self, node: str, request: HostRequest) -> Iterator[str]:
        for group in self._groups:
            if self._urgency[group.spec.name] >= self._urgency[request.group]:
                continue
            record = self._chosen.newest(group_key(group.spec.name))
            if isinstance(record, GroupRecord) and record.owner == request.session and record.move is None:
                yield from (spec.name for spec in group.vms if self._waits(node, record, spec))

    def _waits(self, node: str, record: GroupRecord, spec: ResourceSpec) -> bool:
        """Whether that VM could have been started for a while."""
        life = self._lives.get((node, spec.name, record.epoch))
        if life is None or life.started or life.opened_us is None or not record.persistent.get(spec.name, False):
            return False
        due_us = [life.opened_us]
        for names in spec.depends_on:
            lives = [self._lives.get((node, name, record.epoch)) for name in names]
            times = [one.online_us for one in lives if one is not None and one.online_us is not None]
            if not times:
                return False
            due_us.append(min(times))
        return self._now() - max(due_us) > ON_THE_WAY_US


@dataclass(slots=True)
class _Starts:
    """What one life of a service has asked of one life of a resource host, and when."""

    life: object
    asked_us: dict[int, int] = field(default_factory=dict)


class StartsAtOnce:
    """Hook `asked` to every node's calls of its resource host, `answered` to the reports and `lapsed` to the ends of
    leases. `life_of` tells what is the same as long as a node's service and its resource host are, None while there is
    no host; `now` what the clock of a node says.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        life_of: Callable[[str], object | None],
        now: Callable[[str], int],
        told: Callable[[str], None],
    ) -> None:
        self._life_of = life_of
        self._now = now
        self._told = told
        self._vms = {
            spec.name for group in topology.groups for spec in group.resources if spec.type == "virtual-machine"
        }
        self._starts: dict[str, _Starts] = {}

    def asked(self, node: str, request: HostRequest) -> None:
        """A service asks something of its resource host."""
        if request.entry_point is not EntryPoint.ONLINE or request.resource not in self._vms:
            return
        life, now_us = self._life_of(node), self._now(node)
        starts = self._starts.get(node)
        if starts is None or starts.life != life:
            starts = self._starts[node] = _Starts(life)
        if life is None:
            return
        if len(starts.asked_us) >= STARTS_AT_ONCE:
            # One that takes long holds up no others.
            starts.asked_us = {
                number: asked_us for number, asked_us in starts.asked_us.items() if now_us < asked_us + START_PLACE_US
            }
        starts.asked_us[request.number] = now_us
        if len(starts.asked_us) > STARTS_AT_ONCE:
            at_once = f"{len(starts.asked_us)} VMs at once"
            self._told(f"{node} starts {at_once}, {request.resource} the last: no more than {STARTS_AT_ONCE} shall be")

    def answered(self, node: str, report: HostReport) -> None:
        """A resource host says something."""
        starts = self._starts.get(node)
        if starts is not None and report.number is not None:
            starts.asked_us.pop(report.number, None)

    def lapsed(self, node: str) -> None:
        """The lease of that node has ended, and it learns everything afresh."""
        self._starts.pop(node, None)


class TerminatedFirst(GroupRegisterMonitor):
    """Hook `chose` to the chosen values, `asked` to every node's calls of its resource host and `answered` to the
    reports.

    That a service knows of a failure is certain when a restart for it is recorded while the resource is Failed.
    """

    def __init__(self, *, told: Callable[[str], None]) -> None:
        self._told = told
        self._failed: set[tuple[str, str]] = set()
        self._to_restart: set[tuple[str, str]] = set()

    def changed(self, key: str, before: GroupRecord, after: GroupRecord) -> None:
        """A group's register has a newer content."""
        del key
        if before.restarts != after.restarts:
            made = {(one.session.node, one.resource) for one in after.restarts if one not in before.restarts}
            self._to_restart |= made & self._failed

    def asked(self, node: str, request: HostRequest) -> None:
        """A service asks something of its resource host."""
        about = node, request.resource
        if request.entry_point is not EntryPoint.ONLINE:
            self._failed.discard(about)
            self._to_restart.discard(about)
        elif about in self._to_restart:
            self._told(f"{request.resource} is Failed on {node}, and is brought Online without being terminated")

    def answered(self, node: str, report: HostReport) -> None:
        """A resource host says something."""
        about = node, report.resource
        if report.state is ResourceState.FAILED:
            self._failed.add(about)
        else:
            self._failed.discard(about)
            self._to_restart.discard(about)
