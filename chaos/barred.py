"""Which faults of an experiment an arena cannot carry out."""

from collections.abc import Callable

from chaos.arena import Effect
from chaos.experiment import Experiment, FaultCall
from chaos.faults import FAULTS

__all__ = ["Supports", "barred_faults"]

Supports = Callable[[type[Effect]], str]
"""Why an arena cannot carry an effect out; empty when it can."""


def barred_faults(experiment: Experiment, supports: Supports) -> list[str]:
    """Refusals with file and line, none when the arena can carry everything out."""
    return [
        f"{experiment.file}:{activity.line}: {activity.call.fault}: {why}"
        for activity in (*experiment.method, *experiment.rollbacks)
        if isinstance(activity.call, FaultCall) and (why := supports(FAULTS[activity.call.fault].effect))
    ]
