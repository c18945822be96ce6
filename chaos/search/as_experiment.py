"""A schedule of faults as an experiment, which runs in both arenas.

The faults strike in the background at their times after the first of them, where they are still possible; then
everything must be online and answering again. In the simulator that is another run than the schedule's own: a fault of
an experiment waits for its receipt, so the world draws other latencies. A seed fixes choices, not timing.

Some faults of schedules have no counterpart that could be laid on real containers: a network that loses messages, an
engine that loses an answer, an administrator with commands of his own. A schedule with one of them has no experiment.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import yaml

from chaos.search.schedule_file import Schedule
from harness.model.topology import SECOND_US
from harness.rig.duration import format_duration
from harness.simulation.fault_kinds import FaultKind, Planned
from harness.simulation.faults import AWAY_US, pause_us

__all__ = ["PORTABLE", "experiment_of", "without_counterpart"]

LEAD_US = SECOND_US
"""Before the first fault."""
CALM_US = 8 * SECOND_US
"""After the last step was begun: longer than any fault of a schedule lasts but a long absence."""
CRASH_AGAIN_US = 400_000

_Steps = Callable[[Planned], list[tuple[int, Mapping[str, Any]]]]
"""When, after the fault's own time, which faults of an experiment stand for it."""


def _once(fault: str, **more: Any) -> _Steps:
    return lambda planned: [(0, {"fault": fault, "target": planned.target, **more})]


def _lasting(fault: str, times: int = 1) -> _Steps:
    return lambda planned: [
        (0, {"fault": fault, "target": planned.target, "duration": format_duration(times * planned.duration_us)})
    ]


def _one_way(planned: Planned) -> list[tuple[int, Mapping[str, Any]]]:
    direction = "out" if planned.duration_us % 2 else "in"
    return [(0, {**_lasting("node.isolate")(planned)[0][1], "direction": direction})]


def _pause(planned: Planned) -> list[tuple[int, Mapping[str, Any]]]:
    return _lasting("node.hang")(replace(planned, duration_us=pause_us(planned)))


def _away(planned: Planned) -> list[tuple[int, Mapping[str, Any]]]:
    duration = format_duration(AWAY_US + planned.duration_us)
    return [(0, {"fault": "node.power-off", "target": planned.target, "duration": duration})]


def _crash_loop(planned: Planned) -> list[tuple[int, Mapping[str, Any]]]:
    crash = {"fault": "vm.crash", "target": planned.target}
    return [(after_us, crash) for after_us in range(0, planned.duration_us, CRASH_AGAIN_US)]


_COUNTERPARTS: Mapping[FaultKind, _Steps] = {
    FaultKind.POWER_OFF: _lasting("node.power-off"),
    FaultKind.RESET: _once("node.reset"),
    FaultKind.FREEZE: _lasting("node.hang"),
    FaultKind.ISOLATE: _lasting("node.isolate"),
    FaultKind.ONE_WAY: _one_way,
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
    FaultKind.VM_CRASH_LOOP: _crash_loop,
}


PORTABLE = tuple(_COUNTERPARTS)
"""The kinds that experiments have too."""


def without_counterpart(schedule: Schedule) -> list[str]:
    """The kinds of its faults that no experiment has; none means that it has an experiment."""
    return sorted({fault.kind.value for fault in schedule.faults if fault.kind not in _COUNTERPARTS})


def experiment_of(schedule: Schedule, *, title: str, description: str = "") -> str:
    """The experiment's file. The schedule must have a counterpart for each of its faults, and one fault at least."""
    first_us = schedule.faults[0].at_us
    method = [
        _action(number, fault, fault.at_us - first_us + LEAD_US + after_us, provider)
        for number, fault in enumerate(schedule.faults, start=1)
        for after_us, provider in _COUNTERPARTS[fault.kind](fault)
    ]
    last_us = schedule.faults[-1].at_us - first_us
    method.append(
        {
            "type": "probe",
            "name": "the last fault has struck",
            "provider": {"type": "cluster", "probe": "nodes-up"},
            "pauses": {"before": format_duration(LEAD_US + last_us + CALM_US)},
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


_STEADY = [
    {
        "type": "probe",
        "name": "all groups are online",
        "provider": {"type": "cluster", "probe": "groups-online"},
        "tolerance": True,
        "until": {"timeout": "60s", "interval": "500ms"},
    }
]


def _action(number: int, fault: Planned, at_us: int, provider: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "action",
        "name": f"{number}: {fault.kind} {fault.target}",
        "provider": {"type": "fault", **provider},
        "background": True,
        "if-possible": True,
        "pauses": {"before": format_duration(at_us)},
    }
