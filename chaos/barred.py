"""Why an experiment cannot run in an arena: faults that cannot be carried out there, or a rig that is too large.

And which faults no experiment can have, because only schedules of the simulator do.
"""

from collections.abc import Callable

from chaos.arena import Effect
from chaos.experiment import Experiment, FaultCall
from chaos.faults import FAULTS
from chaos.room import no_room
from harness.rig.topology_document import too_many_for_containers

__all__ = ["Supports", "barred", "barred_faults", "only_in_schedules"]

Supports = Callable[[type[Effect]], str]
"""Why an arena cannot carry an effect out; empty when it can."""


def barred_faults(experiment: Experiment, supports: Supports) -> list[str]:
    """Refusals with file and line, none when the arena can carry everything out."""
    return [
        f"{experiment.file}:{activity.line}: {activity.call.fault}: {why}"
        for activity in (*experiment.method, *experiment.rollbacks)
        if isinstance(activity.call, FaultCall) and (why := supports(FAULTS[activity.call.fault].effect))
    ]


def barred(experiment: Experiment, *, arena: str, supports: Supports) -> list[str]:
    """All refusals of that arena, none when it can run there."""
    crowded = no_room(experiment.topology) if arena == "sim" else too_many_for_containers(experiment.topology)
    return [*barred_faults(experiment, supports), *([f"{experiment.file}: {crowded}"] if crowded else [])]


def only_in_schedules() -> tuple[str, ...]:
    """The faults that schedules of the simulator have, and experiments under no name."""
    # Nobody whose files are right needs the simulator for reading them, and it takes its time to import.
    from chaos.search.as_experiment import PORTABLE
    from harness.simulation.fault_kinds import FaultKind

    return tuple(kind.value for kind in FaultKind if kind not in PORTABLE and kind.value not in FAULTS)
