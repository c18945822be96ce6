"""The faults that only schedules of the simulator have."""

from chaos.faults import FAULTS

__all__ = ["only_in_schedules"]

def only_in_schedules() -> tuple[str, ...]:
    """The faults that schedules of the simulator have, and experiments under no name."""
    # Nobody whose files are right needs the simulator for reading them, and it takes its time to import.
    from chaos.search.experiment_export import PORTABLE
    from harness.simulation.world.fault_kinds import FaultKind

    return tuple(kind.value for kind in FaultKind if kind not in PORTABLE and kind.value not in FAULTS)
