"""Nodes without anything in them on a real engine, for tests of what talks to the engine: containers that only sleep,
and a shared volume.

Not a rig that `up` makes: no network, no voters, no processes. Everything carries the label of one rig with a name of
its own, by which `close` removes it.
"""

import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any

import docker
import docker.errors
from docker.models.containers import Container

from harness.model import labels as label
from harness.model.disk import DISK_BYTES, OWN_DISK, disk_volume
from harness.model.labels import Role
from harness.model.session import Session
from harness.model.vm import VmSpec
from harness.rig.images.build import ensure_images, find_project_root

__all__ = ["SmallRig"]

HYPERVISOR = "blackstart/hypervisor:latest"
GUEST = "blackstart/guest:latest"
GUEST_USER = 10_001
VMS = ("web1", "web2", "web3")
DEATH_LIMIT_S = 5.0

KILL_GUEST = """
import os, sys
for pid in filter(str.isdigit, os.listdir("/proc")):
    if os.stat("/proc/" + pid).st_uid == int(sys.argv[1]):
        os.kill(int(pid), 9)
"""


class SmallRig:
    """VMs web1 to web3 have a disk; each runs as a user of its own. `close` when done."""

    def __init__(self) -> None:
        self.client = docker.from_env(timeout=60)
        self.name = f"small-{os.urandom(3).hex()}"
        self.nodes: dict[str, Container] = {}
        self._ensure_images()
        self.client.volumes.create(f"{self.name}_csv", labels=self.labels(Role.VOLUME))
        for index, vm in enumerate(VMS):
            options = f"size={DISK_BYTES},uid={GUEST_USER + index},gid={GUEST_USER + index},mode=0700"
            self.client.volumes.create(
                disk_volume(self.name, vm, OWN_DISK),
                driver_opts={"type": "tmpfs", "device": "tmpfs", "o": options},
                labels=self.labels(Role.VOLUME),
            )

    def _ensure_images(self) -> None:
        try:
            for tag in (HYPERVISOR, GUEST):
                self.client.images.get(tag)
        except docker.errors.ImageNotFound:
            ensure_images(self.client, project_root=find_project_root(), say=lambda _text: None)

    def labels(self, role: Role, **further: str) -> dict[str, str]:
        """Those of an object of this rig; `further` by the last part of their names."""
        return {label.RIG: self.name, label.ROLE: role.value, **{f"io.blackstart.{k}": v for k, v in further.items()}}

    def start_node(self, node: str, *, entrypoint: Sequence[str] = ("sleep", "infinity"), **options: Any) -> Session:
        """A node that runs; its session."""
        box = self.client.containers.run(
            HYPERVISOR,
            entrypoint=list(entrypoint),
            command=[],
            name=f"{self.name}-{node}",
            labels=self.labels(Role.NODE, node=node),
            volumes={
                f"{self.name}_csv": {"bind": "/csv", "mode": "rw"},
                **{
                    disk_volume(self.name, vm, OWN_DISK): {"bind": f"/csv/{vm}/disk", "mode": "rw"}
                    for vm in VMS
                },
                **options.pop("volumes", {}),
            },
            detach=True,
            **options,
        )
        self.nodes[node] = box
        return self.session(node)

    def session(self, node: str) -> Session:
        """The node's present session."""
        box = self.nodes[node]
        box.reload()
        return Session(node, box.id[:12], box.attrs["State"]["StartedAt"])

    def spec(self, vm: str) -> VmSpec:
        """What the VM is made from."""
        user = GUEST_USER + VMS.index(vm) if vm in VMS else GUEST_USER
        return VmSpec(name=vm, group=vm, image=GUEST, address=None, user=user)

    def vm_labels(self, vm: str, session: Session) -> dict[str, str]:
        """Those that VMMS gives to the VM's container."""
        return self.labels(Role.VM, node=session.node, group=vm, resource=vm, session=str(session))

    def vms(self, node: str) -> list[Container]:
        """The node's VM containers, running or not."""
        labels = self.labels(Role.VM, node=node)
        found: list[Container] = self.client.containers.list(
            all=True, filters={"label": [f"{name}={value}" for name, value in labels.items()]}
        )
        return found

    def crash(self, container: str) -> None:
        """The VM's main process dies without the engine's doing; waits until the engine has noticed."""
        box = self.client.containers.get(container)
        user = box.attrs["Config"]["User"].partition(":")[0]
        node = self.nodes[box.labels[label.NODE]]
        code, output = node.exec_run(["python3", "-c", KILL_GUEST, user], user="0")
        assert code == 0, output
        end = time.monotonic() + DEATH_LIMIT_S
        while self.client.containers.get(container).status == "running":
            assert time.monotonic() < end, f"{box.name} still runs {DEATH_LIMIT_S} s after its process was killed"
            time.sleep(0.02)

    def close(self) -> None:
        """Remove everything that has this rig's label; paused guests first, because they keep their node from dying."""
        filters = {"label": f"{label.RIG}={self.name}"}
        boxes = self.client.containers.list(all=True, filters=filters)
        for box in sorted(boxes, key=lambda box: box.labels.get(label.ROLE, "")):
            with contextlib.suppress(docker.errors.NotFound):
                box.remove(force=True, v=True)
        for volume in self.client.volumes.list(filters=filters):
            volume.remove(force=True)
        self.client.close()
