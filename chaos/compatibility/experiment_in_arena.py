"""Why an experiment cannot run in an arena: faults that cannot be carried out there, or a rig that is too large.

And which faults no experiment can have, because only schedules of the simulator do.
"""

from collections.abc import Callable

from chaos.arena.port import Effect
from chaos.arena.simulation.memory_check import memory_shortfall
from chaos.experiment.records import Experiment, FaultCall
from chaos.faults import FAULTS
from harness.document.topology import too_many_for_containers

__all__ = ["Supports", "incompatibilities", "incompatible_faults"]

Supports = Callable[[type[Effect]], str]
"""Why an arena cannot carry an effect out; empty when it can."""


def incompatible_faults(experiment: Experiment, supports: Supports) -> list[str]:
    """Refusals with file and line, none when the arena can carry everything out."""
    return [
        f"{experiment.file}:{activity.line}: {activity.call.fault}: {why}"
        for activity in (*experiment.method, *experiment.rollbacks)
        if isinstance(activity.call, FaultCall) and (why := supports(FAULTS[activity.call.fault].effect))
    ]


def incompatibilities(experiment: Experiment, *, arena: str, supports: Supports) -> list[str]:
    """All refusals of that arena, none when it can run there."""
    crowded = memory_shortfall(experiment.topology) if arena == "sim" else too_many_for_containers(experiment.topology)
    return [*incompatible_faults(experiment, supports), *([f"{experiment.file}: {crowded}"] if crowded else [])]
