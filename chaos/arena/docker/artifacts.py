"""Evidence: the guests' journals off the shared volume, and the logs of everything, before the clean-up.

Files are read through the engine's archive call, which works for a container that is off or hung and runs nothing
inside it. Each VM's evidence is read by itself, with a limit on size and time: a part that is missing, hostile or
slow is named in its own place and hides no other. Text that guests wrote is made visible in every file.
"""

import json
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import docker

from chaos.history.guest_journal import read_guest_journal
from chaos.history.records import EngineEventSeen, GuestJournal, to_plain
from chaos.output.sanitized_text import shown
from harness.errors import BlackstartError, EngineError, HarnessError, NoSuchContainer
from harness.model import labels
from harness.rig.engine.archive_file import read_file
from harness.rig.engine.connection import engine_call

__all__ = ["MAX_JOURNAL_BYTES", "collect_evidence", "read_journals"]

MAX_JOURNAL_BYTES = 32 << 20
"""Of each of its two files; the guest's program keeps them at 24 MiB. Reading and parsing so much took 2 s."""


def read_journals(
    client: docker.DockerClient,
    *,
    nodes: Iterable[str],
    vms: Iterable[str],
    at_ns: int,
    without: Collection[str] = (),
    stopped: Callable[[], bool] = lambda: False,
) -> list[GuestJournal]:
    """The journal of each VM, through whichever of the `nodes` (containers) can be read. Those `without` may lack
    one; if they have one, it counts. `stopped` is asked all the time: once it is true, no further journal is read.
    """
    journals = []
    for vm in vms:
        try:
            journals.append(_guest_journal(client, nodes, vm, at_ns=at_ns, stopped=stopped))
        except BlackstartError as error:
            if vm in without and isinstance(error, NoSuchContainer):
                journals.append(GuestJournal(at_ns=at_ns, vm=vm, kept=False))
            else:
                journals.append(GuestJournal(at_ns=at_ns, vm=vm, error=shown(error)))
        except Exception as error:  # noqa: BLE001 - the root of one guest's evidence: it must not hide another's
            reason = f"{type(error).__name__}: {shown(error)} (a defect of the reader)"
            journals.append(GuestJournal(at_ns=at_ns, vm=vm, error=reason))
    return journals


def _guest_journal(
    client: docker.DockerClient, nodes: Iterable[str], vm: str, *, at_ns: int, stopped: Callable[[], bool]
) -> GuestJournal:
    def check() -> None:
        if stopped():
            raise HarnessError("the run was asked to stop before it was read to its end")

    check()
    text = _journal(client, nodes, vm, check)
    return read_guest_journal(text, vm=vm, at_ns=at_ns, check=check)


def collect_evidence(
    client: docker.DockerClient,
    *,
    rig: str,
    directory: Path,
    events: Iterable[EngineEventSeen],
    journals: Iterable[str],
) -> None:
    """Write logs and state of every container of the rig, the engine's events, and the `journals` of those VMs."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "engine-events.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(to_plain(event)) + "\n" for event in events)
        with engine_call(f"list the containers of rig {rig}"):
            found = client.api.containers(all=True, filters={"label": f"{labels.RIG}={rig}"})
        nodes = [str(entry["Id"]) for entry in found if entry["Labels"].get(labels.ROLE) == labels.Role.NODE]
        states = [_write_container(client, entry, directory) for entry in found]
        (directory / "containers.json").write_text(json.dumps(states, indent=2) + "\n", encoding="utf-8")
        for vm in journals:
            text = _or_reason(partial(_journal, client, nodes, vm, lambda: None))
            (directory / f"{vm}.journal.jsonl").write_text(text, encoding="utf-8")
    except OSError as error:
        raise HarnessError(f"the evidence cannot be written to {directory}: {error}") from error


def _write_container(client: docker.DockerClient, entry: Any, directory: Path) -> Any:
    """The container's log into a file; its state as the engine has it is the answer."""
    container = str(entry["Id"])
    name = str(entry["Names"][0]).lstrip("/") if entry.get("Names") else container[:12]

    def log() -> str:
        with engine_call(f"read the log of {name}"):
            # The engine keeps a bounded log of each container of a rig (`logging` in its Compose file, LOG_OPTIONS).
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


def _journal(client: docker.DockerClient, nodes: Iterable[str], vm: str, check: Callable[[], None]) -> str:
    """Its journal, after the previous one, which the guest's program renames when it has reached its size."""
    place, nodes = f"/csv/{vm}/disk", tuple(nodes)
    text = read_file(client, nodes, f"{place}/journal.jsonl", limit_bytes=MAX_JOURNAL_BYTES, check=check)
    try:
        old = read_file(client, nodes, f"{place}/journal.old.jsonl", limit_bytes=MAX_JOURNAL_BYTES, check=check)
    except NoSuchContainer:
        return text
    return f"{old}\n{text}"


def _or_reason(read: Callable[[], str]) -> str:
    """The text, without characters that would command a terminal."""
    try:
        return shown(read())
    except BlackstartError as error:
        return f"not available: {shown(error)}\n"
