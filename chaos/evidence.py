"""Evidence: the guests' journals off the shared volume, and the logs of everything, before the clean-up.

Files are read through the engine's archive call, which works for a container that is off or hung and runs nothing
inside it. What cannot be had is said in the file's place: evidence must never fail because a part of it is missing.
"""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import docker

from chaos.guest_journal import read_guest_journal
from chaos.history import EngineEvent, GuestJournal, to_plain
from harness.errors import BlackstartError, EngineError, HarnessError, NoSuchContainer
from harness.model import labels
from harness.rig.container_file import read_file
from harness.rig.engine import engine_call

__all__ = ["collect_evidence", "read_journals"]

JOURNAL_MAX_BYTES = 256 << 20
"""A guest writes 2 kB a second; that is a day and a half of it."""


def read_journals(
    client: docker.DockerClient,
    *,
    nodes: Iterable[str],
    machines: Iterable[str],
    at_ns: int,
    without: Collection[str] = (),
) -> list[GuestJournal]:
    """The journal of each machine, through whichever of the `nodes` (containers) can be read. Those `without` may lack
    one; if they have one, it counts.
    """
    journals = []
    for machine in machines:
        try:
            text = _journal(client, nodes, machine)
        except BlackstartError as error:
            if machine in without and isinstance(error, NoSuchContainer):
                journals.append(GuestJournal(at_ns=at_ns, machine=machine, kept=False))
            else:
                journals.append(GuestJournal(at_ns=at_ns, machine=machine, error=str(error)))
        else:
            journals.append(read_guest_journal(text, machine=machine, at_ns=at_ns))
    return journals


def collect_evidence(
    client: docker.DockerClient, *, rig: str, directory: Path, events: Iterable[EngineEvent], journals: Iterable[str]
) -> None:
    """Write logs and state of every container of the rig, the engine's events, and the `journals` of those machines."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "engine-events.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(to_plain(event)) + "\n" for event in events)
        with engine_call(f"list the containers of rig {rig}"):
            found = client.api.containers(all=True, filters={"label": f"{labels.RIG}={rig}"})
        nodes = [str(entry["Id"]) for entry in found if entry["Labels"].get(labels.ROLE) == labels.Role.NODE]
        states = [_write_container(client, entry, directory) for entry in found]
        (directory / "containers.json").write_text(json.dumps(states, indent=2) + "\n", encoding="utf-8")
        for machine in journals:
            text = _or_reason(lambda machine=machine: _journal(client, nodes, machine))
            (directory / f"{machine}.journal.jsonl").write_text(text, encoding="utf-8")
    except OSError as error:
        raise HarnessError(f"the evidence cannot be written to {directory}: {error}") from error


def _write_container(client: docker.DockerClient, entry: Any, directory: Path) -> Any:
    """The container's log into a file; its state as the engine has it is the answer."""
    container = str(entry["Id"])
    name = str(entry["Names"][0]).lstrip("/") if entry.get("Names") else container[:12]

    def log() -> str:
        with engine_call(f"read the log of {name}"):
            data: bytes = client.api.logs(container, timestamps=True)
        return data.decode(errors="replace")

    (directory / f"{name}.log").write_text(_or_reason(log), encoding="utf-8")
    try:
        with engine_call(f"inspect {name}"):
            inspected = client.api.inspect_container(container)
    except EngineError as error:
        return {"Name": name, "error": str(error)}
    wanted = ("Id", "Name", "State", "RestartCount", "Image")
    return {**{key: inspected.get(key) for key in wanted}, "Labels": inspected["Config"]["Labels"]}


def _journal(client: docker.DockerClient, nodes: Iterable[str], machine: str) -> str:
    return read_file(client, nodes, f"/csv/{machine}/disk/journal.jsonl", limit_bytes=JOURNAL_MAX_BYTES)


def _or_reason(read: Any) -> str:
    try:
        return str(read())
    except BlackstartError as error:
        return f"not available: {error}\n"
