"""The reader of one fault: its name, target, duration, and the arguments that are its own.

A part of `activity_reader`. What a fault does with an argument is said where the fault is; here it is only known of
which kind it must be.
"""

from typing import Any

from chaos.arena.port import Direction
from chaos.arena.process_effects import Freezing
from chaos.experiment.records import FaultCall
from chaos.experiment.target_reader import TargetReader
from chaos.faults import FAULTS, Adjustable, Fault
from chaos.faults.kinds import FaultArgument
from chaos.faults.schedule_only import only_in_schedules
from harness.document.mapping_reader import MappingReader
from harness.document.refusals import Nearest, nearest, shown
from harness.model.topology import SECOND_US, Topology

__all__ = ["MAX_DURATION_US", "MIN_DURATION_US", "FaultReader"]

MAX_DURATION_US = 24 * 3600 * SECOND_US
MIN_DURATION_US = 10_000

_WORDS = {
    FaultArgument.DIRECTION: tuple(direction.value for direction in Direction),
    FaultArgument.HELD_CALLS: ("forward", "drop"),
    FaultArgument.FREEZING: tuple(how.value for how in Freezing),
}


class FaultReader:
    """Reads the faults of one document."""

    def __init__(self, targets: TargetReader, *, topology: Topology | None) -> None:
        """`topology` is None when it was refused: then names are taken as they are."""
        self._targets = targets
        self._peers = [spec.name for spec in topology.everybody] if topology else None

    def read(self, provider: MappingReader) -> FaultCall | None:
        """The fault, or None when it cannot be made sense of; everything wrong with it has been refused."""
        name = provider.raw("fault")
        provider.demand("fault", f"one of {', '.join(sorted(FAULTS))}", "fault" in provider)
        provider.demand("target", "what the fault is aimed at", "target" in provider)
        fault: Fault | None = FAULTS.get(name) if isinstance(name, str) else None
        if "fault" in provider and fault is None:
            provider.refuse("fault", *_unknown(name))
        if fault is None or "target" not in provider:
            provider.known("target")
            return None
        target = self._targets.read(provider, "target", fault.target, what=fault.name)
        duration_us = provider.duration_us("duration", 0, low=MIN_DURATION_US, high=MAX_DURATION_US)
        if "duration" in provider and not fault.undo:
            provider.refuse("duration", f"{fault.name} has nothing to heal", "a fault without a duration")
        arguments = self._read_arguments(provider, fault)
        provider.finish()
        if target is None:
            return None
        return FaultCall(fault=fault.name, target=target, duration_us=duration_us, arguments=arguments)

    def _read_arguments(self, provider: MappingReader, fault: Fault) -> dict[str, Any]:
        if not isinstance(fault, Adjustable):
            return {}
        given = {
            key: self._read_argument(provider, key, kind) for key, kind in fault.arguments.items() if key in provider
        }
        for key in fault.arguments:
            provider.known(key)
        return given

    def _read_argument(self, provider: MappingReader, key: str, kind: FaultArgument) -> Any:
        if kind is FaultArgument.NODES:
            names = provider.texts(key, what="names of nodes")
            provider.demand(key, "at least one node", bool(names))
            for index, name in enumerate(names):
                if self._peers is not None and name not in self._peers:
                    provider.refuse_item(key, index, f"the rig has no node {shown(name)}", nearest(name, self._peers))
            return names
        value = provider.raw(key)
        if value not in _WORDS[kind]:
            provider.refuse(key, f"{key} is {shown(value)}", kind.value)
        return value


def _unknown(name: object) -> tuple[str, str | Nearest]:
    """Why there is no such fault, and what is expected."""
    if name in only_in_schedules():
        expected = "a fault that experiments have (`blackstart doctor` lists them), or a schedule to `replay`"
        return f"{name} exists in schedules of the simulator only", expected
    return f"there is no fault {shown(name)}", nearest(name, FAULTS)
