"""A schedule of faults as a file: the rig, the seed of everything that the simulator draws, and what befalls it when.

    schedule: 1                   # the version of this form
    seed: 86
    rig: {nodes: 3, groups: 2}    # as in an experiment
    faults:
      - {at: 8.25s, fault: node.power-off, target: node1, duration: 2100ms}
      - {at: 9s, fault: administrator.command, target: node2/web1, duration: 900ms}

Simulated time from the first power-on. After the last fault everything is healed and must come to rest. One file is one
run, to the byte, on any VM with the same version of Blackstart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from harness.document.duration import format_duration
from harness.document.mapping_reader import MappingReader
from harness.document.refusals import Refusals, nearest, shown
from harness.document.topology import read_topology
from harness.document.yaml_source import Source, load
from harness.model.topology import Topology
from harness.simulation.faults.injection import vm_names
from harness.simulation.faults.schedule import FAULTS_END_US
from harness.simulation.world.fault_kinds import ABOUT_VMS, NOT_UNDER_SELF, OF_VOTERS, FaultKind, Planned

__all__ = ["FORMAT", "Schedule", "read_schedule", "targets_of", "topology_of", "write_schedule"]

FORMAT = 1
RIG = "sim"
MAX_DURATION_US = 60_000_000
MAX_SEED = (1 << 63) - 1
MAX_FAULTS = 10_000
"""A drawn schedule has some dozens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """`rig` is the document of the topology, as a person writes it."""

    seed: int
    rig: Mapping[str, Any]
    faults: tuple[Planned, ...]

    @property
    def topology(self) -> Topology:
        """The rig as a record."""
        return topology_of(self.rig)


def topology_of(rig: Mapping[str, Any]) -> Topology:
    """The rig's document as a record. Raises UsageError."""
    return read_topology(Source(name="rig", data=dict(rig)), rig=RIG)


def read_schedule(text: str, *, name: str) -> Schedule:
    """The schedule in `text`. Raises one UsageError with every refusal, each with file and line."""
    source = load(text, name=name)
    refusals = Refusals(name)
    section = MappingReader(source.data, source=source, path=(), refusals=refusals, what="a schedule")
    section.demand("schedule", f"schedule: {FORMAT}", given=False)
    version = section.raw("schedule")
    if "schedule" in section and version != FORMAT:
        what = f"a schedule of version {shown(version)}"
        section.refuse("schedule", what, f"version {FORMAT}, which this program reads")
    seed = section.integer("seed", 0, low=0, high=MAX_SEED)
    section.demand("rig", "rig: as in an experiment", given=False)
    section.known("rig")
    refusals.raise_any()
    topology = read_topology(source, path=("rig",), rig=RIG)
    entries = section.sections("faults", what="a fault")
    if len(entries) > MAX_FAULTS:
        section.refuse("faults", f"{len(entries):,} faults", f"at most {MAX_FAULTS:,}")
    targets = _Targets(topology)
    faults = tuple(_fault(entry, topology, targets) for entry in entries[:MAX_FAULTS])
    section.finish()
    refusals.raise_any()
    return Schedule(seed=seed, rig=source.data["rig"], faults=tuple(sorted(faults, key=lambda fault: fault.at_us)))


def write_schedule(schedule: Schedule, *, remarks: Sequence[str] = ()) -> str:
    """The file of a schedule, `remarks` as comments at its head."""
    document = {
        "schedule": FORMAT,
        "seed": schedule.seed,
        "rig": dict(schedule.rig),
        "faults": [
            {
                "at": format_duration(fault.at_us),
                "fault": fault.kind.value,
                "target": fault.target,
                "duration": format_duration(fault.duration_us),
            }
            for fault in schedule.faults
        ],
    }
    head = "".join(f"# {line}\n" for remark in remarks for line in remark.splitlines())
    return head + yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=118)


class _Targets:
    """What each kind of fault may be aimed at in one rig, computed once a kind."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._of: dict[FaultKind, frozenset[str]] = {}

    def of(self, kind: FaultKind) -> frozenset[str]:
        if kind not in self._of:
            self._of[kind] = frozenset(targets_of(kind, self._topology))
        return self._of[kind]


def _fault(section: MappingReader, topology: Topology, targets: _Targets) -> Planned:
    kinds = [kind.value for kind in FaultKind]
    word = section.raw("fault")
    kind = FaultKind(word) if word in kinds else FaultKind.POWER_OFF
    if word not in kinds:
        section.refuse("fault", f"there is no fault {shown(word)}", nearest(word, kinds))
    elif kind in NOT_UNDER_SELF and topology.settings.fencing.value == "self":
        section.refuse("fault", f"{kind} cannot be survived with fencing: self", "fencing: power")
    target = section.text("target", "")
    known = targets.of(kind)
    if word in kinds and target not in known:
        section.refuse("target", f"{kind} has no target {shown(target)} in this rig", nearest(target, known))
    planned = Planned(
        at_us=section.duration_us("at", 0, low=0, high=FAULTS_END_US),
        kind=kind,
        target=target,
        duration_us=section.duration_us("duration", 0, low=0, high=MAX_DURATION_US),
    )
    section.finish()
    return planned


def targets_of(kind: FaultKind, topology: Topology) -> list[str]:
    """Whom such a fault may be aimed at in that rig."""
    nodes = [node.name for node in topology.nodes]
    if kind in ABOUT_VMS:
        return vm_names(topology)
    if kind is FaultKind.COMMAND:
        return [*nodes, *(f"{node}/{group.name}" for node in nodes for group in topology.groups)]
    return [node.name for node in topology.nodes if node.voter or kind not in OF_VOTERS]
