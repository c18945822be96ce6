"""In which arenas an experiment and a fault can run, and what is another thing there: told before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass

from chaos.arena.docker.arena import DockerArena
from chaos.arena.simulation.arena import SimulatedArena
from chaos.compatibility.experiment_in_arena import Supports, incompatibilities
from chaos.experiment.records import Experiment
from chaos.faults import FAULTS
from harness.model.workload import runs_guest

__all__ = ["ArenaView", "arena_views", "barred_from"]

_ARENAS: Mapping[str, Supports] = {"docker": DockerArena.supports, "sim": SimulatedArena.supports}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaView:
    """One arena as an experiment finds it: why it cannot run there, and what differs; sentences, mostly none."""

    arena: str
    incompatibilities: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()


def arena_views(experiment: Experiment) -> tuple[ArenaView, ...]:
    """Every arena."""
    return tuple(
        ArenaView(
            arena=name,
            incompatibilities=tuple(incompatibilities(experiment, arena=name, supports=supports)),
            differs=tuple(_simulated(experiment)) if name == "sim" else (),
        )
        for name, supports in _ARENAS.items()
    )


def barred_from(fault: str) -> Mapping[str, str]:
    """The arenas that cannot carry that fault out, and why not."""
    return {name: why for name, supports in _ARENAS.items() if (why := supports(FAULTS[fault].effect))}


def _simulated(experiment: Experiment) -> list[str]:
    """The simulator runs no images: what is in a VM is simulated, as far as probes can ask it."""
    own = [
        f"{spec.name} ({spec.properties.get('image', '')})"
        for group in experiment.topology.groups
        for spec in group.resources
        if spec.type == "virtual-machine" and not runs_guest(spec.properties)
    ]
    return [f"no image is run: what answers in {', '.join(own)} is simulated"] if own else []
