"""A topology as a Compose file: nodes, their network and their volumes. VMs are not in it: the cluster makes them.

The text is good for docker-compose 1.29 and for `docker compose` v2, which is why it has neither `version` (v2 warns)
nor `name` (1.29 refuses). It holds no secret. The topology itself travels as a label of the shared volume, so that a
rig can be found, compared and formed without any file on this side.
"""

import json
import posixpath
from dataclasses import dataclass
from typing import Any

import yaml

from harness.document.address_plan import dynamic_range
from harness.live.node_api_endpoints import API_PORT
from harness.model import labels
from harness.model.disk import disk_bytes, disk_names, disk_volume
from harness.model.object_names import (
    KEEPER_SERVICE,
    PROXY_SUFFIX,
    carrier_container,
    client_container,
    csv_volume,
    engine_proxy_container,
    formed_volume,
    hold_volume,
    keeper_container,
    network_name,
    node_container,
    secrets_volume,
    voter_volume,
    witness_secrets_volume,
)
from harness.model.serialization import from_json_value, to_json_value
from harness.model.topology import Appendfsync, Network, NodeSpec, ResourceSpec, Topology

__all__ = [
    "HYPERVISOR_IMAGE",
    "NODE_CAPABILITIES",
    "PROXY_SOCKET",
    "TOPOLOGY_LABEL",
    "VOTER_PORT",
    "ObjectNames",
    "object_names",
    "render",
    "topology_from_label",
]

HYPERVISOR_IMAGE = "blackstart/hypervisor"
TOPOLOGY_LABEL = "io.blackstart.topology"
VOTER_PORT = 637
API_PUBLISHED = f"127.0.0.1::{API_PORT}"
"""On another port of 127.0.0.1 at each start: container addresses cannot be reached from everywhere."""
ENGINE_SOCKET = "/var/run/docker.sock"
PROXY_SOCKET = "/run/engine/docker.sock"
"""Where a node finds the engine when there is a proxy in between: on a volume that both have."""


VOTER_UID = 901
PROXY_PROGRAM = "/usr/lib/blackstart/engine_proxy.py"

NODE_CAPABILITIES = (
    "SETUID",
    "SETGID",
    "SETPCAP",
    "CHOWN",
    "KILL",
    "NET_ADMIN",
    "NET_RAW",
    "NET_BIND_SERVICE",
)
"""What PID 1 of a node needs or hands on. Single ones: `ALL` can be refused by a host that lacks one of them itself."""
WITNESS_CAPABILITIES = ("SETUID", "SETGID", "SETPCAP", "CHOWN", "KILL", "NET_BIND_SERVICE")
"""What PID 1 of a witness needs to start and restart its voter: it has no addresses, no rules and no guests."""
NODE_LIMITS = {"mem_limit": "1g", "memswap_limit": "1g", "pids_limit": 1024}
"""A node takes 60 MiB and 50 tasks, its voter at most 128 MiB more, an `exec` of a fault 20. Guests have their own."""
HELPER_LIMITS = {"mem_limit": "256m", "memswap_limit": "256m", "pids_limit": 256}
"""A witness takes 20 MiB and its voter at most 128 MiB more, a proxy 12 MiB and two threads a connection."""
KEEPER_LIMITS = {"mem_limit": "16m", "memswap_limit": "16m", "pids_limit": 8}

_HEADER = """\
# A rig of Blackstart, rendered by `blackstart compose`. Not to be edited: `make compose` renders it anew.
# How to start it by hand: compose/README.md.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectNames:
    """The names that a rig's objects have or will have in the engine."""

    containers: frozenset[str]
    volumes: frozenset[str]
    networks: frozenset[str]


def object_names(topology: Topology) -> ObjectNames:
    """The names of everything that is made for a rig, but its lock and its VMs."""
    rig = topology.rig
    document = _document(topology, image="", socket="")
    containers = [service["container_name"] for service in document["services"].values()]
    volumes = [volume["name"] for volume in document["volumes"].values()]
    holds = [hold_volume(rig, node.name) for node in topology.nodes]
    return ObjectNames(
        containers=frozenset([*containers, client_container(rig), carrier_container(rig)]),
        volumes=frozenset([*volumes, *holds, formed_volume(rig)]),
        networks=frozenset([network_name(rig)]),
    )


def render(
    topology: Topology, *, image: str = HYPERVISOR_IMAGE, socket: str = ENGINE_SOCKET, engine_id: str = ""
) -> str:
    """The Compose file of `topology`. `socket` is the path of the engine's socket on the engine's host; nodes work
    with the engine `engine_id` alone, where it is known.
    """
    document = _document(topology, image=image, socket=socket, engine_id=engine_id)
    return _HEADER + yaml.safe_dump(document, sort_keys=False, default_flow_style=False, width=1_000_000)


def topology_from_label(label: str) -> Topology:
    """The topology that `render` put into a label. Raises ValueError for that of another version."""
    return from_json_value(Topology, json.loads(label))


def _document(topology: Topology, *, image: str, socket: str, engine_id: str = "") -> dict[str, Any]:
    rig = topology.rig
    volumes = {
        "csv": _volume(rig, csv_volume(rig), **{TOPOLOGY_LABEL: _topology_label(topology)}),
        "secrets": _volume(rig, secrets_volume(rig)),
    }
    for node in topology.voters:
        volume = _volume(rig, voter_volume(rig, node.name), **{labels.NODE: node.name})
        volumes[f"voter-{node.name}"] = volume | _disk_in_memory(topology.settings.voter_disk_bytes, user=VOTER_UID)
    for vm in _vms(topology):
        for disk in disk_names(vm.properties):
            name = disk_volume(rig, vm.name, disk)
            volumes[_disk_key(vm, disk)] = _volume(rig, name, **{labels.RESOURCE: vm.name}) | _disk_in_memory(
                disk_bytes(vm.properties), user=int(vm.properties["user"]), mode="0700"
            )
    services = {}
    if topology.settings.voter_disk_bytes or _vms(topology):
        services[KEEPER_SERVICE] = _keeper(topology, image=image)
    for node in topology.nodes:
        if topology.settings.engine_proxy:
            volumes[f"engine-{node.name}"] = _volume(rig, f"{rig}_engine-{node.name}", **{labels.NODE: node.name})
            services[f"{node.name}{PROXY_SUFFIX}"] = _engine_proxy(topology, node, image=image, socket=socket)
        services[node.name] = _service(topology, node, image=image, socket=socket)
        if engine_id:
            services[node.name]["environment"]["BLACKSTART_ENGINE_ID"] = engine_id
    if topology.witness is not None:
        volumes["witness-secrets"] = _volume(rig, witness_secrets_volume(rig))
        services[topology.witness.name] = _witness(topology, topology.witness, image=image)
    return {
        "services": services,
        "networks": {
            "rig": {
                "name": network_name(rig),
                "driver": "bridge",
                "ipam": {"config": [{"subnet": topology.subnet, "ip_range": dynamic_range(topology.subnet)}]},
                "labels": {labels.RIG: rig, labels.ROLE: str(labels.Role.NETWORK)},
            }
        },
        "volumes": volumes,
    }


def _topology_label(topology: Topology) -> str:
    # A dollar sign starts a variable in a Compose file; two are one.
    return json.dumps(to_json_value(topology), separators=(",", ":")).replace("$", "$$")


def _volume(rig: str, name: str, **further: str) -> dict[str, Any]:
    return {"name": name, "labels": {labels.RIG: rig, labels.ROLE: str(labels.Role.VOLUME), **further}}


def _service(topology: Topology, node: NodeSpec, *, image: str, socket: str) -> dict[str, Any]:
    data = [f"voter-{node.name}:/data"] if node.voter else []
    proxied = topology.settings.engine_proxy
    engine = f"engine-{node.name}:{posixpath.dirname(PROXY_SOCKET)}" if proxied else f"{socket}:/var/run/docker.sock"
    return {
        "image": image,
        "container_name": node_container(topology.rig, node.name),
        "labels": {
            labels.RIG: topology.rig,
            labels.ROLE: str(labels.Role.NODE),
            labels.NODE: node.name,
        },
        # A reset of the node comes back by itself; a node whose power was cut (docker kill) stays off.
        "restart": "unless-stopped",
        "stop_grace_period": "1s",
        "cap_drop": ["ALL"],
        "cap_add": list(NODE_CAPABILITIES),
        "security_opt": ["no-new-privileges:true"],
        # Guests share this network namespace: without this one of them could take the voter's port.
        "sysctls": {"net.ipv4.ip_unprivileged_port_start": "1024"},
        "environment": _environment(topology, node),
        "networks": {"rig": {"ipv4_address": node.address}},
        "ports": [API_PUBLISHED],
        "volumes": [
            engine,
            "csv:/csv",
            *(f"{_disk_key(vm, disk)}:/csv/{vm.name}/{disk}" for vm, disk in _disks(topology)),
            "secrets:/run/secrets:ro",
            *data,
        ],
        **NODE_LIMITS,
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }


def _witness(topology: Topology, witness: NodeSpec, *, image: str) -> dict[str, Any]:
    """The same image with a voter in it and nothing else: no engine, no shared volume, no API."""
    return {
        "image": image,
        "container_name": node_container(topology.rig, witness.name),
        "labels": {
            labels.RIG: topology.rig,
            labels.ROLE: str(labels.Role.WITNESS),
            labels.NODE: witness.name,
        },
        "restart": "unless-stopped",
        "stop_grace_period": "1s",
        "cap_drop": ["ALL"],
        "cap_add": list(WITNESS_CAPABILITIES),
        "entrypoint": _first_process(WITNESS_CAPABILITIES),
        "security_opt": ["no-new-privileges:true"],
        "environment": {
            "BLACKSTART_RIG": topology.rig,
            "BLACKSTART_NODE": witness.name,
            "BLACKSTART_ROLE": "witness",
            "BLACKSTART_VOTERS": f"{witness.name}={witness.address}",
            **_appendfsync(topology),
        },
        "networks": {"rig": {"ipv4_address": witness.address}},
        "volumes": ["witness-secrets:/run/secrets:ro", f"voter-{witness.name}:/data"],
        **HELPER_LIMITS,
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }


def _first_process(capabilities: tuple[str, ...]) -> list[str]:
    """The command of PID 1 with fewer capabilities than the image's own ENTRYPOINT gives it."""
    wanted = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    identity = ["setpriv", "--reuid", "899", "--regid", "899", "--groups", "910"]
    granted = ["--inh-caps", wanted, "--ambient-caps", wanted, "--bounding-set", wanted, "--no-new-privs"]
    return [*identity, *granted, "python3", "-I", "-B", "/usr/lib/blackstart/init.py"]


def _vms(topology: Topology) -> list[ResourceSpec]:
    resources = [resource for group in topology.groups for resource in group.resources]
    return [resource for resource in resources if resource.type == "virtual-machine"]


def _disks(topology: Topology) -> list[tuple[ResourceSpec, str]]:
    return [(vm, disk) for vm in _vms(topology) for disk in disk_names(vm.properties)]


def _disk_key(vm: ResourceSpec, disk: str) -> str:
    """The disk's volume inside the Compose file."""
    return disk_volume("", vm.name, disk).removeprefix("_")


def _disk_in_memory(size: int, *, user: int, mode: str = "0755") -> dict[str, Any]:
    """The options of a volume of `size` bytes; empty for 0. Its content ends with the last container that mounts it,
    hence the keeper. The kernel refuses what exceeds the size, or a file for each page of it.
    """
    if not size:
        return {}
    options = f"size={size},nr_inodes={max(1024, size // 4096)},uid={user},gid={user},mode={mode},nosuid,nodev"
    return {"driver": "local", "driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": options}}


def _keeper(topology: Topology, *, image: str) -> dict[str, Any]:
    """A power cut takes a node's memory and leaves the disks: so another container must have them mounted."""
    voters = topology.voters if topology.settings.voter_disk_bytes else ()
    return {
        "image": image,
        "container_name": keeper_container(topology.rig),
        "labels": {labels.RIG: topology.rig, labels.ROLE: str(labels.Role.KEEPER)},
        "restart": "unless-stopped",
        "stop_grace_period": "1s",
        "network_mode": "none",
        "user": "65534:65534",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "entrypoint": ["sleep", "infinity"],
        "volumes": [
            *(f"voter-{node.name}:/voters/{node.name}:ro" for node in voters),
            *(f"{_disk_key(vm, disk)}:/vms/{vm.name}/{disk}:ro" for vm, disk in _disks(topology)),
        ],
        **KEEPER_LIMITS,
    }


def _engine_proxy(topology: Topology, node: NodeSpec, *, image: str, socket: str) -> dict[str, Any]:
    """Root, because the engine's socket is root's, with nothing but the right to give its own socket to VMMS."""
    return {
        "image": image,
        "container_name": engine_proxy_container(topology.rig, node.name),
        "labels": {
            labels.RIG: topology.rig,
            labels.ROLE: str(labels.Role.ENGINE_PROXY),
            labels.NODE: node.name,
        },
        "restart": "unless-stopped",
        "stop_grace_period": "1s",
        "network_mode": "none",
        "user": "0:0",
        "cap_drop": ["ALL"],
        "cap_add": ["CHOWN"],
        "security_opt": ["no-new-privileges:true"],
        "entrypoint": ["python3", "-I", "-B", PROXY_PROGRAM, "/var/run/docker.sock", PROXY_SOCKET],
        "volumes": [
            f"{socket}:/var/run/docker.sock",
            f"engine-{node.name}:{posixpath.dirname(PROXY_SOCKET)}",
        ],
        **HELPER_LIMITS,
        "logging": {"driver": "json-file", "options": {"max-size": "1m", "max-file": "2"}},
    }


def _environment(topology: Topology, node: NodeSpec) -> dict[str, str]:
    settings = topology.settings
    engine = {"BLACKSTART_ENGINE_SOCKET": PROXY_SOCKET} if settings.engine_proxy else {}
    return {
        "BLACKSTART_RIG": topology.rig,
        "BLACKSTART_NODE": node.name,
        "BLACKSTART_VOTERS": ",".join(f"{voter.name}={voter.address}" for voter in topology.voters),
        "BLACKSTART_BEAT_MS": str(settings.beat_us // 1000),
        "BLACKSTART_LEASE_MS": str(settings.lease_us // 1000),
        "BLACKSTART_GRACE_MS": str(settings.grace_us // 1000),
        "BLACKSTART_FENCING": str(settings.fencing),
        "BLACKSTART_PROGRAM_ASK_MS": str(settings.program_ask_us // 1000),
        "BLACKSTART_PROGRAM_SILENCE_MS": str(settings.program_silence_us // 1000),
        "BLACKSTART_GUEST_USERS": ",".join(sorted({vm.properties["user"] for vm in _vms(topology)})),
        **_guest_network(topology),
        **engine,
        **_appendfsync(topology),
    }


def _guest_network(topology: Topology) -> dict[str, str]:
    """The only network that guests may reach, for PID 1's firewall rules; nothing where they may leave it."""
    if topology.settings.network is Network.OPEN:
        return {}
    return {"BLACKSTART_GUEST_SUBNET": topology.subnet}


def _appendfsync(topology: Topology) -> dict[str, str]:
    wanted = topology.settings.appendfsync
    return {} if wanted is Appendfsync.ALWAYS else {"BLACKSTART_APPENDFSYNC": str(wanted)}
