"""The reader of experiment files: a document with line numbers to records, every refusal collected.

Reads top-down and carries what earlier steps register, so that a `${name}` of a register that no earlier step writes is
refused like any unknown word. What the words are is in `schema`; how a rig is described is the rig's business
(`harness.document.topology`).
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePath

from chaos.experiment.activity_reader import ActivityReader, Place
from chaos.experiment.records import Activity, Experiment, FaultCall
from chaos.experiment.schema import (
    EXPERIMENT_FORM,
    LATER_KEYS,
    NEED_ENGINE_PROXY,
    NEED_VOTER_DISK,
    NOT_UNDER_SELF_FENCING,
    VOTER_DISK_BYTES,
)
from harness.document.mapping_reader import NAME_FORM, MappingReader, is_name
from harness.document.refusals import Refusals, shown
from harness.document.size import format_size
from harness.document.topology import collect_topology
from harness.document.yaml_source import Source, load
from harness.errors import UsageError
from harness.model.name import MAX_NAME_LENGTH
from harness.model.topology import Fencing, Topology

__all__ = ["ExperimentReader", "rig_name"]

MAX_ACTIVITIES = 2_000
"""In one list: each names targets, which are looked for among thousands of VMs."""

_MARK_LENGTH = 6
"""Of the mark of a name that is cut: one collision in a thousand among a hundred and fifty such files."""


class ExperimentReader:
    """One reading of one document. Invariant: `read` returns an experiment only if nothing was refused."""

    def __init__(self, text: str, *, name: str, rig: str | None) -> None:
        """Raises UsageError when `text` is not one well-formed document."""
        self._source: Source = load(text, name=name)
        self._rig = rig
        self._refusals = Refusals(name)

    def read(self) -> Experiment:
        """The experiment. Raises one UsageError with every refusal, in the order of the file."""
        data = self._source.data
        if not isinstance(data, dict):
            raise self._source.error((), f"the file holds {shown(data)}", EXPERIMENT_FORM)
        section = MappingReader(data, source=self._source, path=(), refusals=self._refusals, what="an experiment")
        title = section.line("title", "untitled")
        section.demand("title", "a sentence that says what must hold", "title" in section)
        topology = self._read_topology(section)
        activities = ActivityReader(self._source, topology=topology)
        hypothesis_title, hypothesis = self._read_hypothesis(section, activities)
        during = self._read_list(section, "during", Place.DURING, activities)
        section.demand("method", "a list of activities, which may be empty", "method" in section)
        method = self._read_list(section, "method", Place.METHOD, activities)
        rollbacks = self._read_list(section, "rollbacks", Place.ROLLBACKS, activities)
        expects_violation = section.boolean("expects-violation", False)
        faults = [step for step in (*method, *rollbacks) if isinstance(step.call, FaultCall)]
        topology, choices = self._with_engine_proxy(section, topology, faults)
        topology, further_choices = _with_voter_disks(topology, faults)
        if topology is not None and topology.settings.fencing is Fencing.SELF and not expects_violation:
            self._refuse_under_self(faults)
        experiment = Experiment(
            file=self._source.name,
            title=title,
            description=self._read_description(section),
            tags=section.texts("tags", what="words"),
            topology=topology or _NO_TOPOLOGY,
            hypothesis_title=hypothesis_title,
            hypothesis=hypothesis,
            during=during,
            method=method,
            rollbacks=rollbacks,
            expects_violation=expects_violation,
            choices=(*choices, *further_choices),
            document=data,
        )
        for key in ("version", "contributions"):
            section.raw(key)
        for key in LATER_KEYS:
            if section.raw(key):
                section.refuse(key, f"{key} is not available yet", "a file without it")
        section.finish()
        self._refusals.raise_any()
        return experiment

    def _read_topology(self, section: MappingReader) -> Topology | None:
        """None when it was refused: then names cannot be checked against it."""
        section.demand("rig", "the rig to run on, such as {nodes: 3}", "rig" in section)
        document = section.raw("rig")
        if not isinstance(document, dict):
            if "rig" in section:
                section.refuse("rig", f"rig is {shown(document)}", "a mapping such as {nodes: 3}")
            return None
        name = self._rig or (None if "name" in document else rig_name(self._source.name))
        refused = len(self._refusals)
        topology = collect_topology(
            self._source, path=("rig",), data=document, rig=name, refusals=self._refusals
        )
        return topology if len(self._refusals) == refused else None

    @staticmethod
    def _read_description(section: MappingReader) -> str:
        value = section.raw("description", "")
        if isinstance(value, dict | list):
            section.refuse("description", f"description is {shown(value)}", "text")
        return str(value)

    def _read_hypothesis(self, section: MappingReader, activities: ActivityReader) -> tuple[str, tuple[Activity, ...]]:
        if "steady-state-hypothesis" not in section:
            section.known("steady-state-hypothesis")
            return "", ()
        inner = section.section("steady-state-hypothesis", what="a steady-state hypothesis")
        title = inner.line("title", "the steady state")
        inner.demand("title", "a sentence that says what must hold", "title" in inner)
        inner.demand("probes", "a list of probes", "probes" in inner)
        probes = self._read_list(inner, "probes", Place.HYPOTHESIS, activities)
        inner.finish()
        return title, probes

    def _read_list(
        self, section: MappingReader, key: str, place: Place, activities: ActivityReader
    ) -> tuple[Activity, ...]:
        sections = section.sections(key, what="an activity")
        if len(sections) > MAX_ACTIVITIES:
            section.refuse(key, f"{len(sections):,} activities in {key}", f"at most {MAX_ACTIVITIES:,}")
            sections = sections[:MAX_ACTIVITIES]
        found: Iterable[Activity | None] = [activities.read(inner, place) for inner in sections]
        return tuple(activity for activity in found if activity is not None)

    def _with_engine_proxy(
        self, section: MappingReader, topology: Topology | None, faults: Sequence[Activity]
    ) -> tuple[Topology | None, tuple[str, ...]]:
        """A method that stalls an engine needs the proxies; where the file says nothing about them, they are chosen."""
        stalls = [step for step in faults if isinstance(step.call, FaultCall) and step.call.fault in NEED_ENGINE_PROXY]
        if topology is None or not stalls or topology.settings.engine_proxy:
            return topology, ()
        rig = section.raw("rig")
        settings = rig.get("settings") if isinstance(rig, dict) else None
        if isinstance(settings, dict) and "engine-proxy" in settings:
            at = ("rig", "settings", "engine-proxy")
            what = f"engine-proxy is false, and line {stalls[0].line} stalls an engine"
            self._refusals.add(self._source.line_of(at), what, "true, or no such key")
            return topology, ()
        proxied = replace(topology, settings=replace(topology.settings, engine_proxy=True))
        return proxied, (f"engine-proxy: true, because line {stalls[0].line} stalls an engine",)

    def _refuse_under_self(self, faults: Sequence[Activity]) -> None:
        for step in faults:
            if isinstance(step.call, FaultCall) and step.call.fault in NOT_UNDER_SELF_FENCING:
                self._refusals.add(
                    step.line,
                    f"{step.call.fault} with fencing: self, which cannot cover it",
                    "fencing: power, or expects-violation: true for a run that is to show it",
                )


def _with_voter_disks(
    topology: Topology | None, faults: Sequence[Activity]
) -> tuple[Topology | None, tuple[str, ...]]:
    """A method that fills a voter's disk needs voters with disks of their own; a size that the file gives is kept."""
    fills = [step for step in faults if isinstance(step.call, FaultCall) and step.call.fault in NEED_VOTER_DISK]
    if topology is None or not fills or topology.settings.voter_disk_bytes:
        return topology, ()
    limited = replace(topology, settings=replace(topology.settings, voter_disk_bytes=VOTER_DISK_BYTES))
    size = format_size(VOTER_DISK_BYTES)
    return limited, (f"voter-disk: {size}, because line {fills[0].line} fills a voter's disk",)


def rig_name(file: str) -> str:
    """The rig of a file that names none: named after the file, so that no run touches a rig that a person keeps."""
    stem = re.sub(r"[^a-z0-9]+", "-", PurePath(file).stem.lower()).strip("-")
    name = re.sub(r"^[^a-z]+", "", stem)
    if len(name) > MAX_NAME_LENGTH:
        # Cut alike, two long names would be one: the mark of the whole name tells them apart, on every VM alike.
        mark = hashlib.sha256(PurePath(file).stem.encode("utf-8", "backslashreplace")).hexdigest()[:_MARK_LENGTH]
        name = f"{name[: MAX_NAME_LENGTH - _MARK_LENGTH - 1].rstrip('-')}-{mark}"
    if name and not is_name(name):
        raise UsageError(f"{file}: no rig can be named after this file, expected rig: {{name: ...}} of {NAME_FORM}")
    return name or "experiment"


_NO_TOPOLOGY = Topology(rig="refused", subnet="10.87.0.0/24", nodes=(), groups=())
