"""Proof of ownership: the only way to kill, stop, pause or remove an object of the engine on this side of a rig.

An object belongs to a rig when the engine says so at the moment of the removal: its labels name that rig and a known
role, and it did not inherit them from an image. A container is then addressed by the ID that was inspected, never by
its name. Names of rigs are input wherever they come from, labels included: one that has not the form of a name is used
for nothing. Files are in `own_files`.
"""

from collections.abc import Collection, Mapping
from typing import Any

import docker

from harness.errors import NoSuchContainer, NotOwned
from harness.model import labels
from harness.model.name import check_rig_name, is_name
from harness.rig.engine.connection import engine_call, in_parallel

__all__ = [
    "IMAGE_LABEL",
    "MADE_BASE",
    "kill_container",
    "name_of",
    "names_taken_by_others",
    "own_container",
    "own_containers",
    "owner_of",
    "pause_container",
    "remove_container",
    "remove_image",
    "remove_network",
    "remove_tag",
    "remove_volume",
    "stop_container",
]

IMAGE_LABEL = "io.blackstart.context"
"""On every image that this project builds: the digest of its sources."""
OWN_TAGS = "blackstart/"
MADE_BASE = "blackstart/base:bookworm"
"""The base image where no registry gave one: imported, not built, and without a label."""
COMPOSE_PROJECT = "com.docker.compose.project"
_OURS = "io.blackstart."

Labels = Mapping[str, str] | None


def owner_of(found: Labels) -> str:
    """The rig that the labels of an object name; empty when they name none, or an unknown role."""
    rig = (found or {}).get(labels.RIG, "")
    return rig if is_name(rig) and _role(found) is not None else ""


def own_container(
    client: docker.DockerClient, container: str, *, rig: str, roles: Collection[labels.Role] = ()
) -> dict[str, Any]:
    """The engine's description of a container of the rig, found by its ID or name; `roles` are those that it may have.

    Raises NotOwned when it is not the rig's, NoSuchContainer, EngineError, UsageError for an invalid rig name.
    """
    check_rig_name(rig)
    with engine_call(f"inspect {container[:64]}"):
        found: dict[str, Any] = client.api.inspect_container(container)
    named = found["Config"].get("Labels")
    shown = f"container {name_of(found)}"
    _prove(shown, named, rig=rig, roles=roles)
    if _inherited(named, _image_labels(client, str(found.get("Image", ""))), name=name_of(found), rig=rig):
        raise NotOwned(f"{shown} is not of rig {rig}: its labels come from its image")
    return found


def own_containers(client: docker.DockerClient, listed: Collection[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of a listing of containers that belong to the rig that their labels name. Raises EngineError."""
    named = [found for found in listed if owner_of(found.get("Labels"))]
    ids = {str(found.get("ImageID", "")) for found in named}
    images = dict(zip(ids, in_parallel(lambda image: _image_labels(client, image), ids), strict=True))
    return [
        found
        for found in named
        if not _inherited(
            found["Labels"],
            images[str(found.get("ImageID", ""))],
            name=name_of(found),
            rig=owner_of(found["Labels"]),
        )
    ]


def remove_container(
    client: docker.DockerClient, container: str, *, rig: str, roles: Collection[labels.Role] = ()
) -> None:
    """Kill and remove a container of the rig, with its anonymous volumes. Raises as `own_container`."""
    found = own_container(client, container, rig=rig, roles=roles)
    with engine_call(f"remove {name_of(found)}"):
        client.api.remove_container(found["Id"], force=True, v=True)


def kill_container(
    client: docker.DockerClient, container: str, *, rig: str, roles: Collection[labels.Role] = ()
) -> None:
    """Kill a container of the rig. Raises as `own_container`."""
    found = own_container(client, container, rig=rig, roles=roles)
    with engine_call(f"kill {name_of(found)}"):
        client.api.kill(found["Id"])


def stop_container(
    client: docker.DockerClient, container: str, *, rig: str, grace_s: int, roles: Collection[labels.Role] = ()
) -> None:
    """Stop a container of the rig: TERM, and KILL after `grace_s` seconds. Raises as `own_container`."""
    found = own_container(client, container, rig=rig, roles=roles)
    with engine_call(f"stop {name_of(found)}"):
        client.api.stop(found["Id"], timeout=grace_s)


def pause_container(
    client: docker.DockerClient, container: str, *, rig: str, roles: Collection[labels.Role] = ()
) -> None:
    """Freeze a container of the rig. Raises as `own_container`."""
    found = own_container(client, container, rig=rig, roles=roles)
    with engine_call(f"freeze {name_of(found)}"):
        client.api.pause(found["Id"])


def remove_network(client: docker.DockerClient, network: str, *, rig: str) -> None:
    """Remove a network of the rig. Raises as `own_container`."""
    check_rig_name(rig)
    with engine_call(f"inspect network {network[:64]}"):
        found = client.api.inspect_network(network)
    _prove(f"network {found['Name']}", found.get("Labels"), rig=rig, roles=(labels.Role.NETWORK,))
    with engine_call(f"remove network {found['Name']}"):
        client.api.remove_network(found["Id"])


def remove_volume(
    client: docker.DockerClient, volume: str, *, rig: str, roles: Collection[labels.Role] = ()
) -> None:
    """Remove a volume of the rig. A volume has no ID: its name is all that the engine knows it by.

    Raises as `own_container`.
    """
    check_rig_name(rig)
    with engine_call(f"inspect volume {volume[:64]}"):
        found = client.api.inspect_volume(volume)
    _prove(f"volume {found['Name']}", found.get("Labels"), rig=rig, roles=roles)
    with engine_call(f"remove volume {found['Name']}"):
        client.api.remove_volume(found["Name"])


def remove_image(client: docker.DockerClient, image: str) -> None:
    """Remove an image that this project built and that has no name any more. Raises NotOwned, EngineError."""
    with engine_call(f"inspect image {image[:19]}"):
        found = client.images.get(image)
    if IMAGE_LABEL not in found.labels:
        raise NotOwned(f"image {image[:19]} was not built by Blackstart: it has no label {IMAGE_LABEL}")
    if found.tags:
        raise NotOwned(f"image {image[:19]} still has a name: {', '.join(found.tags)}")
    with engine_call(f"remove image {image[:19]}"):
        client.images.remove(str(found.id))


def remove_tag(client: docker.DockerClient, tag: str) -> bool:
    """Remove a tag of this project, and its image when it has no other; whether there was one. Raises NotOwned for a
    tag of another, or on an image that was not built by this project; EngineError.
    """
    if not tag.startswith(OWN_TAGS):
        raise NotOwned(f"image {tag} is not Blackstart's: its tags begin with {OWN_TAGS}")
    try:
        with engine_call(f"inspect image {tag}"):
            found = client.images.get(tag)
    except NoSuchContainer:
        return False
    if IMAGE_LABEL not in found.labels and tag != MADE_BASE:
        raise NotOwned(f"image {tag} was not built by Blackstart: it has no label {IMAGE_LABEL}")
    with engine_call(f"remove image {tag}"):
        client.images.remove(tag)
    return True


def names_taken_by_others(
    client: docker.DockerClient,
    rig: str,
    *,
    containers: Collection[str],
    volumes: Collection[str],
    networks: Collection[str],
) -> list[str]:
    """The objects of others that have one of these names, or that are in a Compose project with the name of the rig:
    Compose replaces a container of its project and uses a volume of the wanted name, whether or not it made them.

    Raises EngineError, UsageError for an invalid rig name.
    """
    check_rig_name(rig)
    api = client.api
    project = {"label": f"{COMPOSE_PROJECT}={rig}"}
    with engine_call(f"look for others with names of rig {rig}"):
        boxes = api.containers(all=True, filters={"name": [f"^/{name}$" for name in containers]})
        boxes += api.containers(all=True, filters=project)
        disks = api.volumes().get("Volumes") or []
        nets = api.networks()

    def others(kind: str, found: list[Any], wanted: Collection[str]) -> list[str]:
        return [
            f"{kind} {name}"
            for entry in found
            for name, named in [(name_of(entry), entry.get("Labels") or {})]
            if owner_of(named) != rig and (name in wanted or named.get(COMPOSE_PROJECT) == rig)
        ]

    taken = {
        *others("container", boxes, containers),
        *others("volume", disks, volumes),
        *others("network", nets, networks),
    }
    return sorted(taken)


def name_of(found: Mapping[str, Any]) -> str:
    """The name of an object that the engine has listed or described."""
    names = found.get("Names") or [found.get("Name") or str(found.get("Id", ""))[:12]]
    return str(names[0]).lstrip("/")


def _prove(shown: str, found: Labels, *, rig: str, roles: Collection[labels.Role]) -> None:
    """Raises NotOwned unless the labels name the rig and a role, one of `roles` where there are any."""
    role = _role(found)
    if owner_of(found) != rig or role is None:
        owner, part = (found or {}).get(labels.RIG), (found or {}).get(labels.ROLE)
        raise NotOwned(f"{shown} is not of rig {rig}: its labels have the rig {owner!r} and the role {part!r}")
    if roles and role not in roles:
        raise NotOwned(f"{shown} of rig {rig} is a {role}, expected {' or '.join(sorted(roles))}")


def _role(found: Labels) -> labels.Role | None:
    try:
        return labels.Role((found or {}).get(labels.ROLE, ""))
    except ValueError:
        return None


def _image_labels(client: docker.DockerClient, image: str) -> Labels:
    """The labels of an image; None when it is gone."""
    if not image:
        return None
    try:
        with engine_call("inspect the image of a container"):
            found = client.api.inspect_image(image)  # type: ignore[no-untyped-call]
    except NoSuchContainer:
        return None
    return (found.get("Config") or {}).get("Labels") or {}


def _inherited(found: Labels, image: Labels, *, name: str, rig: str) -> bool:
    """Whether the image gave the container every label of ours. When the image is gone, the name of the container has
    to show that it did not: an image cannot set that.
    """
    if image is None:
        return not name.startswith((f"{rig}-", f"{rig}_"))
    ours = {key: value for key, value in (found or {}).items() if key.startswith(_OURS)}
    return all(image.get(key) == value for key, value in ours.items())
