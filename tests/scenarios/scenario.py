"""One scenario: a rig, what befalls it and when, what must hold at the end, and the story that its log tells.

    title: one sentence
    seed: 1
    rig: {nodes: 3, groups: 2}                  # as in an experiment
    steps:
      - {at: 5s, do: node.isolate, node: node1}
      - {at: 9s, do: ask, node: node2, call: group.move, group: web1, target: node3}
    end: 20s
    expect:
      - {group: web1, owner: node2, persistent-state: {web1-vm: true}}
      - {vm: web1-vm, runs-on: node2}      # or nowhere
      - {event: node-fenced, times: 1}          # of the whole log; or at-least: 1

Times are simulated, from the first power-on. A wrong document is refused with file and line.
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.document.duration import parse_duration_us
from harness.document.mapping_reader import MappingReader
from harness.document.topology import read_topology
from harness.document.yaml_source import Refusals, load, nearest
from harness.model.records import GroupRecord
from harness.model.topology import Topology
from harness.simulation.twins.engine_faults import StartTrouble
from harness.simulation.world.composition import Composition
from harness.simulation.world.world import TraceLine, World

__all__ = ["Scenario", "Told", "play", "read_scenario"]

HOUR_US = 3_600_000_000
NOISE = frozenset(
    {"voters-known", "resource-state", "vmms-started", "resource-host-started", "voter-silent", "voter-answers"}
)
"""Events that tell how the parts work, not what the cluster does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`arguments` are what the deed wants."""

    at_us: int
    do: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    title: str
    seed: int
    topology: Topology
    steps: tuple[Step, ...]
    end_us: int
    expect: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came of it: the log for people, and each expectation that was not met, as a sentence."""

    log: str
    broken: tuple[str, ...]


def read_scenario(path: Path) -> Scenario:
    """Raises UsageError with every refusal."""
    source = load(path.read_text(encoding="utf-8"), name=str(path))
    refusals = Refusals(str(path))
    section = MappingReader(source.data, source=source, path=(), refusals=refusals, what="a scenario")
    for key in ("title", "rig", "steps", "end", "expect"):
        section.demand(key, f"{key}: as the module says", given=False)
    section.known("rig")
    refusals.raise_any()
    topology = read_topology(source, path=("rig",), rig="scenario")
    end_us = section.duration_us("end", 0, low=0, high=24 * HOUR_US)
    steps = tuple(_step(entry, end_us) for entry in section.sections("steps", what="a step"))
    scenario = Scenario(
        title=section.text("title", ""),
        seed=section.integer("seed", 1, low=0, high=1 << 32),
        topology=topology,
        steps=steps,
        end_us=end_us,
        expect=tuple(_expectation(entry) for entry in section.sections("expect", what="an expectation")),
    )
    section.finish()
    refusals.raise_any()
    return scenario


def play(scenario: Scenario, composition: Composition | None = None) -> Told:
    """Run it. A violation of an invariant is an expectation that was not met."""
    world = World(scenario.topology, seed=scenario.seed, composition=composition)
    for step in scenario.steps:
        world.clock.at(step.at_us, _deed(world, step))
    world.run(scenario.end_us)
    broken = [*world.violations]
    for expectation in scenario.expect:
        broken += _unmet(world, expectation)
    out = io.StringIO()
    for line in world.trace:
        if line.event not in NOISE:
            out.write(_shown(line) + "\n")
    return Told(log=out.getvalue(), broken=tuple(broken))


def _step(section: MappingReader, end_us: int) -> Step:
    word = section.raw("do")
    wanted = DEEDS.get(word, ((), _nothing))[0] if isinstance(word, str) else ()
    if word not in DEEDS:
        section.refuse("do", f"nobody can do {word!r}", nearest(str(word), DEEDS))
    for name in wanted:
        section.demand(name, f"{name}: whom or what", given=False)
    at_us = section.duration_us("at", 0, low=0, high=end_us)
    taken = ("at", "do")
    arguments = {key: value for key, value in section.items() if key not in taken}
    for key in arguments:
        section.known(key)
    section.finish()
    return Step(at_us=at_us, do=str(word), arguments=arguments)


def _expectation(section: MappingReader) -> Mapping[str, Any]:
    known = {"group": ("owner", "persistent-state", "epoch"), "vm": ("runs-on",), "event": ("times", "at-least")}
    kinds = [kind for kind in known if kind in section]
    if len(kinds) != 1:
        section.refuse(None, "an expectation about nothing", "one of group, VM, event")
        return {}
    for key in (kinds[0], *known[kinds[0]]):
        section.known(key)
    section.finish()
    return dict(section.items())


# What can be done


def _nothing(_world: World, _arguments: Mapping[str, Any]) -> None:
    pass


def _power_off(world: World, arguments: Mapping[str, Any]) -> None:
    for node in _names(arguments["node"]):
        world.engine.hold(world.topology.rig, node)
        world.engine.power_off_node(node)


def _power_on(world: World, arguments: Mapping[str, Any]) -> None:
    for node in _names(arguments["node"]):
        world.engine.release(world.topology.rig, node)
        if not world.engine.node(node).running:
            world.engine.start_node(node)


def _isolate(world: World, arguments: Mapping[str, Any]) -> None:
    for node in _names(arguments["node"]):
        world.network.isolate(node)


def _join(world: World, arguments: Mapping[str, Any]) -> None:
    for node in _names(arguments["node"]):
        world.network.join(node)


def _hang(world: World, arguments: Mapping[str, Any]) -> None:
    for node in _names(arguments["node"]):
        world.nodes[node].stop_process(str(arguments["program"]))


def _go_on(world: World, arguments: Mapping[str, Any]) -> None:
    for node in _names(arguments["node"]):
        world.nodes[node].continue_process(str(arguments["program"]))


def _kill(world: World, arguments: Mapping[str, Any]) -> None:
    world.nodes[str(arguments["node"])].kill_process(str(arguments["program"]))


def _crash(world: World, arguments: Mapping[str, Any]) -> None:
    for box in world.instances.running(str(arguments["vm"])):
        world.engine.crash_vm(box.id)


def _stop_by_hand(world: World, arguments: Mapping[str, Any]) -> None:
    for box in world.instances.running(str(arguments["vm"])):
        world.engine.stop_by_hand(box.id)


def _start_by_hand(world: World, arguments: Mapping[str, Any]) -> None:
    boxes = [box for box in world.engine.guests(str(arguments["node"])) if not box.running]
    box = next(one for one in boxes if one.spec is not None and one.spec.name == arguments["vm"])
    world.instances.foreign.add(box.id)
    world.engine.start_by_hand(box.id)


def _hold_starts(world: World, arguments: Mapping[str, Any]) -> None:
    """`until` is a time of the scenario."""
    world.nodes[str(arguments["node"])].client.hold_starts(parse_duration_us(arguments["until"]))


def _wipe(world: World, arguments: Mapping[str, Any]) -> None:
    world.wipe_voter(str(arguments["node"]))


def _ask(world: World, arguments: Mapping[str, Any]) -> None:
    about = {key: value for key, value in arguments.items() if key not in ("node", "call", "of")}
    if "of" in arguments:
        about["node"] = arguments["of"]
    world.administrator.ask(str(arguments["node"]), str(arguments["call"]), about)


def _not_ready(world: World, arguments: Mapping[str, Any]) -> None:
    world.engine.not_ready.add(str(arguments["vm"]))


def _failing_start(world: World, arguments: Mapping[str, Any]) -> None:
    troubles, until_us = world.engine.troubles, parse_duration_us(arguments["until"])
    troubles.starts[str(arguments["vm"]), StartTrouble.FAILING] = until_us


DEEDS: Mapping[str, tuple[tuple[str, ...], Callable[[World, Mapping[str, Any]], None]]] = {
    "node.power-off": (("node",), _power_off),
    "node.power-on": (("node",), _power_on),
    "node.isolate": (("node",), _isolate),
    "node.join-network": (("node",), _join),
    "program.hang": (("node", "program"), _hang),
    "program.go-on": (("node", "program"), _go_on),
    "program.kill": (("node", "program"), _kill),
    "vm.crash": (("vm",), _crash),
    "vm.stop-by-hand": (("vm",), _stop_by_hand),
    "vm.start-by-hand": (("vm", "node"), _start_by_hand),
    "vm.not-ready": (("vm",), _not_ready),
    "vm.failing-start": (("vm", "until"), _failing_start),
    "engine.hold-starts": (("node", "until"), _hold_starts),
    "voter.wipe": (("node",), _wipe),
    "ask": (("node", "call"), _ask),
}


def _deed(world: World, step: Step) -> Callable[[], None]:
    def do() -> None:
        about = " ".join(str(value) for value in step.arguments.values())
        world.record("", "scenario", step.do, {"message": about})
        DEEDS[step.do][1](world, step.arguments)

    return do


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) else [str(value)]


# What must hold


def _unmet(world: World, expectation: Mapping[str, Any]) -> list[str]:
    if "group" in expectation:
        return _unmet_of_group(world, expectation)
    if "vm" in expectation:
        name, wanted = expectation["vm"], expectation["runs-on"]
        running = [box.node for box in world.instances.running(name)]
        met = running == ([] if wanted == "nowhere" else [wanted])
        return [] if met else [f"{name} runs on {running}, not {wanted}"]
    seen = Counter(line.event for line in world.trace)[expectation["event"]]
    exactly, least = expectation.get("times"), expectation.get("at-least", 0)
    wrong = seen != exactly if exactly is not None else seen < least
    return [f"{expectation['event']} was told {seen} times, not {exactly or least}"] if wrong else []


def _unmet_of_group(world: World, expectation: Mapping[str, Any]) -> list[str]:
    record = world.chosen.newest(f"group/{expectation['group']}")
    assert isinstance(record, GroupRecord)
    owner = record.owner.node if record.owner is not None else None
    found = {"owner": owner, "epoch": record.epoch}
    broken = [
        f"{expectation['group']}: {key} is {found[key]}, not {expectation[key]}"
        for key in found
        if key in expectation and found[key] != expectation[key]
    ]
    for name, wanted in expectation.get("persistent-state", {}).items():
        if record.persistent[name] != wanted:
            broken.append(f"{name}: PersistentState is {record.persistent[name]}, not {wanted}")
    return broken


def _shown(line: TraceLine) -> str:
    """Seconds with three digits, who, what, and the sentence; a VM's name where there is no sentence."""
    message = line.fields.get("message") or line.fields.get("vm") or line.fields.get("reason") or ""
    number = f" [{line.fields['id']}]" if line.fields.get("id") else ""
    return f"{line.at_us / 1e6:8.3f} {line.node:6} {line.event}{number}{': ' if message else ''}{message}"
