"""A schedule of faults as an experiment, which runs in both arenas.

The faults strike in the background at their times after the first of them, where they are still possible; then
everything must be online and answering again. In the simulator that is another run than the schedule's own: a fault of
an experiment waits for its receipt, so the world draws other latencies. A seed fixes choices, not timing.

What an administrator asked for is asked of the cluster, which may refuse it; in the end everything is wanted again and
no node is Paused. Some faults of schedules have no counterpart that could be laid on real containers: a network that
loses messages, an engine that loses an answer. A schedule with one of them has no experiment.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import yaml

from chaos.experiment.schema import COMMANDS
from chaos.search.rig_generator import FAILOVERS_ENOUGH
from chaos.search.schedule_file import Schedule
from chaos.search.search import Search
from harness.document.duration import format_duration
from harness.model.topology import SECOND_US, Fencing, GroupSpec, RestartAction, Topology
from harness.simulation.faults.injection import AWAY_US, cut_links, pause_us
from harness.simulation.world.administrator import drawn_command
from harness.simulation.world.fault_kinds import FaultKind, Planned

__all__ = ["PORTABLE", "experiment_of", "portable", "portable_search", "without_counterpart"]

LEAD_US = SECOND_US
"""Before the first fault."""
CALM_US = 8 * SECOND_US
"""After the last step was begun: longer than any fault of a schedule lasts but a long absence."""
CRASH_AGAIN_US = 400_000

_Provider = Mapping[str, Any]
_Steps = Callable[[Planned, Topology], list[tuple[int, _Provider]]]
"""When, after the fault's own time, which actions of an experiment stand for it; none when nothing can."""


def _fault(fault: str, target: str, duration_us: int = 0, **more: Any) -> _Provider:
    lasting = {"duration": format_duration(duration_us)} if duration_us else {}
    return {"type": "fault", "fault": fault, "target": target, **lasting, **more}


def _once(fault: str) -> _Steps:
    return lambda planned, _rig: [(0, _fault(fault, planned.target))]


def _lasting(fault: str, times: int = 1) -> _Steps:
    return lambda planned, _rig: [(0, _fault(fault, planned.target, times * planned.duration_us))]


def _one_way(planned: Planned, _rig: Topology) -> list[tuple[int, _Provider]]:
    direction = "out" if planned.duration_us % 2 else "in"
    return [(0, _fault("node.isolate", planned.target, planned.duration_us, direction=direction))]


def _cut(planned: Planned, rig: Topology) -> list[tuple[int, _Provider]]:
    """Each pair at one of the two, which is a node: in a witness nothing can be laid."""
    nodes = [node.name for node in rig.nodes]
    peers: dict[str, list[str]] = {}
    for one, other in cut_links(planned, [spec.name for spec in rig.everybody]):
        if one in nodes and one not in peers.get(other, ()):
            peers.setdefault(one, []).append(other)
    cuts = [_fault("node.isolate", one, planned.duration_us, **{"from": others}) for one, others in peers.items()]
    return [(0, cut) for cut in cuts]


def _pause(planned: Planned, rig: Topology) -> list[tuple[int, _Provider]]:
    """On containers nobody can promise how long a pause lasts, so there is none under fencing `self`."""
    if rig.settings.fencing is Fencing.SELF:
        return []
    return [(0, _fault("node.hang", planned.target, pause_us(planned)))]


def _away(planned: Planned, _rig: Topology) -> list[tuple[int, _Provider]]:
    return [(0, _fault("node.power-off", planned.target, AWAY_US + planned.duration_us))]


def _crash_loop(planned: Planned, _rig: Topology) -> list[tuple[int, _Provider]]:
    crash = _fault("vm.crash", planned.target)
    return [(after_us, crash) for after_us in range(0, planned.duration_us, CRASH_AGAIN_US)]


def _command(planned: Planned, rig: Topology) -> list[tuple[int, _Provider]]:
    node, _, group = planned.target.partition("/")
    verb, arguments = drawn_command(planned.choice, rig, node, group)
    keys = {api_name: key for key, (api_name, _) in COMMANDS[verb].arguments.items()}
    named = {keys.get(api_name, api_name): value for api_name, value in arguments.items()}
    return [(0, {"type": "cluster", "action": verb, **named})]


_COUNTERPARTS: Mapping[FaultKind, _Steps] = {
    FaultKind.POWER_OFF: _lasting("node.power-off"),
    FaultKind.RESET: _once("node.reset"),
    FaultKind.FREEZE: _lasting("node.hang"),
    FaultKind.ISOLATE: _lasting("node.isolate"),
    FaultKind.ONE_WAY: _one_way,
    FaultKind.PARTIAL: _cut,
    FaultKind.BRIDGE: _cut,
    FaultKind.RING: _cut,
    FaultKind.SERVICE_KILL: _once("service.kill"),
    FaultKind.SERVICE_HANG: _lasting("service.hang"),
    FaultKind.HOST_KILL: _once("rhs.kill"),
    FaultKind.HOST_HANG: _lasting("rhs.hang", times=3),
    FaultKind.VMMS_KILL: _once("vmms.kill"),
    FaultKind.VMMS_HANG: _lasting("vmms.hang", times=3),
    FaultKind.VOTER_KILL: _once("voter.kill"),
    FaultKind.VOTER_HANG: _lasting("voter.hang"),
    FaultKind.VOTER_WIPE: _once("voter.wipe"),
    FaultKind.NODE_AWAY: _away,
    FaultKind.ENGINE_STALL: _lasting("engine.stall"),
    FaultKind.PAUSE: _pause,
    FaultKind.VM_KILL: _once("vm.kill"),
    FaultKind.VM_CRASH: _once("vm.crash"),
    FaultKind.VM_HANG: _lasting("vm.hang"),
    FaultKind.VM_CRASH_LOOP: _crash_loop,
    FaultKind.VM_STOP_BY_HAND: _once("vm.stop"),
    FaultKind.COMMAND: _command,
}
_MAY_LEAVE_UNWANTED = frozenset({FaultKind.VM_STOP_BY_HAND, FaultKind.COMMAND})


PORTABLE = tuple(_COUNTERPARTS)
"""The kinds that experiments have too, in some rig at least."""


def portable(schedule: Schedule) -> Schedule:
    """What of it experiments have in that rig."""
    return replace(schedule, faults=tuple(_kept(schedule)))


def _kept(schedule: Schedule) -> Iterator[Planned]:
    """The world of a schedule wipes no voter where that would take the majority for good. An experiment does what it
    says: so it wipes one, of voters that are all in the set.
    """
    rig = schedule.topology
    wipes = 0 if any(fault.kind is FaultKind.NODE_AWAY for fault in schedule.faults) else 1
    for fault in schedule.faults:
        if fault.kind is FaultKind.VOTER_WIPE:
            wipes -= 1
        if _steps(fault, rig) and (fault.kind is not FaultKind.VOTER_WIPE or wipes >= 0):
            yield fault


def portable_search(*, first_seed: int, jobs: int = 1, rig: Mapping[str, Any] | None = None) -> Search:
    """A search among what experiments have."""
    return Search(first_seed=first_seed, jobs=jobs, rig=rig, among=PORTABLE, of_it=portable)


def without_counterpart(schedule: Schedule) -> list[str]:
    """The kinds of its faults that no experiment has; none means that it has an experiment."""
    kept = list(_kept(schedule))
    return sorted({fault.kind.value for fault in schedule.faults if fault not in kept})


def _steps(fault: Planned, rig: Topology) -> list[tuple[int, _Provider]]:
    counterpart = _COUNTERPARTS.get(fault.kind)
    return counterpart(fault, rig) if counterpart is not None else []


def experiment_of(schedule: Schedule, *, title: str, description: str = "") -> str:
    """The experiment's file. The schedule must have a counterpart for each of its faults, and one fault at least."""
    rig = schedule.topology
    first_us, last_us = schedule.faults[0].at_us, schedule.faults[-1].at_us
    method = [
        _action(f"{number}: {fault.kind} {fault.target}", fault.at_us - first_us + LEAD_US + after_us, provider)
        for number, fault in enumerate(schedule.faults, start=1)
        for after_us, provider in _steps(fault, rig)
    ]
    calm_us = LEAD_US + last_us - first_us + CALM_US
    commanded = any(fault.kind in _MAY_LEAVE_UNWANTED for fault in schedule.faults)
    method += [_action(f"in the end: {what}", calm_us, provider) for what, provider in _put_back(rig, commanded)]
    method.append(
        {
            "type": "probe",
            "name": "the last fault has struck",
            "provider": {"type": "cluster", "probe": "nodes-up"},
            "pauses": {"before": format_duration(calm_us)},
        }
    )
    document = {
        "title": title,
        "description": description or f"The schedule of seed {schedule.seed}, in its times.",
        "rig": dict(schedule.rig),
        "steady-state-hypothesis": {"title": "everything wanted is online", "probes": _STEADY},
        "method": method,
        "rollbacks": [],
    }
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=118)


def _put_back(rig: Topology, commanded: bool) -> Iterator[tuple[str, _Provider]]:
    """What commands have left, and what a group's policy leaves Failed."""
    for node in rig.nodes if commanded else ():
        yield f"{node.name} takes part", {"type": "cluster", "action": "node.resume", "node": node.name}
    for group in rig.groups:
        if commanded or _may_stay_failed(group):
            yield f"{group.name} is wanted", {"type": "cluster", "action": "group.online", "group": group.name}


def _may_stay_failed(group: GroupSpec) -> bool:
    """By what its owner has said of it."""
    moves = all(spec.policy.restart_action is RestartAction.RESTART_THEN_FAILOVER for spec in group.resources)
    unlimited = group.failover_threshold in (None, FAILOVERS_ENOUGH) and not group.possible_owners
    return not (moves and unlimited)


_STEADY = [
    {
        "type": "probe",
        "name": "all groups are online",
        "provider": {"type": "cluster", "probe": "groups-online"},
        "tolerance": True,
        "until": {"timeout": "60s", "interval": "500ms"},
    }
]


def _action(name: str, at_us: int, provider: _Provider) -> dict[str, Any]:
    return {
        "type": "action",
        "name": name,
        "provider": dict(provider),
        "background": True,
        "if-possible": True,
        "pauses": {"before": format_duration(at_us)},
    }
