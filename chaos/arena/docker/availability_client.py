"""The client outside: a container of its own on the rig's network that measures whether VMs answer.

It is no part of the cluster and shares nothing with it but the network, so its ARP cache and its time-outs are a real
client's. This starts it and reads what it says; what it does is in `client_probe`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import docker

from chaos.arena.docker.in_node import availability
from chaos.arena.docker.log_stream import LogStream
from chaos.history.records import ClientAnswer, ClientBeat
from harness.errors import EngineError, NoSuchContainer, NotOwned, UsageError
from harness.model import labels
from harness.model.object_names import client_container, network_name
from harness.rig.engine.connection import engine_call
from harness.rig.engine.ownership import remove_container
from harness.rig.lifecycle.compose_file import HYPERVISOR_IMAGE

__all__ = ["Client", "client_record"]

Sink = Callable[[ClientAnswer | ClientBeat], None]

NOBODY = "65534:65534"
MEMORY_BYTES = 64 << 20
MAX_TASKS = 256
"""It has a thread for each VM, of which a rig has a hundred at most."""


def client_record(text: str) -> ClientAnswer | ClientBeat | None:
    """One line of the client as a record; None for anything else."""
    try:
        line: Any = json.loads(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or not isinstance(line.get("at_ns"), int):
        return None
    if "vm" not in line:
        return ClientBeat(at_ns=line["at_ns"], asked=int(line["asked"]), answered=int(line["answered"]))
    return ClientAnswer(
        at_ns=line["at_ns"],
        vm=str(line["vm"]),
        ok=bool(line["ok"]),
        boot=str(line.get("boot", "")),
        node=str(line.get("node", "")),
        error=str(line.get("error", "")),
    )


class Client:
    """The client of one rig. It carries the rig's label, so whoever removes the rig removes it as well."""

    def __init__(self, client: docker.DockerClient, *, rig: str, vms: Mapping[str, str], sink: Sink) -> None:
        """`vms` are those of `client_targets`; `sink` is called on a thread of its own."""
        self._client = client
        self._rig = rig
        self._vms = vms
        self._sink = sink
        self._name = client_container(rig)
        self._log = LogStream(client, self._name, sink=self._take)

    def start(self) -> None:
        """Make the container, start it and begin to read.

        One that an earlier run left is replaced. Raises UsageError when another's container has its name, EngineError.
        """
        try:
            self._remove()
        except NotOwned as error:
            raise UsageError(
                f"cannot start the client of rig {self._rig}: its name is taken: {error}; "
                f"try again once {self._name} is renamed, or take another rig with --name"
            ) from error
        source = Path(availability.__file__).read_text(encoding="utf-8")
        targets = [f"{vm}={where}" for vm, where in sorted(self._vms.items())]
        with engine_call(f"start the client {self._name}"):
            self._client.containers.run(
                HYPERVISOR_IMAGE,
                entrypoint=["python3", "-I", "-c", source],
                command=targets,
                name=self._name,
                labels={labels.RIG: self._rig, labels.ROLE: str(labels.Role.CLIENT)},
                network=network_name(self._rig),
                user=NOBODY,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                read_only=True,
                mem_limit=MEMORY_BYTES,
                memswap_limit=MEMORY_BYTES,
                pids_limit=MAX_TASKS,
                init=False,
                detach=True,
            )
        self._log.open()

    def stop(self) -> None:
        """Stop reading and remove the container. Raises EngineError."""
        self._log.close()
        self._remove()

    def _remove(self) -> None:
        try:
            remove_container(self._client, self._name, rig=self._rig, roles=(labels.Role.CLIENT,))
        except NoSuchContainer:
            return
        except EngineError as error:
            if "is already in progress" not in str(error):
                raise

    def _take(self, text: str) -> None:
        record = client_record(text)
        if record is not None:
            self._sink(record)
