"""What a report knows of one run: its journal, read back into records. Nothing else is ever asked.

`journal.json` is the whole document of a run that came to its end. `journal.jsonl` is what a run that was killed leaves
behind: it has no verdict, and the report says so. A journal is a file like any other and may have been touched: what
does not fit a record is left out and counted, what is no journal at all is refused. One of another version is refused
when part of it does not fit, and else read with a remark: the words may be the same and mean something else.
"""

import json
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from chaos.history.records import ClusterSeen, ContainerRole, EngineEventSeen, History, Record
from chaos.history.verdict import ExitCode, Finding, Verdict, exit_meaning
from chaos.output.sanitized_text import cut
from harness.document.text_file import read_text_file
from harness.errors import UsageError
from harness.model.serialization import from_json_value

__all__ = ["GroupPlace", "RunRecord", "read_journal"]

MAX_JOURNAL_BYTES = 1 << 30
"""A day of a large rig is a tenth of it; more than this is not read into memory."""

MAX_INTEGER = 1 << 62
"""Of a journal: nanoseconds until the year 2116, and every sum of two of them is a number of 64 bits."""

NO_VERDICT = "no verdict: the run did not come to its end"

_KINDS: Mapping[str, type[Any]] = {kind.__name__: kind for kind in typing.get_args(Record)}


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlace:
    """A group and its virtual machines, in the order of the rig's document."""

    name: str
    vms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run. Times are Unix nanoseconds.

    `code` is None for a run that has no verdict; `facts` are versions and image digests; `document` is the experiment
    as it was read; `left_out` counts the parts of the journal that could not be read. `version` is that of Blackstart
    that ran it, empty when the journal does not say it.
    """

    source: str
    version: str
    title: str
    file: str
    rig: str
    code: ExitCode | None
    began_ns: int
    ended_ns: int
    history: History
    findings: tuple[Finding, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()
    voters: tuple[str, ...] = ()
    groups: tuple[GroupPlace, ...] = ()
    left_out: int = 0

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return NO_VERDICT if self.code is None else exit_meaning(self.code)

    @property
    def remark(self) -> str:
        """That the journal is of another version, as a sentence; empty when it is of this one."""
        here = metadata.version("blackstart")
        if self.version == here:
            return ""
        return (
            f"a journal of {_version(self.version)}, read by version {here}: its entries fit, and may have meant "
            "something else there"
        )

    @property
    def passed(self) -> bool:
        """Whether it is a pass: exit code 0 and nothing else."""
        return self.code is ExitCode.PASSED

    @property
    def description(self) -> str:
        """What the experiment's author says of it."""
        return str(self.document.get("description") or "")

    def seconds(self, at_ns: int) -> float:
        """Seconds from the beginning of the run."""
        return (at_ns - self.began_ns) / 1e9


def read_journal(path: Path) -> RunRecord:
    """The run in a `journal.json` or a `journal.jsonl`.

    Raises UsageError, naming the file, for what is neither, and for one of another version that does not fit this one.
    """
    text = read_text_file(path, max_bytes=MAX_JOURNAL_BYTES, expected="the journal of a run")
    try:
        whole = _object(text)
        parts = _Parts.of_lines(text) if whole is None or "record" in whole else _Parts.of_document(whole)
        return parts.record(source=str(path))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = _one_line(error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
        raise UsageError(
            f"{path}: {reason}; expected the journal.json of a run of this version, or its journal.jsonl"
        ) from error


class _Parts:
    """A journal taken apart, whichever of the two it was."""

    def __init__(self) -> None:
        self.about: Mapping[str, Any] = {}
        self.began_ns = 0
        self.ended_ns: int | None = None
        self.code: ExitCode | None = None
        self.findings: list[Any] = []
        self.verdicts: list[Any] = []
        self.facts: Mapping[str, Any] = {}
        self.history = History()
        self.torn = 0
        self.misfits = 0

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> "_Parts":
        """Raises ValueError for a document that is no journal of ours."""
        ours = document.get("blackstart")
        if not isinstance(ours, dict) or not isinstance(document.get("history"), list):
            raise ValueError("it has no keys `blackstart` and `history`")
        parts = cls()
        parts.about = {**ours, "experiment": document.get("experiment")}
        parts.began_ns, parts.ended_ns = int(ours["began_ns"]), int(ours["ended_ns"])
        parts.code = ExitCode(ours["exit_code"])
        parts.findings, parts.verdicts = _list(ours.get("findings")), _list(ours.get("checkers"))
        parts.facts = {
            **_mapping(ours.get("arena")),
            "platform": document.get("platform", ""),
            "host": document.get("node", ""),
        }
        parts.take_records(document["history"])
        return parts

    @classmethod
    def of_lines(cls, text: str) -> "_Parts":
        """Raises ValueError when the first line is not the beginning of a run."""
        lines = [_object(line) for line in text.split("\n") if line.strip()]
        first = lines[0] if lines else None
        if first is None or first.get("record") != "run-began":
            raise ValueError("its first line does not say that a run began")
        parts = cls()
        parts.about, parts.began_ns = first, int(first["at_ns"])
        for line in lines[1:]:
            if line is None:
                parts.torn += 1
            else:
                parts._take_line(line)
        return parts

    def _take_line(self, line: Mapping[str, Any]) -> None:
        match line.get("record"):
            case "facts":
                self.facts = {key: value for key, value in line.items() if key != "record"}
            case "verdict":
                self.verdicts.append(line.get("verdict"))
            case "run-ended":
                self.ended_ns, self.code = int(line["at_ns"]), ExitCode(line["exit_code"])
                self.findings = _list(line.get("findings"))
            case "traceback":
                pass  # for whoever mends the defect; its finding tells the rest
            case _:
                self.take_records([line])

    def take_records(self, plain: Iterable[Any]) -> None:
        """Append what is a record."""
        for entry in plain:
            try:
                kind = _KINDS[entry["record"]]
                content = {key: value for key, value in entry.items() if key != "record"}
                self.history.append(from_json_value(kind, content))
            except (ValueError, TypeError, KeyError, RecursionError):
                self.misfits += 1

    def record(self, *, source: str) -> RunRecord:
        """Raises ValueError for a journal of another version that does not fit."""
        version, here = str(self.about.get("version") or ""), metadata.version("blackstart")
        if self.misfits and version != here:
            raise ValueError(f"it is of {_version(version)}: version {here} cannot read {self.misfits} of its entries")
        topology = _mapping(self.about.get("topology"))
        last_ns = max((entry.at_ns for entry in self.history), default=self.began_ns)
        ended_ns = last_ns if self.ended_ns is None else self.ended_ns
        return RunRecord(
            source=source,
            version=version,
            title=str(self.about.get("title") or "no title"),
            file=str(self.about.get("file") or ""),
            rig=str(self.about.get("rig") or ""),
            code=self.code,
            began_ns=self.began_ns,
            ended_ns=max(ended_ns, self.began_ns),
            history=self.history,
            findings=tuple(from_json_value(Finding, entry) for entry in self.findings),
            verdicts=tuple(from_json_value(Verdict, entry) for entry in self.verdicts),
            facts=self.facts,
            document=_mapping(self.about.get("experiment")),
            nodes=_nodes(topology, self.history),
            voters=tuple(str(node["name"]) for node in _list(topology.get("nodes")) if node.get("voter")),
            groups=_groups(topology, self.history),
            left_out=self.torn + self.misfits,
        )


def _version(version: str) -> str:
    return f"version {version}" if version else "an unknown version"


def _nodes(topology: Mapping[str, Any], history: History) -> tuple[str, ...]:
    """In the rig's order; those that nobody planned but somebody saw come last."""
    planned = [str(node["name"]) for node in _list(topology.get("nodes"))]
    seen = {event.node for event in history.of(EngineEventSeen) if event.role is ContainerRole.NODE and event.node}
    seen |= {node.name for snapshot in history.of(ClusterSeen) for node in snapshot.nodes}
    return (*planned, *sorted(seen - set(planned)))


def _groups(topology: Mapping[str, Any], history: History) -> tuple[GroupPlace, ...]:
    """In the rig's order, each with its VMs; what was only seen comes last."""
    vms: dict[str, list[str]] = {}
    for group in _list(topology.get("groups")):
        resources = [entry for entry in _list(group.get("resources")) if entry["type"] == "virtual-machine"]
        vms.setdefault(str(group["name"]), []).extend(str(entry["name"]) for entry in resources)
    planned = {name for names in vms.values() for name in names}
    for event in history.of(EngineEventSeen):
        if event.role is ContainerRole.VM and event.vm and event.vm not in planned:
            planned.add(event.vm)
            vms.setdefault(event.group, []).append(event.vm)
    return tuple(GroupPlace(name=name, vms=tuple(names)) for name, names in vms.items())


def _object(text: str) -> dict[str, Any] | None:
    """The object in `text`; None for everything else, and for numbers that no journal has."""
    try:
        found = json.loads(text, parse_constant=_constant, parse_float=_float, parse_int=_integer)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _one_line(text: object) -> str:
    return " ".join(cut(text).split())


def _constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number beyond the floating-point numbers")
    return value


def _integer(digits: str) -> int:
    value = int(digits)
    if abs(value) > MAX_INTEGER:
        raise ValueError("a number of more than 64 bits")
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
