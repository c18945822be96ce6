"""What a person writes about a rig becomes a topology, or is refused with file, line and the expected form."""

import json

import pytest

from harness.document.address_plan import moved
from harness.document.dependency import parse_dependency
from harness.document.duration import format_duration, parse_duration_us
from harness.document.topology import default_topology, read_topology
from harness.document.yaml_source import load
from harness.errors import UsageError
from harness.model.serialization import from_json_value, to_json_value
from harness.model.topology import (
    SECOND_US,
    Failback,
    Fencing,
    GroupSpec,
    Priority,
    ResourceSpec,
    RestartAction,
    ShutdownAction,
    Topology,
)
from harness.rig.lifecycle.compose_file import object_names
from harness.rig.lifecycle.rig_lock import lock_name


def read(text: str, *, rig: str | None = None) -> Topology:
    return read_topology(load(text, name="rig.yaml"), rig=rig)


def refusals(text: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        read(text)
    return str(caught.value).splitlines()


def only_refusal(text: str) -> str:
    found = refusals(text)
    assert len(found) == 1, found
    return found[0]


def group_of(text: str) -> GroupSpec:
    return read(text).groups[0]


def resource(properties: str) -> str:
    return f"groups:\n  - name: web\n    resources:\n      - {{name: vm, type: virtual-machine, {properties}}}\n"


def test_default_rig_has_three_voters_and_six_vms_with_addresses() -> None:
    topology = default_topology()

    assert [(node.name, node.address, node.voter) for node in topology.nodes] == [
        ("node1", "10.87.0.11", True),
        ("node2", "10.87.0.12", True),
        ("node3", "10.87.0.13", True),
    ]
    assert [group.name for group in topology.groups] == ["web1", "web2", "web3", "web4", "web5", "web6"]
    last = topology.groups[5]
    assert last.resource("web6-ip").properties == {"address": "10.87.0.105"}
    assert last.resource("web6-vm").depends_on == (("web6-ip",),)
    assert last.resource("web6-vm").properties == {
        "address": "10.87.0.105",
        "image": "blackstart/guest",
        "user": "10006",
    }


def test_document_that_says_nothing_is_the_default_rig() -> None:
    assert read("nodes: 3\n") == default_topology()


def test_topology_survives_the_way_through_json() -> None:
    topology = read("nodes: [a, b, c]\nsettings: {fencing: self}\n")

    assert from_json_value(Topology, json.loads(json.dumps(to_json_value(topology)))) == topology


def test_rig_of_an_experiment_is_found_under_its_key_and_keeps_its_lines() -> None:
    text = "title: x\nrig:\n  nodes: 2\n  groups: []\nmethod: []\n"

    assert len(read(text).nodes) == 2
    assert only_refusal(text.replace("nodes: 2", "nodes: two")).startswith("rig.yaml:3: nodes is 'two'")


def test_rig_name_of_the_caller_wins() -> None:
    assert read("name: mine\n").rig == "mine"
    assert read("name: mine\n", rig="other").rig == "other"
    with pytest.raises(UsageError, match="the rig's name is 'No'"):
        read("nodes: 1\n", rig="No")


@pytest.mark.parametrize(("nodes", "voters"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)])
def test_voters_are_an_odd_number_from_the_top(nodes: int, voters: int) -> None:
    topology = read(f"nodes: {nodes}\n")

    assert [node.voter for node in topology.nodes] == [True] * voters + [False] * (nodes - voters)


@pytest.mark.parametrize(("nodes", "voters"), [(2, 2), (3, 2), (4, 4), (5, 4), (9, 4)])
def test_with_a_witness_all_votes_together_are_odd(nodes: int, voters: int) -> None:
    topology = read(f"nodes: {nodes}\nwitness: true\n")

    assert [node.voter for node in topology.nodes] == [True] * voters + [False] * (nodes - voters)
    assert topology.voters[-1].name == "witness"
    assert topology.voters[-1].address == "10.87.0.10"


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("nodes: 4\nwitness: true\nvoters: 3\n", "3 voters, expected an even number beside the witness, such as 4"),
        ("nodes: 1\nwitness: true\n", "a witness for 1 node, expected at least two nodes"),
        ("nodes: [node1, witness]\nwitness: true\n", "a node is called 'witness' as well"),
    ],
)
def test_a_witness_that_makes_no_sense_is_refused(text: str, refusal: str) -> None:
    assert refusal in only_refusal(text)


def test_whole_group_becomes_a_record() -> None:
    group = group_of(
        """
groups:
  - name: shop
    preferred-owners: [node2]
    possible-owners: [node2, node3]
    priority: high
    failover-threshold: 1
    failover-period: 1h
    failback: allow
    failback-window: [22, 6]
    resources:
      - {name: shop-ip, type: ip-address, address: 10.87.0.142}
      - name: shop-vm
        type: virtual-machine
        depends-on: "[shop-ip]"
        image: shop:1
        command: serve --port "80 80"
        environment: {MODE: fast, LIMIT: 3}
        memory: 64MiB
        processes: 10
        processors: 0.5
        is-alive-interval: 500ms
        restart-action: restart
        restart-threshold: 0
        restart-delay: 0s
        retry-period-on-failure: never
        shutdown-action: fail
"""
    )

    assert (group.preferred_owners, group.possible_owners) == (("node2",), ("node2", "node3"))
    assert (group.priority, group.failover_threshold) == (Priority.HIGH, 1)
    assert group.failover_period_us == 3600 * SECOND_US
    assert (group.failback, group.failback_window) == (Failback.ALLOW, (22, 6))
    vm = group.resource("shop-vm")
    assert vm.properties == {
        "address": "10.87.0.142",
        "command": '["serve", "--port", "80 80"]',
        "environment": '{"LIMIT": "3", "MODE": "fast"}',
        "image": "shop:1",
        "memory": str(64 << 20),
        "processes": "10",
        "processors": "500",
        "user": "10001",
    }
    assert vm.policy.is_alive_interval_us == SECOND_US // 2
    assert vm.policy.restart_action is RestartAction.RESTART
    assert (vm.policy.restart_threshold, vm.policy.restart_delay_us) == (0, 0)
    assert vm.policy.retry_period_us is None
    assert vm.policy.shutdown_action is ShutdownAction.FAIL


@pytest.mark.parametrize("window", ["[22]", "[22, 22]", "[6, 24]", "[true, 5]", "22-6"])
def test_failback_window_is_two_hours_of_the_day(window: str) -> None:
    with pytest.raises(UsageError, match="two hours of the day"):
        group_of(
            f"groups: [{{name: a, failback-window: {window}, resources: [{{name: b, type: ip-address}}]}}]\n"
        )


def test_users_are_unique_and_addresses_fill_the_gaps_in_order() -> None:
    topology = read(
        """
groups:
  - name: a
    resources:
      - {name: a-ip, type: ip-address}
      - {name: a-vm, type: virtual-machine, depends-on: [a-ip]}
  - name: b
    resources:
      - {name: b-ip, type: ip-address, address: 100}
      - {name: b-vm, type: virtual-machine, depends-on: "[b-ip]"}
      - {name: b-lone, type: virtual-machine}
"""
    )
    properties = {spec.name: spec.properties for group in topology.groups for spec in group.resources}

    assert properties["b-vm"]["address"] == "10.87.0.100"
    assert properties["a-vm"]["address"] == "10.87.0.101"
    assert "address" not in properties["b-lone"]
    assert [properties[name]["user"] for name in ("a-vm", "b-vm", "b-lone")] == ["10001", "10002", "10003"]


def test_settings_are_microseconds() -> None:
    text = "settings: {beat: 250ms, lease: 1s, grace: 0s, fencing: self, program-ask: 500ms, program-silence: 2s}\n"

    settings = read(text).settings

    assert (settings.beat_us, settings.lease_us, settings.grace_us) == (250_000, SECOND_US, 0)
    assert (settings.program_ask_us, settings.program_silence_us) == (SECOND_US // 2, 2 * SECOND_US)
    assert settings.fencing is Fencing.SELF


def test_moving_a_rig_moves_every_address_and_nothing_else() -> None:
    topology = default_topology()

    there = moved(topology, "10.87.9.0/24")

    assert there.nodes[2].address == "10.87.9.13"
    assert there.groups[0].resource("web1-vm").properties["address"] == "10.87.9.100"
    assert moved(there, topology.subnet) == topology


def test_all_errors_of_a_file_are_told_at_once_in_its_order() -> None:
    found = refusals(
        """\
nodes: 70
voters: 2
nodez: 3
settings: {beat: 2s, fencing: powr}
groups:
  - name: Web
    preferred-owners: [node99]
    resources:
      - {name: a, type: ip-adress}
"""
    )

    assert found == [
        "rig.yaml:1: nodes is 70, expected a whole number from 1 to 64",
        "rig.yaml:2: 2 voters, expected an odd number, such as 1",
        "rig.yaml:3: a rig has no key 'nodez', expected nodes (did you mean that?)",
        "rig.yaml:4: fencing is 'powr', expected one of power, self",
        "rig.yaml:4: the lease of 2s is under twice the beat of 2s: one lost beat would end it, "
        "expected a lease of at least 4s",
        "rig.yaml:6: name is 'Web', expected lower-case letters, digits and inner hyphens, a letter first, "
        "at most 32 characters",
        "rig.yaml:7: the rig has no node 'node99', expected node3 (did you mean that?)",
        "rig.yaml:9: there is no resource type 'ip-adress', expected ip-address (did you mean that?)",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "a rig is []"),
        ("nodes: [a, a]", "another node 'a'"),
        ("nodes: []", "0 nodes"),
        ("nodes: [node_1]", "a node's name is 'node_1'"),
        ("nodes: true", "nodes is true"),
        ("voters: 5", "voters is 5, expected a whole number from 1 to 3"),
        ("subnet: 10.87.0.0/16", "subnet is"),
        ("subnet: 8.8.8.0/24", "subnet is"),
        ("subnet: 127.0.0.0/24", "subnet is"),
        ("subnet: 169.254.1.0/24", "subnet is"),
        ("subnet: 240.0.0.0/24", "subnet is"),
        ("settings: {lease: 2}", "lease: 2 has no unit"),
        ("settings: {grace: -1s}", "grace: '-1s' is negative"),
        ("settings: {beat: 1500us, lease: 1s}", "beat is 1500us, expected a duration from 10ms"),
        ("settings: {beat: 10001us, lease: 1s}", "beat is 10001us, expected whole milliseconds"),
        ("settings: {voter-disk: 64}", "voter-disk: 64 is no size, expected a size with its unit"),
        ("settings: {voter-disk: 1MiB}", "voter-disk is 1MiB, expected a size from 8MiB to 1GiB"),
        ("settings: {program-ask: 2s}", "a program-silence of 5s leaves no three questions of 2s unanswered"),
        ("groups: 101", "groups is 101"),
        ("groups: [{name: web}]", "a group has no resources"),
        ("groups: [{name: web, resources: []}]", "resources is empty"),
        (resource("is-alive-interval: 5ms"), "is-alive-interval is 5ms, expected a duration from 10ms"),
        (resource("pending-timeout: soon"), "pending-timeout: 'soon' is no duration"),
        (resource("restart-treshold: 1"), "expected restart-threshold (did you mean that?)"),
        (resource("restart-action: never"), "expected one of none, restart, restart-then-failover"),
        (resource("separate-monitor: true"), "a resource host of its own is not available yet, expected false"),
        (resource("memory: 128"), "memory: 128 is no size, expected a size with its unit"),
        (resource("address: 100"), "a virtual-machine has no address of its own"),
        (resource("command: [1]"), "command holds 1"),
        (resource("command: 'a \"b'"), "command: No closing quotation"),
        (resource("environment: {BLACKSTART_NODE: x}"), "the variable 'BLACKSTART_NODE'"),
        (resource("environment: {A: [1]}"), "A is [1]"),
        (resource("depends-on: '[vm]'"), "runs in a circle: vm -> vm"),
        (resource("depends-on: '[other]'"), "the group has no resource 'other'"),
        (resource("depends-on: other"), "'other' is neither a name in brackets"),
        (resource("").replace("name: vm", "name: node1"), "'node1' is a node's name"),
        (resource("").replace("virtual-machine", "ip-address, address: 10.87.0.11"), "outside of the VMs' range"),
    ],
)
def test_nonsense_is_refused_with_file_line_and_the_expected_form(text: str, what: str) -> None:
    found = only_refusal(text)

    assert found.startswith("rig.yaml:")
    assert what in found
    assert ", expected " in found


def test_resource_names_are_unique_in_the_whole_rig_and_group_names_too() -> None:
    group = "  - {name: web, resources: [{name: vm, type: virtual-machine}]}\n"

    found = refusals(f"groups:\n{group}{group}")

    assert [line.partition(", expected")[0] for line in found] == [
        "rig.yaml:3: there is another group 'web'",
        "rig.yaml:3: there is another resource 'vm'",
    ]


def test_dependency_on_another_groups_resource_is_named_as_such() -> None:
    found = only_refusal(
        "groups:\n"
        "  - {name: a, resources: [{name: x, type: ip-address}]}\n"
        "  - {name: b, resources: [{name: y, type: virtual-machine, depends-on: '[x]'}]}\n"
    )

    assert found.startswith("rig.yaml:3: depends-on: 'x' is in another group")


def test_address_given_twice_is_refused() -> None:
    ip = "{name: %s, type: ip-address, address: 10.87.0.150}"

    found = only_refusal(f"groups:\n  - {{name: a, resources: [{ip % 'x'},\n      {ip % 'y'}]}}\n")

    assert found.startswith("rig.yaml:3: 10.87.0.150 is given to another resource")


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("", ()),
        ("[a]", (("a",),)),
        ("[a] and ([b] or [c])", (("a",), ("b", "c"))),
        ("[b] or [c]", (("b", "c"),)),
        ("([ a ]) AND [b]", (("a",), ("b",))),
    ],
)
def test_dependency_is_an_and_of_ors(text: str, clauses: tuple[tuple[str, ...], ...]) -> None:
    assert parse_dependency(text) == clauses


@pytest.mark.parametrize("text", ["[a] and", "[a] [b]", "([a]", "[a] and [b] or [c]", "([a] and [b])", "[]", "a"])
def test_other_dependency_expressions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_dependency(text)


@pytest.mark.parametrize(
    ("text", "duration_us"),
    [("500ms", 500_000), ("2s", 2_000_000), ("1.5s", 1_500_000), ("15m", 900_000_000), ("1h", 3_600_000_000)],
)
def test_durations_have_units(text: str, duration_us: int) -> None:
    assert parse_duration_us(text) == duration_us
    assert parse_duration_us(format_duration(duration_us)) == duration_us


@pytest.mark.parametrize("value", [30, 1.5, True, None, "", "1", "-1s", "1d", "s", "1s2", "1.0000001s", ["1s"]])
def test_what_has_no_unit_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_duration_us(value)


def test_unknown_resource_of_a_group_is_a_key_error() -> None:
    group = GroupSpec(name="g", resources=(ResourceSpec(name="r", type="ip-address"),))

    with pytest.raises(KeyError):
        group.resource("other")


@pytest.mark.parametrize("name", ["client", "lock", "reaper"])
def test_node_cannot_have_the_name_of_another_container(name: str) -> None:
    with pytest.raises(UsageError, match=f"rig.yaml:1: a node is called '{name}'.*another name for the node"):
        read_topology(load(f"nodes: [{name}, b, c]\n", name="rig.yaml"))


@pytest.mark.parametrize("settings", ["{engine-proxy: true}", "{}"])
def test_node_cannot_have_the_name_of_a_proxy(settings: str) -> None:
    """Also without proxies, which a method may add later."""
    with pytest.raises(UsageError, match="the proxy between node 'a' and the engine has that name"):
        read_topology(load(f"nodes: [a-engine, a, b]\nsettings: {settings}\n", name="rig.yaml"))


def test_no_two_containers_of_a_rig_share_a_name() -> None:
    """With every kind of container that there is."""
    text = "nodes: [a, b-engine]\nwitness: true\nsettings: {engine-proxy: true, voter-disk: 64MiB}\n"

    topology = read_topology(load(text, name="rig.yaml"), rig="r")

    names = object_names(topology).containers
    assert len(names) == 2 * len(topology.nodes) + len(["witness", "keeper", "client", "carrier"])
    assert lock_name("r") not in names
