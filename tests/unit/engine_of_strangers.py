"""An engine in memory with objects of rigs and of strangers: as much of the Docker SDK as removals need."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import docker.errors
import requests


class EngineOfStrangers:
    """Containers, networks, volumes and images by ID; `gone` has the IDs of what was removed or killed."""

    def __init__(self) -> None:
        self.api = self
        self.boxes: dict[str, dict[str, Any]] = {}
        self.nets: dict[str, dict[str, Any]] = {}
        self.disks: dict[str, dict[str, Any]] = {}
        self.labels_of_images: dict[str, dict[str, str]] = {"plain": {}}
        self.tags: dict[str, list[str]] = {}
        self.gone: list[str] = []

    # What stands there.

    def add_container(self, name: str, labels: Mapping[str, str], *, image: str = "plain") -> str:
        """A running container; what its image says is inherited."""
        identifier = f"box-{len(self.boxes)}-{name}"
        inherited = self.labels_of_images.get(image, {})
        self.boxes[identifier] = {"name": name, "labels": {**inherited, **labels}, "image": image}
        return identifier

    def add_network(self, name: str, labels: Mapping[str, str]) -> str:
        identifier = f"net-{len(self.nets)}-{name}"
        self.nets[identifier] = {"Id": identifier, "Name": name, "Labels": dict(labels)}
        return identifier

    def add_volume(self, name: str, labels: Mapping[str, str]) -> str:
        self.disks[name] = {"Name": name, "Labels": dict(labels)}
        return name

    # The engine's calls.

    def containers(self, *, all: bool, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        assert all
        return [
            {
                "Id": identifier,
                "Names": [f"/{box['name']}"],
                "Labels": box["labels"],
                "State": "running",
                "ImageID": box["image"],
            }
            for identifier, box in self.boxes.items()
            if _fits(box["name"], box["labels"], filters)
        ]

    def networks(self, *, filters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        return [net for net in self.nets.values() if _fits(net["Name"], net["Labels"], filters or {})]

    def volumes(self, *, filters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {"Volumes": [disk for disk in self.disks.values() if _fits(disk["Name"], disk["Labels"], filters or {})]}

    def inspect_container(self, container: str) -> dict[str, Any]:
        for identifier, box in self.boxes.items():
            if container in (identifier, box["name"]):
                state = {"Status": "running", "Running": True, "StartedAt": "now", "Restarting": False}
                config = {"Labels": box["labels"]}
                return {
                    **{"Id": identifier, "Name": f"/{box['name']}", "Image": box["image"]},
                    **{"Config": config, "State": state},
                }
        raise _not_found()

    def inspect_network(self, network: str) -> dict[str, Any]:
        return _taken(self.nets.get(network))

    def inspect_volume(self, volume: str) -> dict[str, Any]:
        return _taken(self.disks.get(volume))

    def inspect_image(self, image: str) -> dict[str, Any]:
        if image not in self.labels_of_images:
            raise _not_found()
        return {"Id": image, "Config": {"Labels": self.labels_of_images[image]}}

    @property
    def images(self) -> Any:
        """The other half of the SDK."""

        def get(image: str) -> Any:
            if image not in self.labels_of_images:
                raise _not_found()
            labels = self.labels_of_images[image]
            return SimpleNamespace(id=image, labels=labels, tags=self.tags.get(image, []))

        return SimpleNamespace(get=get, remove=self.gone.append)

    def kill(self, container: str) -> None:
        self._act(container)

    def stop(self, container: str, *, timeout: int) -> None:
        assert timeout >= 0
        self._act(container)

    def pause(self, container: str) -> None:
        self._act(container)

    def remove_container(self, container: str, *, force: bool, v: bool) -> None:
        assert force
        assert v
        self._act(container)
        del self.boxes[container]

    def remove_network(self, network: str) -> None:
        del self.nets[network]
        self.gone.append(network)

    def remove_volume(self, volume: str) -> None:
        del self.disks[volume]
        self.gone.append(volume)

    def _act(self, container: str) -> None:
        assert container in self.boxes, "by ID, and never by name"
        self.gone.append(container)


def _fits(name: str, labels: Mapping[str, str], filters: Mapping[str, Any]) -> bool:
    label = filters.get("label")
    if label is not None:
        key, equals, value = str(label).partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    names = filters.get("name")
    return names is None or f"^/{name}$" in names


def _taken(found: dict[str, Any] | None) -> dict[str, Any]:
    if found is None:
        raise _not_found()
    return found


def _not_found() -> docker.errors.NotFound:
    answer = requests.Response()
    answer.status_code = 404
    return docker.errors.NotFound("no such object", response=answer)


