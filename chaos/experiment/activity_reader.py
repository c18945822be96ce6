"""The reader of one activity: its call, target, arguments, tolerance, waits and register.

A part of `experiment_reader`, which hands it the sections in the order of the file. Knows which register holds a node,
a VM or something else, as far as the steps so far have written it.
"""

import re
from enum import StrEnum
from typing import Any

from chaos.experiment.command_reader import CommandReader
from chaos.experiment.fault_reader import MAX_DURATION_US, MIN_DURATION_US, FaultReader
from chaos.experiment.records import Activity, CommandCall, FaultCall, ProbeCall, Until
from chaos.experiment.schema import ACTIVITY_FORM, LATER_PROVIDERS, PROBES, TOLERANCE_FORM, ArgumentKind, ProbeForm
from chaos.experiment.target_reader import VM_TYPE, Registered, TargetReader, register_name
from chaos.experiment.targets import FromRegister, several
from chaos.experiment.tolerance import Tolerance, misfit, read_tolerance
from chaos.faults import FAULTS
from chaos.faults.kinds import TargetKind
from chaos.history.recovery import Phase
from harness.document.duration import DURATION_FORM, format_duration, parse_duration_us
from harness.document.mapping_reader import MappingReader
from harness.document.refusals import nearest, shown
from harness.document.yaml_source import Source
from harness.model.topology import SECOND_US, Topology

__all__ = ["ActivityReader", "Place"]

DEFAULT_INTERVAL_US = 200_000
"""Between two askings: a probe asks a node of the cluster, which takes some tens of milliseconds."""

_REGISTER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
MAX_REGISTER_CHARACTERS = 64
_REGISTER_FORM = f"a name of letters, digits, - and _, at most {MAX_REGISTER_CHARACTERS} characters"


class Place(StrEnum):
    """Where in a document an activity stands."""

    HYPOTHESIS = "steady-state-hypothesis"
    DURING = "during"
    METHOD = "method"
    ROLLBACKS = "rollbacks"


class ActivityReader:
    """Reads the activities of one document, in its order.

    Invariant: `_registers` holds what the activities read so far will have written.
    """

    def __init__(self, source: Source, *, topology: Topology | None) -> None:
        """`topology` is None when it was refused: then names are taken as they are."""
        self._source = source
        self._topology = topology
        groups = topology.groups if topology else ()
        self._groups = frozenset(group.name for group in groups)
        self._vms = frozenset(
            entry.name for group in groups for entry in group.resources if entry.type == VM_TYPE
        )
        self._registers: dict[str, Registered] = {}
        self._targets = TargetReader(topology=topology, registers=self._registers)
        self._faults = FaultReader(self._targets, topology=topology)
        self._commands = CommandReader(self._targets, topology=topology)

    def read(self, section: MappingReader, place: Place) -> Activity | None:
        """The activity, or None when it cannot be made sense of; everything wrong with it has been refused."""
        for key in ("type", "name", "provider"):
            section.demand(key, ACTIVITY_FORM, key in section)
        kind = section.raw("type")
        if "type" in section and kind not in ("action", "probe"):
            section.refuse("type", f"type is {shown(kind)}", "action or probe")
        if kind == "action" and place in (Place.HYPOTHESIS, Place.DURING):
            section.refuse("type", f"an action in {place}", "probes only")
        call, form = self._read_call(section, str(kind))
        activity = Activity(
            name=section.line("name", "unnamed"),
            line=self._source.line_of(section.path),
            call=call or _NO_CALL,
            tolerance=self._read_tolerance(section, kind, place, form),
            until=self._read_until(section, kind, place),
            register=self._read_register(section, place, call),
            background=self._read_of_the_method(section, "background", kind, place),
            if_possible=self._read_of_the_method(section, "if-possible", kind, place),
            during=self._read_during(section, place),
            **self._read_waits(section, place),
        )
        for key in ("controls", "configuration", "secrets"):
            if section.raw(key):
                section.refuse(key, f"{key} is not available yet", "an activity without it")
        section.finish()
        return activity if call is not None else None

    def _read_call(
        self, section: MappingReader, kind: str
    ) -> tuple[FaultCall | ProbeCall | CommandCall | None, ProbeForm | None]:
        provider = section.section("provider", what="a provider")
        if "provider" not in section:
            return None, None
        name = provider.raw("type")
        provider.demand("type", "fault, cluster or client", "type" in provider)
        if name in LATER_PROVIDERS:
            provider.refuse("type", f"the provider {name} is not available yet", "fault, cluster or client")
        elif name == "fault":
            if kind == "probe":
                provider.refuse("type", "a fault as a probe", "type: action, or a provider of probes")
            return self._faults.read(provider), None
        elif name == "cluster" and kind == "action":
            return self._commands.read(provider), None
        elif isinstance(name, str) and name in PROBES:
            if kind == "action":
                provider.refuse(
                    "type",
                    f"the provider {name} as an action: it only has probes",
                    "type: probe, or provider fault or cluster",
                )
            return self._read_probe(provider, name)
        elif "type" in provider:
            known = ("fault", *PROBES)
            provider.refuse("type", f"there is no provider {shown(name)}", nearest(name, known))
        return None, None

    def _read_probe(self, provider: MappingReader, name: str) -> tuple[ProbeCall | None, ProbeForm | None]:
        word = provider.raw("probe")
        provider.demand("probe", f"one of {', '.join(sorted(PROBES[name]))}", "probe" in provider)
        form = PROBES[name].get(word) if isinstance(word, str) else None
        if form is None:
            if "probe" in provider:
                provider.refuse(
                    "probe", f"the provider {name} has no probe {shown(word)}", nearest(word, PROBES[name])
                )
            return None, None
        for argument in sorted(form.required):
            provider.demand(argument, str(form.arguments[argument].value), argument in provider)
        given = sorted(argument for argument in form.at_most_one_of if argument in provider)
        if len(given) > 1:
            provider.refuse(given[1], f"{' and '.join(given)} exclude each other", f"one of {', '.join(given)}")
        arguments = {
            key: self._read_argument(provider, key, kind) for key, kind in form.arguments.items() if key in provider
        }
        for key in form.arguments:
            provider.known(key)
        provider.finish()
        return ProbeCall(provider=name, probe=str(word), arguments=arguments, timed=form.timed), form

    def _read_argument(self, provider: MappingReader, key: str, kind: ArgumentKind) -> Any:
        match kind:
            case ArgumentKind.GROUPS | ArgumentKind.VMS:
                names = provider.texts(key, what=kind.value)
                known = self._groups if kind is ArgumentKind.GROUPS else self._vms
                for index, name in enumerate(names):
                    if self._topology is not None and name not in known:
                        what = f"the rig has no such thing as {shown(name)}"
                        provider.refuse_item(key, index, what, nearest(name, known))
                return names
            case ArgumentKind.GROUP:
                return self._targets.name_in(provider, key, self._groups, what="group")
            case ArgumentKind.VM | ArgumentKind.NODE:
                aimed_at = TargetKind.NODE if kind is ArgumentKind.NODE else TargetKind.VM
                target = self._targets.read(provider, key, aimed_at, what="the probe", several=False)
                return target if isinstance(target, FromRegister) else getattr(target, "name", "")
            case ArgumentKind.PHASE:
                value = provider.raw(key)
                phases = [phase.value for phase in Phase if phase is not Phase.FAULT]
                if value not in phases:
                    provider.refuse(key, f"{key} is {shown(value)}", nearest(value, phases))
                    return Phase.STARTED
                return Phase(value)

    def _read_tolerance(
        self, section: MappingReader, kind: Any, place: Place, form: ProbeForm | None
    ) -> Tolerance | None:
        if "tolerance" not in section:
            section.known("tolerance")
            if kind == "probe" and place in (Place.HYPOTHESIS, Place.DURING):
                section.demand("tolerance", TOLERANCE_FORM, False)
            return None
        if kind == "action":
            section.refuse("tolerance", "a tolerance on an action", "one on a probe: a fault has its receipt")
        try:
            tolerance = read_tolerance(section.raw("tolerance"))
        except ValueError as error:
            section.refuse("tolerance", f"tolerance: {error}", TOLERANCE_FORM)
            return None
        problem = misfit(tolerance, form.answers) if form is not None else ""
        if problem and form is not None:
            section.refuse("tolerance", f"tolerance: {problem}", f"one that fits {form.answers}")
        return tolerance

    def _read_until(self, section: MappingReader, kind: Any, place: Place) -> Until | None:
        if "until" not in section:
            section.known("until")
            return None
        if kind == "action" or place is Place.DURING:
            section.refuse(
                "until", "until on an activity that is not asked again", "until on a probe outside of during"
            )
        elif "tolerance" not in section:
            section.refuse(
                "until", "until without a tolerance: nothing says when it is enough", "a tolerance beside it"
            )
        inner = section.section("until", what="until")
        inner.demand("timeout", DURATION_FORM, "timeout" in inner)
        timeout_us = inner.duration_us("timeout", MAX_DURATION_US, low=MIN_DURATION_US, high=MAX_DURATION_US)
        interval_us = inner.duration_us(
            "interval", min(DEFAULT_INTERVAL_US, timeout_us), low=MIN_DURATION_US, high=MAX_DURATION_US
        )
        inner.finish()
        if interval_us > timeout_us:
            inner.refuse(
                "interval",
                f"an interval of {format_duration(interval_us)}, longer than the timeout",
                f"at most {format_duration(timeout_us)}",
            )
        return Until(timeout_us=timeout_us, interval_us=interval_us)

    def _read_register(
        self, section: MappingReader, place: Place, call: FaultCall | ProbeCall | CommandCall | None
    ) -> str:
        if "register" not in section:
            section.known("register")
            return ""
        name = section.raw("register")
        if not isinstance(name, str) or len(name) > MAX_REGISTER_CHARACTERS or not _REGISTER.fullmatch(name):
            section.refuse("register", f"register is {shown(name)}", _REGISTER_FORM)
            return ""
        if place in (Place.HYPOTHESIS, Place.DURING):
            section.refuse("register", f"register in {place}, which is asked more than once", "register in the method")
        if isinstance(call, CommandCall):
            section.refuse(
                "register", "register on a command: its answer is a sentence", "register on a probe or a fault"
            )
        if name in self._registers:
            section.refuse("register", f"an earlier step registers {name!r}", "a name of its own")
        self._registers[name] = self._will_hold(call)
        return name

    def _will_hold(self, call: FaultCall | ProbeCall | CommandCall | None) -> Registered:
        if isinstance(call, FaultCall):
            source = call.target
            many = self._registers[source.register].several if isinstance(source, FromRegister) else several(source)
            return Registered(kind=FAULTS[call.fault].target, several=many)
        if isinstance(call, ProbeCall) and call.probe == "owner-of":
            return Registered(kind=TargetKind.NODE)
        return Registered(kind=None)

    @staticmethod
    def _read_of_the_method(section: MappingReader, key: str, kind: Any, place: Place) -> bool:
        """A yes or no that only actions of the method may have."""
        given = section.boolean(key, False)
        if given and (kind != "action" or place is not Place.METHOD):
            section.refuse(key, f"{key} in {place}, type {kind}", "an action of the method")
        return given

    def _read_during(self, section: MappingReader, place: Place) -> tuple[Activity, ...]:
        if "during" not in section:
            section.known("during")
            return ()
        if place is not Place.METHOD:
            section.refuse("during", f"during on an activity of {place}", "during on a step of the method")
        found = [self.read(inner, Place.DURING) for inner in section.sections("during", what="a probe")]
        return tuple(probe for probe in found if probe is not None)

    def _read_waits(self, section: MappingReader, place: Place) -> dict[str, Any]:
        pauses = section.section("pauses", what="pauses")
        waits: dict[str, Any] = {
            "pause_before_us": _read_pause(pauses, "before"),
            "pause_after_us": _read_pause(pauses, "after"),
        }
        pauses.finish()
        if place is Place.DURING:
            waits["interval_us"] = section.duration_us(
                "interval", DEFAULT_INTERVAL_US, low=MIN_DURATION_US, high=MAX_DURATION_US
            )
        return waits


def _read_pause(pauses: MappingReader, key: str) -> int:
    """A duration, or a number of seconds as the Chaos Toolkit has it."""
    value = pauses.raw(key, 0)
    if isinstance(value, str) and register_name(value):
        pauses.refuse(key, f"{key} is {shown(value)}", DURATION_FORM)
        return 0
    try:
        seconds = isinstance(value, int | float) and not isinstance(value, bool)
        pause_us = int(value * SECOND_US) if seconds else parse_duration_us(value)
    except (ValueError, OverflowError) as error:
        pauses.refuse(key, f"{key}: {error}", DURATION_FORM)
        return 0
    if not 0 <= pause_us <= MAX_DURATION_US:
        pauses.refuse(key, f"{key} is {shown(value)}", f"0 to {format_duration(MAX_DURATION_US)}")
        return 0
    return pause_us


_NO_CALL = ProbeCall(provider="", probe="")
