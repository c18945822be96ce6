"""The disks of VMs: their sizes, the volumes that stand for them, and images that would get round the limit."""

from types import SimpleNamespace
from typing import Any

import pytest

from harness.document.topology import read_topology
from harness.document.yaml_source import load
from harness.model.disk import DISK_BYTES, disk_bytes, disk_names, disk_volume
from harness.rig.lifecycle.create import refused_vms


def test_vm_has_its_own_disk_and_its_volumes() -> None:
    properties = {"volumes": '{"data": "/data"}', "disk": "1048576"}

    assert disk_names({}) == ("disk",)
    assert disk_names(properties) == ("disk", "volumes/data")
    assert (disk_bytes({}), disk_bytes(properties)) == (DISK_BYTES, 1 << 20)


def test_volume_of_a_disk_has_the_same_name_by_name_and_by_path() -> None:
    assert disk_volume("rig", "vm", "disk") == "rig_disk-vm"
    assert disk_volume("rig", "vm", "data") == disk_volume("rig", "vm", "volumes/data") == "rig_disk-vm.data"


class Images:
    """An engine that has one image, with these volumes."""

    def __init__(self, declared: dict[str, Any] | None) -> None:
        self._declared = declared
        self.images = self

    def get(self, _image: str) -> Any:
        return SimpleNamespace(attrs={"Config": {"Volumes": self._declared}})


@pytest.mark.parametrize("declared", [None, {}, {"/data": {}}, {"/data/": {}, "/tmp": {}}])
def test_image_with_bounded_volumes_is_taken(declared: dict[str, Any] | None) -> None:
    assert refused(declared) == []


def test_image_with_volume_of_no_size_is_refused() -> None:
    (refusal,) = refused({"/data": {}, "/var/lib/more": {}})

    assert refusal.startswith("the image shop/db:1 of db-vm declares the volume /var/lib/more, which has no size")


def refused(declared: dict[str, Any] | None) -> list[str]:
    text = (
        "nodes: 1\ngroups:\n  - name: db\n    resources:\n"
        '      - {name: db-vm, type: virtual-machine, image: "shop/db:1", volumes: ["data:/data"]}\n'
    )
    client: Any = Images(declared)
    return refused_vms(client, read_topology(load(text, name="rig.yaml")))
