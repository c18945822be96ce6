"""The Compose file: what it holds, what it must not hold, and that the checked-in ones are what `up` would use."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.document.topology import default_topology, read_topology
from harness.document.yaml_source import load
from harness.model.object_names import csv_volume, secrets_volume, voter_volume
from harness.rig.cluster.secret_files import access_list
from harness.rig.lifecycle.compose_file import TOPOLOGY_LABEL, render, topology_from_label

COMPOSE = Path(__file__).parents[2] / "compose"


def document(text: str = "nodes: 3\n") -> dict[str, Any]:
    rendered = yaml.safe_load(render(read_topology(load(text, name="rig.yaml"))))
    assert isinstance(rendered, dict)
    return rendered


@pytest.mark.parametrize(
    ("file", "nodes", "witness"),
    [("three-nodes.yaml", 3, False), ("five-nodes.yaml", 5, False), ("two-nodes-witness.yaml", 2, True)],
)
def test_checked_in_file_is_what_would_be_rendered(file: str, nodes: int, witness: bool) -> None:
    rendered = render(default_topology(nodes=nodes, witness=witness))

    assert (COMPOSE / file).read_text() == rendered, "run `make compose`"


def test_both_compose_tools_read_it() -> None:
    assert not {"version", "name"} & document().keys()


def test_node_is_not_privileged_and_has_single_capabilities() -> None:
    node = document()["services"]["node1"]

    assert node["cap_drop"] == ["ALL"]
    assert "ALL" not in node["cap_add"]
    assert "privileged" not in node
    assert node["security_opt"] == ["no-new-privileges:true"]
    assert node["sysctls"] == {"net.ipv4.ip_unprivileged_port_start": "1024"}


def test_only_voters_have_a_voters_volume() -> None:
    services = document("nodes: 4\nvoters: 3\n")["services"]

    assert "voter-node1:/data" in services["node1"]["volumes"]
    assert not any(volume.endswith(":/data") for volume in services["node4"]["volumes"])


def test_a_witness_has_a_vote_and_nothing_else() -> None:
    rendered = document("nodes: 2\nwitness: true\n")
    witness = rendered["services"]["witness"]

    assert witness["environment"]["BLACKSTART_ROLE"] == "witness"
    assert witness["volumes"] == ["witness-secrets:/run/secrets:ro", "voter-witness:/data"]
    assert not {"NET_ADMIN", "NET_RAW"} & set(witness["cap_add"])
    assert not any("net_admin" in word or "net_raw" in word for word in witness["entrypoint"])
    assert "ports" not in witness
    assert witness["restart"] == "unless-stopped"
    assert "witness=10.87.0.10" in rendered["services"]["node1"]["environment"]["BLACKSTART_VOTERS"].split(",")


def test_environment_names_voters_and_times_and_nothing_secret() -> None:
    environment = document("nodes: 2\nvoters: 1\nsettings: {beat: 100ms, lease: 300ms}\n")["services"]["node2"][
        "environment"
    ]

    assert environment == {
        "BLACKSTART_RIG": "blackstart",
        "BLACKSTART_NODE": "node2",
        "BLACKSTART_VOTERS": "node1=10.87.0.11",
        "BLACKSTART_BEAT_MS": "100",
        "BLACKSTART_LEASE_MS": "300",
        "BLACKSTART_GRACE_MS": "1000",
        "BLACKSTART_FENCING": "power",
        "BLACKSTART_PROGRAM_ASK_MS": "1000",
        "BLACKSTART_PROGRAM_SILENCE_MS": "5000",
        "BLACKSTART_GUEST_USERS": "10001,10002,10003,10004,10005,10006",
        "BLACKSTART_GUEST_SUBNET": "10.87.0.0/24",
    }


def test_guests_of_an_open_network_get_no_subnet() -> None:
    environment = document("nodes: 1\nsettings: {network: open}\n")["services"]["node1"]["environment"]

    assert "BLACKSTART_GUEST_SUBNET" not in environment


@pytest.mark.parametrize("text", ["nodes: 2\nwitness: true\nsettings: {engine-proxy: true}\n", "nodes: 3\n"])
def test_every_container_has_limits(text: str) -> None:
    for service in document(text)["services"].values():
        assert service["mem_limit"] == service["memswap_limit"]
        assert service["pids_limit"] > 0


def test_an_engine_proxy_stands_between_each_node_and_the_engine_when_it_is_asked_for() -> None:
    plain, proxied = document()["services"], document("nodes: 3\nsettings: {engine-proxy: true}\n")["services"]

    assert list(plain) == ["kept_disks", "node1", "node2", "node3"]
    proxies = {name: service for name, service in proxied.items() if name.endswith("-engine")}
    assert list(proxies) == ["node1-engine", "node2-engine", "node3-engine"]
    for name, proxy in proxies.items():
        node = proxied[name.removesuffix("-engine")]
        assert "/var/run/docker.sock:/var/run/docker.sock" in proxy["volumes"]
        assert not any("docker.sock" in volume for volume in node["volumes"])
        assert f"engine-{proxy['labels']['io.blackstart.node']}:/run/engine" in node["volumes"]
        assert node["environment"]["BLACKSTART_ENGINE_SOCKET"] == proxy["entrypoint"][-1] == "/run/engine/docker.sock"
        assert proxy["network_mode"] == "none"
        assert (proxy["cap_drop"], proxy["cap_add"]) == (["ALL"], ["CHOWN"])
        assert proxy["labels"]["io.blackstart.role"] == "engine-proxy"


def test_a_voters_disk_of_a_size_of_its_own_is_kept_while_its_node_is_off() -> None:
    rendered = document("nodes: 4\nvoters: 3\nsettings: {voter-disk: 64MiB}\ngroups: 0\n")
    keeper = rendered["services"]["kept_disks"]

    assert rendered["volumes"]["voter-node1"]["driver_opts"] == {
        "type": "tmpfs",
        "device": "tmpfs",
        "o": "size=67108864,nr_inodes=16384,uid=901,gid=901,mode=0755,nosuid,nodev",
    }
    assert keeper["volumes"] == [f"voter-node{number}:/voters/node{number}:ro" for number in (1, 2, 3)]
    assert keeper["labels"]["io.blackstart.role"] == "keeper"
    assert (keeper["user"], keeper["cap_drop"], keeper["network_mode"]) == ("65534:65534", ["ALL"], "none")


def test_a_voters_disk_is_the_engines_by_default() -> None:
    rendered = document("groups: 0\n")

    assert "driver_opts" not in rendered["volumes"]["voter-node1"]
    assert "kept_disks" not in rendered["services"]


VM_WITH_DISKS = """\
nodes: 1
groups:
  - name: db
    resources:
      - {name: db-vm, type: virtual-machine, disk: 8MiB, volumes: ["data:/var/lib/data"], user: 12000}
"""


def test_each_disk_of_a_vm_is_a_volume_with_a_size() -> None:
    rendered = document(VM_WITH_DISKS)

    for key, name in (("disk-db-vm", "blackstart_disk-db-vm"), ("disk-db-vm.data", "blackstart_disk-db-vm.data")):
        assert rendered["volumes"][key]["name"] == name
        assert rendered["volumes"][key]["driver_opts"] == {
            "type": "tmpfs",
            "device": "tmpfs",
            "o": "size=8388608,nr_inodes=2048,uid=12000,gid=12000,mode=0700,nosuid,nodev",
        }
    node, keeper = rendered["services"]["node1"], rendered["services"]["kept_disks"]
    assert "disk-db-vm:/csv/db-vm/disk" in node["volumes"]
    assert "disk-db-vm.data:/csv/db-vm/volumes/data" in node["volumes"]
    assert keeper["volumes"] == [
        "disk-db-vm:/vms/db-vm/disk:ro",
        "disk-db-vm.data:/vms/db-vm/volumes/data:ro",
    ]


def test_every_object_carries_the_rigs_label() -> None:
    rendered = document("name: mine\n")
    objects = [*rendered["services"].values(), *rendered["networks"].values(), *rendered["volumes"].values()]

    assert objects
    assert all(entry["labels"]["io.blackstart.rig"] == "mine" for entry in objects)
    assert all(entry["labels"]["io.blackstart.role"] in ("node", "network", "volume", "keeper") for entry in objects)


def test_volumes_and_containers_have_the_agreed_names() -> None:
    rendered = document("name: mine\nnodes: 1\ngroups: 0\n")

    assert rendered["services"]["node1"]["container_name"] == "mine-node1"
    assert [volume["name"] for volume in rendered["volumes"].values()] == [
        csv_volume("mine"),
        secrets_volume("mine"),
        voter_volume("mine", "node1"),
    ]
    assert (csv_volume("mine"), secrets_volume("mine"), voter_volume("mine", "node1")) == (
        "mine_csv",
        "mine_secrets",
        "mine_voter-node1",
    )


def test_addresses_that_the_engine_hands_out_are_nobody_elses() -> None:
    (config,) = document()["networks"]["rig"]["ipam"]["config"]

    assert config == {"subnet": "10.87.0.0/24", "ip_range": "10.87.0.224/27"}


def test_topology_comes_back_from_its_label_dollar_signs_and_all() -> None:
    text = "groups:\n  - name: g\n    resources:\n      - {name: vm, type: virtual-machine, command: [echo, $HOME]}\n"
    topology = read_topology(load(text, name="rig.yaml"))

    label = yaml.safe_load(render(topology))["volumes"]["csv"]["labels"][TOPOLOGY_LABEL]

    assert "$$HOME" in label
    assert topology_from_label(label.replace("$$", "$")) == topology


def test_access_list_holds_a_hash_and_no_password() -> None:
    text = access_list("node1", "sesame")

    assert text == (
        "user default on sanitize-payload resetpass ~* resetchannels +@all -@dangerous -@admin +info\n"
        "user node1 on sanitize-payload "
        "#d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272 ~* resetchannels "
        "+@all -@dangerous -@admin +info\n"
    )
    assert access_list("default", "sesame") == text.splitlines(keepends=True)[1].replace("node1", "default")
