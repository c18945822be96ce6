"""Making a failing schedule small: fewer faults, groups and nodes, shorter, as long as it still fails in the same way.

Delta debugging over the faults, then over what the rig has. A change moves everything that the simulator draws
afterwards, so each candidate gets a few seeds; the seed with which it failed becomes its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from chaos.search.hunt import Parts, play
from chaos.search.schedule_file import Schedule
from harness.errors import UsageError
from harness.simulation.composition import Composition
from harness.simulation.fault_kinds import Planned
from harness.simulation.schedule import Outcome

__all__ = ["Shrinking"]

SEEDS_TRIED = 3
DURATION_LEAST_US = 100_000


class Shrinking:
    """One reduction. `schedule` is the smallest that was seen to fail; `runs` how many it took."""

    def __init__(
        self, schedule: Schedule, *, say: Callable[[str], None], parts: Parts = Composition
    ) -> None:
        """Raises UsageError when the schedule does not fail."""
        self.schedule = schedule
        self.runs = 1
        self._say = say
        self._parts = parts
        outcome = play(schedule, parts)
        if not outcome.broken:
            raise UsageError("this schedule breaks nothing: there is nothing to make small")
        self._violates = bool(outcome.violations)

    def shrink(self) -> Schedule:
        """Until nothing can be left out any more."""
        if self._still_fails(replace(self.schedule, faults=())):
            self._say("it fails without any fault")
        size = None
        while size != _size(self.schedule):
            size = _size(self.schedule)
            self._fewer_faults()
            for candidates in (_fewer_groups, _fewer_nodes, _shorter):
                self._try_all(candidates)
        return self.schedule

    def _fewer_faults(self) -> None:
        """Leave out ever smaller parts of the faults (ddmin, its complements only)."""
        parts = 2
        while len(self.schedule.faults) > 1:
            faults = self.schedule.faults
            length = -(-len(faults) // parts)
            rests = [faults[:begin] + faults[begin + length :] for begin in range(0, len(faults), length)]
            if any(self._still_fails(replace(self.schedule, faults=rest)) for rest in rests if rest):
                parts = max(2, parts - 1)
            elif length == 1:
                return
            else:
                parts = min(len(faults), parts * 2)

    def _try_all(self, candidates: Callable[[Schedule], Iterator[Schedule]]) -> None:
        """Take the first candidate that fails, and ask again, until none does."""
        while any(self._still_fails(candidate) for candidate in candidates(self.schedule)):
            pass

    def _still_fails(self, candidate: Schedule) -> bool:
        seeds = dict.fromkeys((candidate.seed, *range(SEEDS_TRIED)))
        for seed in list(seeds)[:SEEDS_TRIED]:
            self.runs += 1
            tried = replace(candidate, seed=seed)
            if self._fails_alike(play(tried, self._parts)):
                self.schedule = tried
                self._say(f"run {self.runs}: {_told(tried)}")
                return True
        return False

    def _fails_alike(self, outcome: Outcome) -> bool:
        return bool(outcome.violations) if self._violates else outcome.broken


def _size(schedule: Schedule) -> tuple[int, int, int, int]:
    lasting_us = sum(fault.duration_us for fault in schedule.faults)
    return len(schedule.faults), len(_groups(schedule)), schedule.rig.get("nodes", 0), lasting_us


def _told(schedule: Schedule) -> str:
    faults, groups, nodes, _ = _size(schedule)
    return f"{faults} faults, {groups} groups, {nodes} nodes, seed {schedule.seed}"


def _groups(schedule: Schedule) -> Sequence[Mapping[str, Any]]:
    groups = schedule.rig.get("groups")
    return groups if isinstance(groups, list) else []


def _fewer_groups(schedule: Schedule) -> Iterator[Schedule]:
    groups = _groups(schedule)
    for group in groups if len(groups) > 1 else ():
        names = {str(group["name"]), *(str(resource["name"]) for resource in group["resources"])}
        if not any(names & set(fault.target.split("/")) for fault in schedule.faults):
            yield replace(schedule, rig={**schedule.rig, "groups": [other for other in groups if other is not group]})


def _fewer_nodes(schedule: Schedule) -> Iterator[Schedule]:
    """Two nodes less at once, so that the number of votes stays odd; none that a fault or a group names."""
    nodes = schedule.rig.get("nodes")
    if not isinstance(nodes, int) or nodes < 4:
        return
    gone = {f"node{nodes}", f"node{nodes - 1}"}
    named = {part for fault in schedule.faults for part in fault.target.split("/")}
    named |= {owner for group in _groups(schedule) for owner in group.get("preferred-owners", ())}
    if not gone & named:
        yield replace(schedule, rig={**schedule.rig, "nodes": nodes - 2})


def _shorter(schedule: Schedule) -> Iterator[Schedule]:
    for index, fault in enumerate(schedule.faults):
        half_us = fault.duration_us // 2
        if half_us >= DURATION_LEAST_US:
            shorter: Planned = replace(fault, duration_us=half_us)
            yield replace(schedule, faults=(*schedule.faults[:index], shorter, *schedule.faults[index + 1 :]))
