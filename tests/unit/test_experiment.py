"""Reading experiment files: what is understood, and what is refused with file, line and the expected form."""

from pathlib import Path

import pytest

from chaos.experiment.document_reader import rig_name
from chaos.experiment.loader import load_experiment, read_experiment
from chaos.experiment.records import Experiment, FaultCall, ProbeCall, Until
from chaos.experiment.targets import ByLabel, ByName, Bystander, FromRegister, OwnerOf
from chaos.experiment.tolerance import Equal, InRange, Matches, OneOf, Tolerance, read_tolerance
from harness.errors import UsageError
from harness.model.name import is_name

SHIPPED = sorted((Path(__file__).parents[2] / "chaos" / "experiments").glob("*.yaml"))

HEAD = """\
title: A test
rig:
  nodes: 3
  groups:
    - {name: web, resources: [{name: web-vm, type: virtual-machine}]}
    - {name: data, resources: [{name: data-vm, type: virtual-machine}]}
"""
"""Six lines: what a test appends begins on line 7."""


def read(rest: str) -> Experiment:
    return read_experiment(HEAD + rest, name="test.yaml")


def refusals(rest: str) -> list[str]:
    with pytest.raises(UsageError) as refused:
        read(rest)
    return str(refused.value).splitlines()


def refusal(rest: str) -> str:
    (only,) = refusals(rest)
    return only


def action(target: str, fault: str = "node.power-off", more: str = "") -> str:
    return f"  - {{type: action, name: act, provider: {{type: fault, fault: {fault}, target: {target}}}{more}}}\n"


def probe(provider: str, more: str = "") -> str:
    return f"  - {{type: probe, name: ask, provider: {{{provider}}}{more}}}\n"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_experiment_is_valid(path: Path) -> None:
    experiment = load_experiment(path)

    assert experiment.topology.rig == path.stem
    assert experiment.method


def test_shipped_experiments_are_there() -> None:
    assert {path.name for path in SHIPPED} >= {"node-power-cut.yaml", "vm-crash.yaml"}


def test_an_experiment_becomes_records_with_their_lines() -> None:
    experiment = read(
        "steady-state-hypothesis:\n  title: well\n  probes:\n"
        "    - {type: probe, name: up, provider: {type: cluster, probe: nodes-up}, tolerance: 3}\n"
        "method:\n"
        + action("{owner-of: web}", more=", register: victim, pauses: {before: 500ms, after: 2}")
        + probe(
            "type: cluster, probe: recovery-time, group: web, phase: answering",
            ", tolerance: {type: range, range: [0, 5]}, until: {timeout: 30s, interval: 1s}",
        )
        + "rollbacks:\n"
        + action('"${victim}"', fault="node.power-on")
    )

    cut, recovered = experiment.method
    assert cut.call == FaultCall(fault="node.power-off", target=OwnerOf(group="web"))
    assert (cut.register, cut.pause_before_us, cut.pause_after_us, cut.line) == ("victim", 500_000, 2_000_000, 12)
    assert isinstance(recovered.call, ProbeCall)
    assert recovered.call.timed
    assert recovered.tolerance == InRange(low=0, high=5)
    assert recovered.until == Until(timeout_us=30_000_000, interval_us=1_000_000)
    (rollback,) = experiment.rollbacks
    assert rollback.call == FaultCall(fault="node.power-on", target=FromRegister(register="victim"))
    assert experiment.hypothesis[0].tolerance == Equal(value=3)


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("node2", ByName(name="node2")),
        ("{node: node2}", ByName(name="node2")),
        ("{owner-of: web}", OwnerOf(group="web")),
        ("bystander", Bystander()),
        ("{bystander-of: web}", Bystander(group="web")),
        ("{label: node=node3}", ByLabel(key="node", value="node3")),
    ],
)
def test_targets_of_nodes(written: str, target: object) -> None:
    (activity,) = read("method:\n" + action(written)).method

    assert activity.call == FaultCall(fault="node.power-off", target=target)  # type: ignore[arg-type]


def test_a_fault_may_say_how_long_it_lasts() -> None:
    (activity,) = read("method:\n" + action("node2, duration: 1500ms")).method

    assert activity.call == FaultCall(fault="node.power-off", target=ByName(name="node2"), duration_us=1_500_000)


@pytest.mark.parametrize(
    ("written", "what"),
    [
        (action("node1, duration: 5"), "duration: 5 has no unit, expected a duration with its unit"),
        (action("node1, duration: 0s"), "duration is 0s, expected a duration from 10ms to 24h"),
        (action("web-vm, duration: 5s", fault="vm.crash"), "vm.crash has nothing to heal, expected a fault without"),
    ],
)
def test_a_duration_that_means_nothing_is_refused(written: str, what: str) -> None:
    assert what in refusal("method:\n" + written)


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("web-vm", ByName(name="web-vm")),
        ("{vm: web-vm}", ByName(name="web-vm")),
        ("{label: io.blackstart.group=web}", ByLabel(key="group", value="web")),
    ],
)
def test_targets_of_vms(written: str, target: object) -> None:
    (activity,) = read("method:\n" + action(written, fault="vm.crash")).method

    assert activity.call == FaultCall(fault="vm.crash", target=target)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (
            "methods: []\n",
            [
                "test.yaml:1: an experiment has no method, expected a list of activities, which may be empty",
                "test.yaml:7: an experiment has no key 'methods', expected method (did you mean that?)",
            ],
        ),
        ("method: {}\n", ["test.yaml:7: method is {}, expected a list, each item an activity"]),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused(rest: str, expected: list[str]) -> None:
    assert refusals(rest) == expected


@pytest.mark.parametrize(
    ("rest", "what"),
    [
        (action("node1", fault="node.power-of"), "8: there is no fault 'node.power-of', expected node.power-off"),
        (action("node1", fault="vm.crash"), "8: the rig has no VM 'node1', expected one of data-vm, web-vm"),
        (action("node4"), "8: the rig has no node 'node4', expected node"),
        (action("{owner-of: wep}"), "8: the rig has no group 'wep', expected web"),
        (action("{owner: web}"), "8: there is no target 'owner', expected owner-of"),
        (action("{vm: web-vm}"), "8: node.power-off is aimed at a node, vm names a VM"),
        (action("{owner-of: web}", fault="vm.crash"), "8: vm.crash is aimed at a VM, owner-of names a node"),
        (
            action("{node: node1, vm: web-vm}"),
            "8: target is {'node': 'node1', 'vm': 'web-vm'}, expected a name",
        ),
        (action("3"), "8: target is 3, expected a name"),
        (action('"${victim}"'), "8: no earlier step registers 'victim'"),
        (action('"x-${victim}"'), "expected a name, or ${REGISTER} alone"),
        (action("{label: color=red}"), "8: label is 'color=red', expected KEY=VALUE with KEY one of node"),
        (action("{label: node=node9}"), "8: the rig has no node 'node9'"),
        (action("node1", more=", tolerance: true"), "8: a tolerance on an action"),
        (action("node1", more=", until: {timeout: 3s}"), "8: until on an activity that is not asked again"),
        (action("node1", more=", background: 1"), "8: background is 1, expected true or false"),
        (
            probe("type: cluster, probe: nodes-up", ", background: true"),
            "8: background in method, type probe, expected an action of the method",
        ),
        (action("node1", more=", pauses: {before: -1}"), "8: before is -1, expected 0 to 24h"),
        (action("node1", more=", pauses: {before: soon}"), "8: before: 'soon' is no duration"),
        (action("node1", more=", pauses: {befor: 1s}"), "8: pauses has no key 'befor', expected before"),
        (action("node1", more=", register: 'a b'"), "8: register is 'a b', expected a name of letters"),
        (action("node1", more=", registre: x"), "has no key 'registre', expected register"),
        (probe("type: cluster, probe: node-up"), "8: the provider cluster has no probe 'node-up', expected nodes-up"),
        (probe("type: clusters, probe: nodes-up"), "8: there is no provider 'clusters', expected cluster"),
        (probe("type: process, path: ls"), "8: the provider process is not available yet"),
        (probe("type: python, module: os"), "8: the provider python is not available yet"),
        (probe("type: fault, fault: vm.crash, target: web-vm"), "8: a fault as a probe"),
        (probe("type: cluster, probe: owner-of"), "has no group, expected a group"),
        (probe("type: cluster, probe: owner-of, group: nope"), "8: the rig has no group 'nope'"),
        (probe("type: cluster, probe: nodes-up, group: web"), "has no key 'group'"),
        (
            probe("type: cluster, probe: recovery-time, group: web, vm: web-vm"),
            "8: group and vm exclude each other",
        ),
        (probe("type: cluster, probe: recovery-time, phase: stared"), "8: phase is 'stared', expected started"),
        (
            probe("type: client, probe: answers, vms: [web]"),
            "8: the rig has no such thing as 'web', expected web-vm",
        ),
        (probe("type: cluster, probe: nodes-up", ", tolerance: true"), "8: tolerance: the probe answers with a number"),
        (
            probe("type: cluster, probe: nodes-up", ", tolerance: [3, 1]"),
            "8: tolerance: the range is empty: 3 is above 1",
        ),
        (probe("type: cluster, probe: groups-online", ", tolerance: [0, 1]"), "a range needs a number"),
        (probe("type: cluster, probe: nodes-up", ", tolerance: {type: jsonpath}"), "only range and regex are"),
        (
            probe("type: cluster, probe: owner-of, group: web", ", tolerance: {type: regex, pattern: '('}"),
            "no regular expression",
        ),
        (
            probe("type: cluster, probe: nodes-up", ", tolerance: 3, until: {timeout: 0s}"),
            "8: timeout is 0s, expected a duration from 10ms",
        ),
        (probe("type: cluster, probe: nodes-up", ", tolerance: 3, until: {timeout: 30}"), "8: timeout: 30 has no unit"),
        (probe("type: cluster, probe: nodes-up", ", tolerance: 3, until: {timeout: 900h}"), "8: timeout is 900h"),
        (
            probe("type: cluster, probe: nodes-up", ", tolerance: 3, until: {timeout: 1s, interval: 2s}"),
            "8: an interval of 2s",
        ),
        (probe("type: cluster, probe: nodes-up", ", until: {timeout: 1s}"), "8: until without a tolerance"),
        ("  - {type: wait, name: x, provider: {}}\n", "8: type is 'wait', expected action or probe"),
        ("  - 3\n", "8: an activity is 3, expected a mapping"),
    ],
)
def test_activities_that_make_no_sense_are_refused(rest: str, what: str) -> None:
    found = refusals("method:\n" + rest)

    assert any(what in line and line.startswith("test.yaml:8:") for line in found), found


def test_a_register_must_hold_the_kind_of_thing_that_the_fault_is_aimed_at() -> None:
    rest = "method:\n" + action("web-vm", fault="vm.crash", more=", register: crashed") + action('"${crashed}"')

    assert "9: node.power-off is aimed at a node, ${crashed} holds a VM" in refusal(rest)


def test_a_register_is_known_only_after_the_step_that_writes_it() -> None:
    early = "method:\n" + action('"${victim}"', fault="node.power-on") + action("node1", more=", register: victim")

    assert "8: no earlier step registers 'victim'" in refusal(early)


def test_a_register_is_written_once() -> None:
    twice = "method:\n" + action("node1", more=", register: a") + action("node2", more=", register: a")

    assert "9: an earlier step registers 'a'" in refusal(twice)


def test_the_steady_state_is_probes_with_tolerances() -> None:
    rest = (
        "method: []\nsteady-state-hypothesis:\n  title: well\n  probes:\n"
        "    - {type: probe, name: up, provider: {type: cluster, probe: nodes-up}}\n"
        "    - {type: action, name: cut, provider: {type: fault, fault: node.power-off, target: node1}}\n"
    )

    found = refusals(rest)
    assert any(line.startswith("test.yaml:11: an activity has no tolerance") for line in found)
    assert any(line.startswith("test.yaml:12: an action in steady-state-hypothesis") for line in found)


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file() -> None:
    text = HEAD.replace("nodes: 3", "nodes: many") + "method:\n" + action("node1", fault="x") + "colour: red\n"

    with pytest.raises(UsageError) as refused:
        read_experiment(text, name="test.yaml")

    lines = [int(line.split(":")[1]) for line in str(refused.value).splitlines()]
    assert lines == [3, 8, 9]


@pytest.mark.parametrize("key", ["configuration", "secrets", "controls", "extensions"])
def test_what_is_not_available_yet_is_refused_and_not_ignored(key: str) -> None:
    assert f"7: {key} is not available yet" in refusal(f"{key}: {{a: 1}}\nmethod: []\n")


def test_what_is_empty_is_no_reason_to_refuse_a_chaos_toolkit_file() -> None:
    experiment = read("version: 1.0.0\nconfiguration: {}\ncontributions: {availability: high}\ntags: [a]\nmethod: []\n")

    assert experiment.tags == ("a",)


@pytest.mark.parametrize("text", ["", "- a\n", "3\n", "title: x\n"])
def test_a_file_that_is_no_experiment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^test\.yaml:1:"):
        read_experiment(text, name="test.yaml")


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"title: \xe4\n")

    with pytest.raises(UsageError, match="not UTF-8"):
        load_experiment(tmp_path / "latin.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        load_experiment(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("chaos/experiments/node-power-cut.yaml", "node-power-cut"),
        ("My Test_2.YAML", "my-test-2"),
        ("9.yaml", "experiment"),
        ("a-name-of-twenty-eight-chars.yaml", "a-name-of-twenty-eight-chars"),
        ("x" * 32 + ".yaml", "x" * 32),
    ],
)
def test_a_rig_without_a_name_is_named_after_its_file(file: str, name: str) -> None:
    assert rig_name(file) == name


def test_long_names_of_files_are_not_cut_alike() -> None:
    files = [f"recovery-of-a-database-after-a-power-cut-{which}.yaml" for which in ("of-node1", "of-node2", "")]

    names = [rig_name(file) for file in files]

    assert len(set(names)) == len(files)
    assert all(is_name(name) and name.startswith("recovery-of-a-database-af") for name in names)
    assert names == [rig_name(f"elsewhere/{file}") for file in files]


@pytest.mark.parametrize(
    ("written", "tolerance", "holds", "does_not"),
    [
        (True, Equal(value=True), [True], [1, "true", None, False]),
        (3, Equal(value=3), [3, 3.0], [True, "3", 4]),
        ([1, 5], InRange(low=1, high=5), [1, 5.0, 3], [0.99, True, None, "3"]),
        ({"type": "range", "range": [0, 0.5]}, InRange(low=0, high=0.5), [0.5], [0.51]),
        (["node1", "node2"], OneOf(values=("node1", "node2")), ["node2"], ["node3", None]),
        ({"type": "regex", "pattern": "^node[12]$"}, Matches(pattern="^node[12]$"), ["node1"], ["node3", None, 1]),
    ],
)
def test_tolerances(written: object, tolerance: Tolerance, holds: list[object], does_not: list[object]) -> None:
    read_back = read_tolerance(written)

    assert read_back == tolerance
    assert all(read_back.holds(answer) for answer in holds)
    assert not any(read_back.holds(answer) for answer in does_not)


def test_a_full_disk_gets_voters_with_disks_that_can_be_filled() -> None:
    method = "method:\n" + action("node2", fault="voter.disk-full")

    chosen = read(method)
    sized = HEAD.replace("  nodes: 3\n", "  nodes: 3\n  settings: {voter-disk: 16MiB}\n")
    given = read_experiment(sized + method, name="test.yaml")

    assert chosen.topology.settings.voter_disk_bytes == 64 << 20
    assert [choice for choice in chosen.choices if "voter-disk: 64MiB" in choice]
    assert given.topology.settings.voter_disk_bytes == 16 << 20
    assert given.choices == ()
