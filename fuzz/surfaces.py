"""The surfaces: every reader of documents, requests and frames, with documents that are right, and its judge.

A judge returns a finding or None. An exception that escapes a judge is a finding as well. What each surface promises:
a document is refused in the surface's own words (one printable line for each refusal, with file, line and expected
form), or what was read of it can be used.
"""

import contextlib
import json
import random
import warnings
import xml.etree.ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import yaml

from chaos.compatibility.arenas import arena_views
from chaos.experiment.loader import read_experiment
from chaos.history.records import to_plain
from chaos.report.junit import render_junit
from chaos.report.markdown import render_markdown
from chaos.report.page import render_page
from chaos.report.run_record import read_journal
from chaos.search.replay import read_past_run
from chaos.search.schedule_file import read_schedule, write_schedule
from fuzz.finding import Finding
from fuzz.frames import ApiSurface, FrameSurface
from fuzz.journals import sample_journals
from fuzz.mutation import mutated_text, mutated_values
from harness.document.refusals import MAX_SHOWN
from harness.document.topology import read_topology
from harness.document.yaml_source import load
from harness.errors import UsageError
from harness.model.serialization import from_json_value, to_json_value
from harness.model.topology import Topology

__all__ = ["Surface", "surfaces"]

NAME = "fuzz.yaml"
EXPERIMENTS = Path(__file__).parents[1] / "chaos" / "experiments"


class Surface(Protocol):
    """One reader. Documents are bytes, whatever the reader takes."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def draw(self, rng: random.Random) -> bytes:
        """A mutated document."""
        ...

    def judge(self, document: bytes) -> Finding | None:
        """What the reader does with it that it must not do."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSurface:
    """A reader of text. `read` raises UsageError for a refusal, and any other exception is a finding."""

    name: str
    seeds: Sequence[str]
    read: Callable[[str], Finding | None]
    with_lines: bool = True
    by_values: float = field(default=0.6)
    """The share of documents whose values are edited, and not their text."""

    def draw(self, rng: random.Random) -> bytes:
        """A mutated document."""
        mutate = mutated_values if rng.random() < self.by_values else mutated_text
        return mutate(rng, rng.choice(self.seeds), self.seeds).encode("utf-8", "surrogatepass")

    def judge(self, document: bytes) -> Finding | None:
        """Read it, with Python's warnings as errors."""
        text = document.decode("utf-8", "replace")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                return self.read(text)
            except UsageError as error:
                return wrong_refusal(str(error), with_lines=self.with_lines)


def wrong_refusal(text: str, *, with_lines: bool) -> Finding | None:
    """A refusal that is not as refusals are, as a finding."""
    lines = text.split("\n")
    if len(lines) > MAX_SHOWN + 1:
        return Finding(kind="too many refusals", text=text[:2000])
    for line in lines:
        if not line.isprintable():
            return Finding(kind="refusal with control characters", text=repr(line[:2000]))
        head, _, rest = line.partition(f"{NAME}:")
        number = rest.partition(":")[0]
        if with_lines and (head or not number.isdigit()):
            return Finding(kind="refusal without file and line", text=line[:2000])
        if " expected " not in line:
            return Finding(kind="refusal without an expected form", text=line[:2000])
        if len(line) > 2000:
            return Finding(kind="refusal of more than a screen", text=line[:2000])
    return None


def _read_experiment(text: str) -> Finding | None:
    experiment = read_experiment(text, name=NAME)
    arena_views(experiment)
    json.dumps(to_plain(experiment.document), allow_nan=False).encode()
    steps = (*experiment.hypothesis, *experiment.during, *experiment.method, *experiment.rollbacks)
    for shown in (experiment.title, experiment.hypothesis_title, *(step.name for step in steps)):
        if any(sign < " " or sign == "\x7f" for sign in shown):
            return Finding(kind="control characters in a name", text=repr(shown))
    return _round_trip(experiment.topology)


def _round_trip(topology: Topology) -> Finding | None:
    plain = json.loads(json.dumps(to_json_value(topology), allow_nan=False))
    same = from_json_value(Topology, plain) == topology
    return None if same else Finding(kind="topology changed by its journal", text=repr(topology)[:2000])


def _read_topology(text: str) -> Finding | None:
    return _round_trip(read_topology(load(text, name=NAME)))


def _read_schedule(text: str) -> Finding | None:
    schedule = read_schedule(text, name=NAME)
    again = read_schedule(write_schedule(schedule, remarks=["again"]), name=NAME)
    return None if again == schedule else Finding(kind="schedule changed by its file", text=repr(schedule)[:2000])


class _Journals:
    """Journals on a disk, as the reports read them."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / NAME

    def read(self, text: str) -> Finding | None:
        """Read it as a run, and make every report of it."""
        self._file.write_text(text, encoding="utf-8", errors="replace")
        run = read_journal(self._file)
        markdown = render_markdown([run])
        if any(sign < " " and sign not in "\n" for sign in markdown):
            return Finding(kind="control characters in a report", text=repr(markdown[:2000]))
        xml.etree.ElementTree.fromstring(render_junit([run]))
        render_page([run]).encode()
        return None


def _read_past_run(text: str) -> Finding | None:
    past = read_past_run(text, name=NAME)
    read_experiment(past.experiment, name=NAME)
    return None


def surfaces(directory: Path) -> list[Surface]:
    """All surfaces; `directory` is for files that a reader wants on a disk."""
    experiments = [file.read_text(encoding="utf-8") for file in sorted(EXPERIMENTS.glob("*.yaml"))]
    rigs = [yaml.safe_dump(yaml.safe_load(text)["rig"], sort_keys=False) for text in experiments]
    documents, lines = sample_journals()
    return [
        TextSurface(name="experiment", seeds=[*experiments, *_single_steps(experiments)], read=_read_experiment),
        TextSurface(name="topology", seeds=[*rigs, *_TOPOLOGIES], read=_read_topology),
        TextSurface(name="schedule", seeds=_SCHEDULES, read=_read_schedule),
        TextSurface(
            name="journal", seeds=[*documents, *lines], read=_Journals(directory).read, with_lines=False, by_values=0.5
        ),
        TextSurface(name="replay", seeds=documents, read=_read_past_run, with_lines=False),
        ApiSurface(),
        FrameSurface(),
    ]


def _single_steps(experiments: Sequence[str]) -> list[str]:
    """Experiments of one step each, one for every way to write a step: in a small document an edit meets each part
    soon. A step that needs an earlier one makes none.
    """
    found: dict[str, str] = {}
    rig = {"nodes": 3, "voters": 3, "groups": 2}
    steps = [
        step
        for text in (_STEPS, *experiments)
        for step in (*yaml.safe_load(text)["method"], *yaml.safe_load(text).get("rollbacks", ()))
    ]
    for step in steps:
        shape = json.dumps([sorted(step), sorted(step["provider"]), step["provider"].get("fault")])
        text = yaml.safe_dump({"title": "t", "rig": rig, "method": [step]}, sort_keys=False)
        with contextlib.suppress(UsageError):
            read_experiment(text, name=NAME)
            found.setdefault(shape, text)
    return list(found.values())


_STEPS = """\
method:
  - {type: action, name: a, provider: {type: fault, fault: node.isolate, target: node1, from: [node2], direction: in}}
  - {type: action, name: b, provider: {type: fault, fault: vm.hang, target: web1-vm, how: sigstop, duration: 5s}}
  - {type: action, name: c, provider: {type: fault, fault: engine.resume, target: node1, then: drop}}
  - {type: action, name: d, provider: {type: fault, fault: vm.kill, target: {count: 1, of: "web*"}}, background: true}
  - {type: action, name: e, provider: {type: fault, fault: vm.stop, target: {percentage: 50, of: {label: node=node1}}}}
  - {type: action, name: f, provider: {type: fault, fault: node.reset, target: minority}, if-possible: true}
  - {type: action, name: g, provider: {type: fault, fault: voter.kill, target: {voter-of: node1}}, register: x}
  - {type: action, name: h, provider: {type: cluster, action: node.pause, node: {owner-of: web1}, drain: true}}
  - {type: action, name: i, provider: {type: cluster, action: node.resume, node: node1, failback: none}}
  - {type: action, name: j, provider: {type: cluster, action: group.move, group: web1, to: bystander}}
  - {type: action, name: k, provider: {type: cluster, action: resource.fail, resource: web1-vm}, pauses: {before: 1s}}
  - type: probe
    name: l
    provider: {type: cluster, probe: owner-of, group: web1}
    tolerance: {type: regex, pattern: "node[12]"}
    until: {timeout: 9s, interval: 1s}
    during: [{type: probe, name: m, provider: {type: cluster, probe: nodes-up}, tolerance: [1, 3], interval: 1s}]
  - {type: probe, name: n, provider: {type: cluster, probe: recovery-time, vm: web1-vm, phase: started}}
  - {type: probe, name: o, provider: {type: cluster, probe: groups-online, groups: [web1]}, tolerance: true}
  - {type: probe, name: p, provider: {type: client, probe: answers, vms: [web1-vm]}, tolerance: true}
  - {type: probe, name: q, provider: {type: cluster, probe: groups-owned, node: node1}, tolerance: [0, 1, 2]}
  - type: probe
    name: r
    provider: {type: cluster, probe: persistent-state, vm: web1-vm}
    tolerance: {type: range, range: [0, 1]}
"""
_TOPOLOGIES = (
    """\
nodes: [a, b, c]
voters: 2
witness: true
subnet: 10.87.3.0/24
settings: {beat: 500ms, lease: 2s, grace: 1s, fencing: power, program-ask: 1s, program-silence: 5s, voter-disk: 64MiB}
groups:
  - name: web
    preferred-owners: [b]
    possible-owners: [a, b]
    priority: high
    failback: allow
    failback-window: [22, 6]
    failover-threshold: 3
    resources:
      - {name: web-ip, type: ip-address, address: "101"}
      - {name: web-ip2, type: ip-address}
      - name: web-vm
        type: virtual-machine
        depends-on: "[web-ip] or [web-ip2]"
        image: shop/database:15
        command: "serve --fast 'a b'"
        environment: {MODE: fast, SIZE: 3}
        memory: 256MiB
        processors: 0.5
        processes: 100
        volumes: ["data:/var/lib/data", "log:/var/log/x"]
        readiness: {http: /health, port: 8000, interval: 500ms, timeout: 2s, liveness: true}
        answers-on: 5432
        user: 12000
        restart-threshold: 3
        is-alive-interval: 1s
        retry-period-on-failure: never
""",
    "nodes: 3\ngroups: 2\nsettings: {fencing: self}\n",
    "rig:\n  nodes: 5\n  witness: false\n  groups: 4\n",
)
_SCHEDULES = (
    """\
schedule: 1
seed: 86
rig: {nodes: 3, groups: 2}
faults:
  - {at: 8.25s, fault: node.power-off, target: node1, duration: 2100ms}
  - {at: 9s, fault: administrator.command, target: node2/web1, duration: 900ms}
  - {at: 9s, fault: node.reset, target: node2, duration: 0s}
""",
    "schedule: 1\nseed: 1\nrig:\n  nodes: [a, b, c]\n  groups: 1\nfaults: []\n",
)
