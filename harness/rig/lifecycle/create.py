"""Making a rig: its network, volumes, secrets and nodes, and the one explicit formation of its cluster.

Nothing forms by itself. A mark in the engine says that the cluster of these volumes was formed; it is made last, so
that a rig without it is known to be half made. A half-made rig is completed where nothing can be lost by it, and else
refused: no object is removed here.
"""

import json
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network
from pathlib import Path

import docker

from harness.document.address_plan import in_pool, moved, pool_subnets
from harness.errors import HarnessError, NoSuchContainer, UsageError
from harness.model import labels
from harness.model.name import check_rig_name
from harness.model.object_names import csv_volume, engine_proxy_container, formed_volume, node_container
from harness.model.serialization import to_json_value
from harness.model.topology import ResourceSpec, Topology
from harness.model.workload import runs_guest
from harness.rig.cluster.secret_files import fill_secrets
from harness.rig.engine.connection import engine_call, in_parallel
from harness.rig.engine.engine_socket import EngineSocket, socket_on_engine
from harness.rig.engine.exec import run_inside
from harness.rig.engine.own_files import write_rendered
from harness.rig.engine.ownership import names_taken_by_others, owner_of
from harness.rig.images.build_context import EXAMPLES, find_project_root
from harness.rig.lifecycle.compose_file import TOPOLOGY_LABEL, object_names, render, topology_from_label
from harness.rig.lifecycle.compose_tool import ComposeFailed, ComposeTool
from harness.rig.lifecycle.rig_lock import GUARDS
from harness.rig.lifecycle.teardown import remove_rig, still_there

__all__ = [
    "FormingBegun",
    "check_vms",
    "create",
    "form",
    "is_formed",
    "make_missing_nodes",
    "mark_formed",
    "refuse_other",
    "refused_vms",
    "topology_of",
]

Say = Callable[[str], None]


class FormingBegun(HarnessError):
    """The voters of a rig without the mark belong to a cluster already: an earlier forming was begun."""


FORMING_LIMIT_S = 60.0
SUBNET_ATTEMPTS = 5
"""Other rigs that start at the same moment may take the subnet that was free."""


def topology_of(client: docker.DockerClient, name: str) -> Topology | None:
    """What the rig of that name was made from; None when there is no such rig.

    Raises UsageError for a rig that is half made or was made by another version: it can only be removed.
    """
    check_rig_name(name)
    remedy = f"`blackstart down --name {name}` removes it"
    try:
        with engine_call(f"look for rig {name}"):
            volume = client.api.inspect_volume(csv_volume(name))
    except NoSuchContainer:
        parts = still_there(client, name)
        if parts:
            raise UsageError(f"of rig {name} there are only parts ({', '.join(parts)}): {remedy}") from None
        return None
    volume_labels = volume.get("Labels") or {}
    if owner_of(volume_labels) != name:
        raise UsageError(f"the volume {csv_volume(name)} is not a rig's: take another name, or remove that volume")
    try:
        topology = topology_from_label(volume_labels.get(TOPOLOGY_LABEL, ""))
    except ValueError as error:
        raise UsageError(f"rig {name} was made by another version of Blackstart ({error}): {remedy}") from error
    return topology


def refuse_other(wanted: Topology, standing: Topology) -> None:
    """Raises UsageError when the rig that stands is not the one that is wanted; its subnet may differ."""
    placed = moved(wanted, standing.subnet)
    if placed == standing:
        return
    differing = []
    if placed.nodes != standing.nodes:
        differing.append(f"it has the nodes {_nodes_shown(standing)}; wanted are {_nodes_shown(placed)}")
    if placed.witness != standing.witness:
        differing.append("it has a witness" if standing.witness else "it has no witness")
    if placed.groups != standing.groups:
        differing.append("its groups are others")
    if placed.settings != standing.settings:
        differing.append("its settings are others")
    raise UsageError(
        f"a rig {wanted.rig!r} stands already and is not the same: {'; '.join(differing)}. "
        f"`blackstart down --name {wanted.rig}` removes it, --name makes another beside it"
    )


def _nodes_shown(topology: Topology) -> str:
    nodes = [f"{node.name} (voter)" if node.voter else node.name for node in topology.nodes]
    return ", ".join([*nodes, topology.witness.name] if topology.witness is not None else nodes)


def check_vms(client: docker.DockerClient, topology: Topology) -> None:
    """Raises UsageError for VMs that no node could ever start on this engine; each sentence says what to do."""
    refusals = refused_vms(client, topology)
    if refusals:
        raise UsageError("\n".join(refusals))


def refused_vms(client: docker.DockerClient, topology: Topology) -> list[str]:
    """VMs whose image the engine does not have or has volumes without a size, or that are given more processors
    than it has. The guest's own image is never among them: `up` builds it.
    """
    vms = [
        resource for group in topology.groups for resource in group.resources if resource.type == "virtual-machine"
    ]
    refusals = []
    for image in sorted({vm.properties["image"] for vm in vms if not runs_guest(vm.properties)}):
        try:
            with engine_call(f"look for the image {image}"):
                found = client.images.get(image)
        except NoSuchContainer:
            users = ", ".join(vm.name for vm in vms if vm.properties["image"] == image)
            refusals.append(f"the engine does not have the image {image} of {users}: {_way_to(image)}")
            continue
        declared = sorted((found.attrs.get("Config") or {}).get("Volumes") or {})
        refusals += [
            refusal
            for vm in vms
            if vm.properties["image"] == image
            for refusal in _volumes_without_size(vm, declared)
        ]
    most_milli = max((int(vm.properties.get("processors", 0)) for vm in vms), default=0)
    if most_milli > 1000:
        with engine_call("ask the engine how many processors it has"):
            there = int(client.info()["NCPU"])
        refusals += [
            f"{vm.name} is given {int(vm.properties['processors']) / 1000:g} processors, "
            f"and the engine's host has {there}: give it fewer"
            for vm in vms
            if int(vm.properties.get("processors", 0)) > 1000 * there
        ]
    return refusals


def _volumes_without_size(vm: ResourceSpec, declared: Sequence[str]) -> list[str]:
    """A refusal for each volume that the image declares and the VM has no disk for: the engine would make one on
    its own disk, and the VM could fill that.
    """
    given = json.loads(vm.properties.get("volumes") or "{}")
    bounded = {"/disk", "/tmp", *given.values()}
    return [
        f"the image {vm.properties['image']} of {vm.name} declares the volume {path}, which has no size: "
        f"give the VM a disk there, such as volumes: [data:{path}]"
        for path in declared
        if (path.rstrip("/") or "/") not in bounded
    ]


def _way_to(image: str) -> str:
    for example, recipe in EXAMPLES.items():
        if image in (recipe.tag, recipe.tag.partition(":")[0]):
            return f"`blackstart images build --example {example}` builds it"
    return f"`docker pull {image}` fetches it, or `docker build -t {image} DIRECTORY` builds it"


def create(client: docker.DockerClient, tool: ComposeTool, topology: Topology, *, image: str, say: Say) -> Topology:
    """Volumes, network and nodes of a rig that does not exist; the topology with the addresses that it got.

    The secrets go in before anything starts, because a voter must not run without them. Raises HarnessError,
    EngineError, UsageError for a subnet that is taken and may not be replaced.
    """
    _refuse_taken_names(client, topology)
    socket = socket_on_engine(client, rig=topology.rig, image=image)
    refused: set[str] = set()
    for _ in range(SUBNET_ATTEMPTS):
        placed = _placed(client, topology, refused, say)
        say(f"making rig {placed.rig}: {_nodes_shown(placed)} on {placed.subnet}")
        file = _write(placed, image=image, socket=socket)
        try:
            tool.run(placed.rig, file, "up", "--no-start")
        except ComposeFailed as error:
            if "overlap" not in str(error) or not in_pool(topology.subnet):
                raise
            # Another rig has just taken it. The topology is a label of this one's volume, and labels cannot change.
            refused.add(placed.subnet)
            remove_rig(client, placed.rig, say=_nobody, spare_lock=True)
            continue
        _fill_secrets(client, placed, image=image)
        # By the engine and not by the tool: version 1 of it takes half a second to start, for three calls.
        containers = _container_names(client, placed.rig)
        proxies = containers & {engine_proxy_container(placed.rig, node.name) for node in placed.nodes}
        # A node's way to the engine comes first. The keeper need not: nodes mount the same disks, still empty.
        in_parallel(lambda name: _start(client, name), proxies)
        in_parallel(lambda name: _start(client, name), containers - proxies)
        return placed
    raise HarnessError(f"rig {topology.rig} got no subnet in {SUBNET_ATTEMPTS} attempts, last {', '.join(refused)}")


def _fill_secrets(client: docker.DockerClient, topology: Topology, *, image: str) -> None:
    fill_secrets(
        client,
        rig=topology.rig,
        voters=[node.name for node in topology.nodes if node.voter],
        image=image,
        witness=topology.witness.name if topology.witness is not None else None,
    )


def _refuse_taken_names(client: docker.DockerClient, topology: Topology) -> None:
    """Raises UsageError when another's container, volume or network has a name that the rig needs."""
    names = object_names(topology)
    taken = names_taken_by_others(
        client, topology.rig, containers=names.containers, volumes=names.volumes, networks=names.networks
    )
    if taken:
        raise UsageError(
            f"cannot make rig {topology.rig}: its names are taken by {', '.join(taken)}, which are not Blackstart's; "
            "take another name for the rig, or rename or remove them"
        )


def _container_names(client: docker.DockerClient, rig: str) -> set[str]:
    """Every container of the rig; its lock is none of them."""
    with engine_call(f"list the containers of rig {rig}"):
        listed = client.api.containers(all=True, filters={"label": f"{labels.RIG}={rig}"})
    return {str(found["Names"][0]).lstrip("/") for found in listed if found["Labels"].get(labels.ROLE) not in GUARDS}


def _start(client: docker.DockerClient, container: str) -> None:
    with engine_call(f"start {container}"):
        client.api.start(container)


def make_missing_nodes(client: docker.DockerClient, tool: ComposeTool, topology: Topology, *, image: str) -> None:
    """Makes the objects of a rig that are missing; those that exist are left as they are.

    A rig of which no node was ever started gets new secrets: the `up` that made it may have ended before it had any.
    """
    _refuse_taken_names(client, topology)
    file = _write(topology, image=image, socket=socket_on_engine(client, rig=topology.rig, image=image))
    tool.run(topology.rig, file, "up", "--no-start", "--no-recreate")
    filters = {"label": [f"{labels.RIG}={topology.rig}", f"{labels.ROLE}={labels.Role.NODE}"]}
    with engine_call(f"list the nodes of rig {topology.rig}"):
        nodes = client.api.containers(all=True, filters=filters)
    if all(found["State"] == "created" for found in nodes) and not is_formed(client, topology.rig):
        _fill_secrets(client, topology, image=image)


def form(client: docker.DockerClient, topology: Topology, *, say: Say) -> None:
    """Provisions the shared volume and forms the cluster, unless that was done with these volumes before.

    Raises FormingBegun when the voters belong to a cluster already, HarnessError with what the node said.
    """
    if is_formed(client, topology.rig):
        return
    first = topology.nodes[0].name
    errors: list[str] = []
    begun = False

    def take(line: str) -> None:
        nonlocal begun
        try:
            message = json.loads(line)
        except ValueError:
            message = {"say": line}
        if "error" in message:
            errors.append(str(message["error"]))
            begun = begun or bool(message.get("begun"))
        elif "say" in message:
            say(f"{first}: {message['say']}")

    finished = run_inside(
        client,
        node_container(topology.rig, first),
        ["python3", "-I", "-m", "harness.live.form_cluster"],
        user="0",
        limit_s=FORMING_LIMIT_S,
        stdin=json.dumps(to_json_value(topology)).encode(),
        on_line=take,
    )
    if finished.exit_code != 0 or errors:
        said = "; ".join(errors) or finished.stderr.strip()[-1000:] or finished.stdout.strip()[-500:] or "nothing"
        failed = FormingBegun if begun else HarnessError
        raise failed(f"cannot form the cluster of rig {topology.rig} in {first}: {said}")
    mark_formed(client, topology.rig)


def mark_formed(client: docker.DockerClient, rig: str) -> None:
    """Make the mark: the cluster of these volumes was formed to the end."""
    with engine_call("mark the cluster as formed"):
        marked = {labels.RIG: rig, labels.ROLE: str(labels.Role.VOLUME)}
        client.api.create_volume(formed_volume(rig), labels=marked)


def _nobody(_: str) -> None:
    """Takes what need not be said."""


def is_formed(client: docker.DockerClient, rig: str) -> bool:
    """Whether the mark is there."""
    try:
        with engine_call(f"ask whether the cluster of rig {rig} was formed"):
            client.api.inspect_volume(formed_volume(rig))
    except NoSuchContainer:
        return False
    return True


def _write(topology: Topology, *, image: str, socket: EngineSocket) -> Path:
    """The rendered file; nothing but the Compose tool reads it."""
    text = render(topology, image=image, socket=socket.path, engine_id=socket.engine_id)
    return write_rendered(find_project_root(), topology.rig, text)


def _placed(client: docker.DockerClient, topology: Topology, refused: set[str], say: Say) -> Topology:
    """The topology in its own subnet when that is free, else in the next free one of the pool."""
    taken = _taken_subnets(client)
    users = [name for subnet, name in taken.items() if _overlap(topology.subnet, subnet)]
    if topology.subnet not in refused and not users:
        return topology
    taker = ", ".join(users) or "another rig"
    if not in_pool(topology.subnet):
        raise UsageError(f"the subnet {topology.subnet} of rig {topology.rig} is taken by {taker}, expected a free one")
    for subnet in pool_subnets():
        if subnet not in refused and not any(_overlap(subnet, other) for other in taken):
            say(f"{topology.subnet} is taken by {taker}: using {subnet}")
            return moved(topology, subnet)
    raise HarnessError(f"every subnet that rigs take by themselves is in use; {topology.subnet} is taken by {taker}")


def _taken_subnets(client: docker.DockerClient) -> dict[str, str]:
    """Network names by subnet."""
    with engine_call("list the engine's networks"):
        networks = client.api.networks()
    return {
        entry["Subnet"]: network["Name"]
        for network in networks
        for entry in (network.get("IPAM") or {}).get("Config") or ()
        if ":" not in entry.get("Subnet", ":")
    }


def _overlap(subnet: str, other: str) -> bool:
    return IPv4Network(subnet).overlaps(IPv4Network(other, strict=False))
