"""The vocabulary of experiments: which keys, faults, probes and arguments there are, and what a probe answers.

Tables only. `experiment` reads documents with them; what a word does is said where it is done (`faults`, `probes`). A
word that is not here is refused before anything starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from chaos.arena.port import Subject

__all__ = [
    "ACTIVITY_FORM",
    "COMMANDS",
    "EXPERIMENT_FORM",
    "LATER_KEYS",
    "LATER_PROVIDERS",
    "NEED_ENGINE_PROXY",
    "NEED_VOTER_DISK",
    "NOT_UNDER_SELF_FENCING",
    "PROBES",
    "TARGET_FORM",
    "TOLERANCE_FORM",
    "VOTER_DISK_BYTES",
    "Answers",
    "ArgumentKind",
    "CommandArgument",
    "CommandForm",
    "ProbeForm",
]

EXPERIMENT_FORM = "a mapping with title, rig, method and, if wanted, steady-state-hypothesis and rollbacks"
ACTIVITY_FORM = "an activity: type, name, provider"
TARGET_FORM = (
    "a name or a pattern, {node: NAME}, {vm: NAME}, {owner-of: GROUP}, {owner-of-vm: VM}, "
    "{voter-of: NODE}, {label: KEY=VALUE}, bystander, voter, minority, majority, {count: N, of: TARGET}, "
    "{percentage: P, of: TARGET}, or ${REGISTER}"
)
TOLERANCE_FORM = (
    "a value to be equal to, [LOW, HIGH], {type: range, range: [LOW, HIGH]} or {type: regex, pattern: TEXT}"
)

LATER_KEYS = ("configuration", "secrets", "controls", "extensions", "runtime")
"""Keys of the Chaos Toolkit that are understood and not available yet: refused, unless empty, and never ignored."""

LATER_PROVIDERS = ("process", "http", "python")
"""Providers that are understood and not available yet."""


NEED_ENGINE_PROXY = frozenset({"engine.stall"})
"""Faults for which the nodes must reach the engine through a proxy."""

NEED_VOTER_DISK = frozenset({"voter.disk-full"})
"""Faults for which the voters must have disks of a size of their own."""

VOTER_DISK_BYTES = 64 << 20
"""Their size where a file does not say it: a voter of a small rig writes some mebibytes an hour, and its file is
rewritten from one mebibyte on.
"""

NOT_UNDER_SELF_FENCING = frozenset({"node.hang", "engine.stall"})
"""What fencing `self` cannot cover: a node that freezes with its watchdog, and engine calls that outlive the bound."""


class Answers(StrEnum):
    """The kind of value that a probe answers with; what it may be compared with follows."""

    BOOLEAN = "true or false"
    NUMBER = "a number"
    TEXT = "text"


class ArgumentKind(StrEnum):
    """What an argument of a probe must be."""

    GROUP = "a group"
    GROUPS = "a list of groups"
    VM = "a VM"
    VMS = "a list of VMs"
    NODE = "a node"
    PHASE = "a phase"


class CommandArgument(StrEnum):
    """What an argument of a command must be."""

    NODE = "a node"
    YES_OR_NO = "true or false"
    FAILBACK = "none, immediate or policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandForm:
    """One command: what it is about, and its arguments. Each has the name that the cluster's API gives it, and what it
    must be.
    """

    subject: Subject
    verb: str
    arguments: Mapping[str, tuple[str, CommandArgument]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeForm:
    """One probe.

    `one_of` names arguments of which exactly one must be given, `at_most_one_of` those that exclude one another.
    """

    answers: Answers
    arguments: Mapping[str, ArgumentKind] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    at_most_one_of: frozenset[str] = frozenset()
    timed: bool = False
    """Whether the answer is a time measured on a clock, so that a stall of this host can spoil it."""


COMMANDS: Mapping[str, CommandForm] = {
    f"{form.subject}.{form.verb}": form
    for form in (
        CommandForm(subject=Subject.GROUP, verb="online"),
        CommandForm(subject=Subject.GROUP, verb="offline"),
        CommandForm(subject=Subject.GROUP, verb="move", arguments={"to": ("target", CommandArgument.NODE)}),
        CommandForm(subject=Subject.RESOURCE, verb="online"),
        CommandForm(subject=Subject.RESOURCE, verb="offline"),
        CommandForm(subject=Subject.RESOURCE, verb="fail"),
        CommandForm(subject=Subject.NODE, verb="pause", arguments={"drain": ("drain", CommandArgument.YES_OR_NO)}),
        CommandForm(
            subject=Subject.NODE, verb="resume", arguments={"failback": ("failback", CommandArgument.FAILBACK)}
        ),
    )
}
"""The actions of the provider cluster."""


PROBES: Mapping[str, Mapping[str, ProbeForm]] = {
    "cluster": {
        "groups-online": ProbeForm(answers=Answers.BOOLEAN, arguments={"groups": ArgumentKind.GROUPS}),
        "groups-owned": ProbeForm(
            answers=Answers.NUMBER, arguments={"node": ArgumentKind.NODE}, required=frozenset({"node"})
        ),
        "nodes-up": ProbeForm(answers=Answers.NUMBER),
        "owner-of": ProbeForm(
            answers=Answers.TEXT, arguments={"group": ArgumentKind.GROUP}, required=frozenset({"group"})
        ),
        "persistent-state": ProbeForm(
            answers=Answers.NUMBER,
            arguments={"vm": ArgumentKind.VM},
            required=frozenset({"vm"}),
        ),
        "recovery-time": ProbeForm(
            answers=Answers.NUMBER,
            arguments={
                "group": ArgumentKind.GROUP,
                "vm": ArgumentKind.VM,
                "phase": ArgumentKind.PHASE,
            },
            at_most_one_of=frozenset({"group", "vm"}),
            timed=True,
        ),
        "restarted-in-place": ProbeForm(
            answers=Answers.BOOLEAN,
            arguments={"vm": ArgumentKind.VM},
            required=frozenset({"vm"}),
        ),
    },
    "client": {
        "answers": ProbeForm(
            answers=Answers.BOOLEAN,
            arguments={"groups": ArgumentKind.GROUPS, "vms": ArgumentKind.VMS},
            at_most_one_of=frozenset({"groups", "vms"}),
        ),
    },
}
"""Provider, probe, form."""
