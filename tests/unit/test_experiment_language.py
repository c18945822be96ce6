"""The words of experiments beyond a name and a fault: who may be meant, how, beside what; and what is refused."""

import re
from pathlib import Path

import pytest

from chaos.experiment.loader import read_experiment
from chaos.experiment.records import Experiment, FaultCall
from chaos.experiment.schema import TARGET_FORM
from chaos.experiment.targets import (
    ByLabel,
    ByName,
    ByPattern,
    FromRegister,
    Majority,
    Minority,
    OwnerOfVm,
    Sample,
    Voter,
)
from harness.errors import UsageError

HEAD = """\
title: A test
rig:
  nodes: 5
  voters: 3
  settings: {fencing: power}
  groups:
    - {name: web, resources: [{name: web-vm, type: virtual-machine}]}
    - {name: data, resources: [{name: data-vm, type: virtual-machine}]}
"""
"""Eight lines: what a test appends begins on line 9."""


def read(rest: str, head: str = HEAD) -> Experiment:
    return read_experiment(head + rest, name="test.yaml")


def refusals(rest: str, head: str = HEAD) -> list[str]:
    with pytest.raises(UsageError) as refused:
        read(rest, head)
    return str(refused.value).splitlines()


def action(target: str, fault: str = "node.reset", *, provider: str = "", more: str = "") -> str:
    call = f"{{type: fault, fault: {fault}, target: {target}{provider}}}"
    return f"  - {{type: action, name: act, provider: {call}{more}}}\n"


UP = "{type: probe, name: up, provider: {type: cluster, probe: nodes-up}, tolerance: 3}"


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("voter", Voter()),
        ("minority", Minority()),
        ("majority", Majority()),
        ("{minority-with: web}", Minority(group="web")),
        ("{owner-of-vm: web-vm}", OwnerOfVm(vm="web-vm")),
        ("{voter-of: node3}", ByName(name="node3")),
        ("'node*'", ByPattern(pattern="node*")),
        ("{node: 'node[12]'}", ByPattern(pattern="node[12]")),
        ("{count: 2}", Sample(of=ByPattern(pattern="*"), count=2)),
        ("{percentage: 40, of: majority}", Sample(of=Majority(), percentage=40)),
        ("{count: 1, of: {node: 'node*'}}", Sample(of=ByPattern(pattern="node*"), count=1)),
    ],
)
def test_targets_of_nodes(written: str, target: object) -> None:
    (step,) = read("method:\n" + action(written)).method

    assert step.call == FaultCall(fault="node.reset", target=target)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("'*-vm'", ByPattern(pattern="*-vm")),
        ("{vm: 'web*'}", ByPattern(pattern="web*")),
        ("{percentage: 50}", Sample(of=ByPattern(pattern="*"), percentage=50)),
        ("{count: 1, of: {label: group=web}}", Sample(of=ByLabel(key="group", value="web"), count=1)),
    ],
)
def test_targets_of_vms(written: str, target: object) -> None:
    (step,) = read("method:\n" + action(written, "vm.crash")).method

    assert step.call == FaultCall(fault="vm.crash", target=target)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "fault", "what"),
    [
        ("coordinator", "node.reset", "this cluster has no coordinator: every node may decide"),
        ("{voter-of: node5}", "node.reset", "node5 has no vote, expected one of node1, node2, node3"),
        ("{owner-of-vm: web}", "node.reset", "the rig has no VM 'web', expected web-vm"),
        ("{minority-with: wep}", "node.reset", "the rig has no group 'wep', expected web"),
        ("'host*'", "node.reset", "no node of the rig is named like 'host*', expected a pattern of node1, node2"),
        ("'node*'", "vm.crash", "no VM of the rig is named like 'node*', expected a pattern of web-vm, data-vm"),
        ("minority", "vm.crash", "the rig has no VM 'minority'"),
        ("{minority-with: web}", "vm.crash", "vm.crash is aimed at a VM, minority-with names a node"),
        ("{count: 6}", "node.reset", "count is 6, expected a whole number from 1 to 5"),
        ("{count: 0}", "node.reset", "count is 0, expected a whole number from 1 to 5"),
        ("{percentage: 0}", "node.reset", "percentage is 0, expected a number above 0, at most 100"),
        ("{percentage: 101}", "node.reset", "percentage is 101, expected a number above 0, at most 100"),
        ("{count: 1, percentage: 10}", "node.reset", "a target has no key 'percentage'"),
        ("{count: 1, of: {count: 2}}", "node.reset", "a draw from 2 of *, which is a draw itself"),
        ("{percentage: 20, from: majority}", "node.reset", "a target has no key 'from'"),
        ("{}", "node.reset", "target is {}, expected a name or a pattern"),
    ],
)
def test_targets_that_make_no_sense_are_refused(written: str, fault: str, what: str) -> None:
    (refusal,) = refusals("method:\n" + action(written, fault))

    assert refusal.startswith("test.yaml:10: ")
    assert what in refusal


def test_a_minority_needs_votes_that_may_be_lost() -> None:
    (refusal,) = refusals("method:\n" + action("minority"), HEAD.replace("voters: 3", "voters: 1"))

    assert "a minority of 1 vote: none may be lost, expected a rig with three votes or more" in refusal


def test_a_register_of_several_is_a_target_again_but_no_single_vm() -> None:
    isolate = action("minority", "node.isolate", more=", register: cut")

    cured = read(f"method:\n{isolate}" + action("'${cut}'", "node.join-network"))
    (refusal,) = refusals(
        "method:\n"
        + action("'*-vm'", "vm.crash", more=", register: crashed")
        + "  - {type: probe, name: ask, provider: "
        "{type: cluster, probe: restarted-in-place, vm: '${crashed}'}, tolerance: true}\n"
    )

    assert isinstance(cured.method[1].call, FaultCall)
    assert cured.method[1].call.target == FromRegister(register="cut")
    assert refusal == "test.yaml:11: ${crashed} may hold several VMs, expected one VM"


@pytest.mark.parametrize(
    ("provider", "fault", "arguments"),
    [
        (", from: [node2, node3], direction: in", "node.isolate", {"from": ("node2", "node3"), "direction": "in"}),
        ("", "node.isolate", {}),
        (", then: drop", "engine.resume", {"then": "drop"}),
    ],
)
def test_arguments_of_faults(provider: str, fault: str, arguments: dict[str, object]) -> None:
    (step,) = read("method:\n" + action("node1", fault, provider=provider)).method

    assert isinstance(step.call, FaultCall)
    assert step.call.arguments == arguments


@pytest.mark.parametrize(
    ("provider", "fault", "what"),
    [
        (", from: [node9]", "node.isolate", "the rig has no node 'node9'"),
        (", from: []", "node.isolate", "from is empty, expected at least one node"),
        (", from: node2", "node.isolate", "from is 'node2', expected a list of names of nodes"),
        (", direction: up", "node.isolate", "direction is 'up', expected in, out or both"),
        (", then: later", "engine.resume", "then is 'later', expected forward or drop"),
        (", then: drop", "node.thaw", "a provider has no key 'then'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(provider: str, fault: str, what: str) -> None:
    found = refusals("method:\n" + action("node1", fault, provider=provider))

    assert any(what in refusal and refusal.startswith("test.yaml:10: ") for refusal in found), found


def test_a_step_may_run_in_the_background_and_have_probes_of_its_own() -> None:
    experiment = read("method:\n" + action("node1", more=f", background: true, during: [{UP}]"))

    (step,) = experiment.method
    assert step.background
    assert [(probe.name, probe.interval_us) for probe in step.during] == [("up", 200_000)]


@pytest.mark.parametrize(
    ("rest", "what"),
    [
        (f"rollbacks:\n{action('node1', more=', background: true')}method: []\n", "background in rollbacks"),
        (f"rollbacks:\n{action('node1', more=', if-possible: true')}method: []\n", "if-possible in rollbacks"),
        (f"rollbacks:\n{action('node1', more=f', during: [{UP}]')}method: []\n", "during on an activity of rollbacks"),
        ("method:\n" + action("node1", more=", during: [{type: action, name: x, provider: {}}]"), "action in during"),
        ("method:\n" + action("node1", more=", during: 3"), "during is 3, expected a list, each item a probe"),
        ("expects-violation: maybe\nmethod: []\n", "expects-violation is 'maybe', expected true or false"),
    ],
)
def test_keys_in_the_wrong_place_are_refused(rest: str, what: str) -> None:
    assert any(what in refusal for refusal in refusals(rest)), refusals(rest)


def test_the_engine_proxies_are_chosen_for_a_method_that_stalls_an_engine() -> None:
    stalls = read("method:\n" + action("node1", "engine.stall"))
    other = read("method:\n" + action("node1"))

    assert stalls.topology.settings.engine_proxy
    assert stalls.choices == ("engine-proxy: true, because line 10 stalls an engine",)
    assert not other.topology.settings.engine_proxy
    assert other.choices == ()


def test_engine_proxies_that_the_file_wants_are_no_choice_and_those_it_forbids_are_missed() -> None:
    asked = HEAD.replace("fencing: power", "engine-proxy: true")
    method = "method:\n" + action("node1", "engine.stall")

    (refusal,) = refusals(method, HEAD.replace("fencing: power", "engine-proxy: false"))

    assert read(method, asked).choices == ()
    assert refusal == "test.yaml:5: engine-proxy is false, and line 10 stalls an engine, expected true, or no such key"


@pytest.mark.parametrize("fault", ["node.hang", "engine.stall"])
def test_what_fencing_self_cannot_cover_is_refused_unless_the_violation_is_expected(fault: str) -> None:
    head = HEAD.replace("power", "self")
    method = "method:\n" + action("node1", fault)

    (refusal,) = refusals(method, head)

    assert refusal == (
        f"test.yaml:10: {fault} with fencing: self, which cannot cover it, "
        "expected fencing: power, or expects-violation: true for a run that is to show it"
    )
    assert read("expects-violation: true\n" + method, head).expects_violation
    assert read("method:\n" + action("node1"), head).method


@pytest.mark.parametrize("name", ["process", "http", "python"])
def test_providers_that_run_something_of_their_own_are_refused(name: str) -> None:
    (refusal,) = refusals(f"method:\n  - {{type: action, name: x, provider: {{type: {name}, path: x}}}}\n")

    assert f"the provider {name} is not available yet" in refusal


def test_the_page_about_experiments_names_every_word_of_targets() -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()

    words = re.findall(r"[a-z-]{4,}(?=:)|bystander|voter|minority|majority", TARGET_FORM)
    assert {"owner-of", "voter-of", "percentage", "majority"} <= set(words)
    assert [word for word in words if f"`{word}" not in page and f"`{{{word}" not in page] == []


def test_a_node_may_be_cut_off_from_the_witness_and_only_from_one_that_there_is() -> None:
    cut = "method:\n" + action("node1", "node.isolate", provider=", from: [witness]")
    two = HEAD.replace("nodes: 5\n  voters: 3", "nodes: 2\n  witness: true")

    call = read(cut, two).method[0].call

    assert isinstance(call, FaultCall)
    assert call.arguments == {"from": ("witness",)}
    assert "the rig has no node 'witness'" in refusals(cut)[0]
