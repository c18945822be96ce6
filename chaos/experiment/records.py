"""An experiment: what one YAML (or JSON) file says, as frozen records.

A Chaos Toolkit document (title, steady-state-hypothesis, method, rollbacks, activities with provider, tolerance and
pauses) plus our keys: `rig`, the providers `fault`, `cluster` and `client`, `register`, `until` and `during`. Reading
is strict: whatever cannot be carried out is refused here with file, line and the expected form, all of it at once and
before anything starts; behind this module an experiment makes sense.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.arena.port import Subject
from chaos.experiment.targets import Target
from chaos.experiment.tolerance import Tolerance
from harness.model.topology import Topology

__all__ = [
    "Activity",
    "CommandCall",
    "Experiment",
    "FaultCall",
    "ProbeCall",
    "Until",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultCall:
    """Inject a fault. `fault` is a name of `chaos.faults.FAULTS`.

    `duration_us` is how long it lasts before it heals by itself; 0: until something else heals it. `arguments` are the
    fault's own.
    """

    fault: str
    target: Target
    duration_us: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.fault} on {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeCall:
    """Ask a probe. `arguments` may hold `FromRegister` in place of a name."""

    provider: str
    probe: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    timed: bool = False

    def __str__(self) -> str:
        return f"{self.provider} {self.probe}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandCall:
    """Ask the cluster for something, as an administrator does. `name` of a node is a target; `arguments` are named as
    the cluster's API names them, and may hold the target of a node.
    """

    subject: Subject
    name: str | Target
    verb: str
    arguments: Mapping[str, str | bool | Target] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.subject}.{self.verb} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """Ask again every `interval_us` until the tolerance holds, for `timeout_us` at most."""

    timeout_us: int
    interval_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """One step.

    `line` is where the file has it; `register` is empty if nothing is kept; `interval_us` is for `during` only.
    The next step does not wait for one in the `background`; the probes of `during` are asked while this step lasts.
    A fault that is only to strike `if_possible` is skipped where it would do nothing.
    """

    name: str
    line: int
    call: FaultCall | ProbeCall | CommandCall
    tolerance: Tolerance | None = None
    register: str = ""
    until: Until | None = None
    pause_before_us: int = 0
    pause_after_us: int = 0
    interval_us: int = 0
    background: bool = False
    if_possible: bool = False
    during: "tuple[Activity, ...]" = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A whole file. `document` is its plain content, for the journal.

    `expects_violation`: a negative control, which passes only if a safety checker finds something. `choices` are
    sentences about what the reader has chosen where the file says nothing.
    """

    file: str
    title: str
    topology: Topology
    description: str = ""
    tags: tuple[str, ...] = ()
    hypothesis_title: str = ""
    hypothesis: tuple[Activity, ...] = ()
    during: tuple[Activity, ...] = ()
    method: tuple[Activity, ...] = ()
    rollbacks: tuple[Activity, ...] = ()
    expects_violation: bool = False
    choices: tuple[str, ...] = ()
    document: Mapping[str, Any] = field(default_factory=dict)
