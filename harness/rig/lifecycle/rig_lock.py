"""The lock of a rig: a container of a fixed name, which the engine gives to one of two that ask for it.

`up` holds an idle container while it makes a rig; a run holds its reaper, a running one, from before the rig's first
object to after its last. The container's labels name the holder and its start. An idle lock whose holder is
known to have ended is taken over; a reaper never is, because it knows faults that are still to be healed.
"""

import contextlib
import json
import os
import platform
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
import docker.errors

from harness.errors import EngineError, NoSuchContainer, UsageError
from harness.model import labels
from harness.model.name import check_rig_name
from harness.rig.engine.connection import engine_call
from harness.rig.engine.ownership import remove_container

__all__ = [
    "GUARDS",
    "Holder",
    "RigHeld",
    "claim_rig",
    "claimed_rig",
    "holder_of",
    "lock_name",
    "look_at_lock",
    "release_rig",
]

GUARDS = frozenset({labels.Role.LOCK, labels.Role.REAPER})
"""The roles of containers that guard a rig and are no part of it."""
HOLDER_LABEL = "io.blackstart.holder"
ATTEMPTS = 20
"""Of two that take over the same stale lock one finds it gone, and tries again."""
_CONFLICT = 409
_IDLE: Mapping[str, Any] = {"entrypoint": ["true"], "network_disabled": True}
"""An idle lock is never started; started by mistake it ends at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds a lock. `since_ns` is Unix time; `host` and `birth` tell its process from others that had
    or will have the same number.
    """

    command: str
    process: int
    host: str
    birth: str
    since_ns: int

    @classmethod
    def here(cls, command: str) -> "Holder":
        """This process, which runs `command`, such as `blackstart up`."""
        process = os.getpid()
        return cls(
            command=command, process=process, host=_this_host(), birth=_birth(process), since_ns=time.time_ns()
        )

    def is_alive(self) -> bool | None:
        """Whether the process still runs; None when that cannot be known from here: it runs on another host."""
        if self.host != _this_host() or not self.birth:
            return None
        return _birth(self.process) == self.birth

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since_ns / 1e9, UTC).isoformat(sep=" ", timespec="seconds")
        ended = ", which has ended" if self.is_alive() is False else ""
        host = self.host.partition("/")[0]
        return f"`{self.command}` (process {self.process} on {host}, since {since}{ended})"


class RigHeld(UsageError):
    """Another process holds the rig. `lock` is the engine's description of the container that is its lock."""

    def __init__(self, message: str, *, lock: dict[str, Any]) -> None:
        super().__init__(message)
        self.lock = lock


def lock_name(rig: str) -> str:
    """The name of the container that is the rig's lock. Raises UsageError for an invalid rig name."""
    check_rig_name(rig)
    return f"{rig}-lock"


def claim_rig(
    client: docker.DockerClient,
    rig: str,
    *,
    holder: Holder,
    image: str,
    role: labels.Role = labels.Role.LOCK,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Takes the lock of a rig; the answer is the id of its container, which was created and not started.

    `options` are further arguments of the Docker SDK's `create_container`, for a lock that runs. Raises RigHeld, naming
    the holder; UsageError when a container that is no lock has its name; EngineError.
    """
    for _ in range(ATTEMPTS):
        try:
            with engine_call(f"take the lock of rig {rig}"):
                named = {labels.RIG: rig, labels.ROLE: str(role), HOLDER_LABEL: json.dumps(asdict(holder))}
                made = client.api.create_container(image, name=lock_name(rig), labels=named, **(options or _IDLE))
            return str(made["Id"])
        except EngineError as error:
            cause = error.__cause__
            if not isinstance(cause, docker.errors.APIError) or cause.status_code != _CONFLICT:
                raise
        found = look_at_lock(client, rig)
        if found is not None:
            _take_over_or_refuse(client, rig, found)
    raise EngineError(f"take the lock of rig {rig}: it was given and taken away again {ATTEMPTS} times")


@contextlib.contextmanager
def claimed_rig(client: docker.DockerClient, rig: str, *, holder: Holder, image: str) -> Iterator[None]:
    """Holds an idle lock of a rig inside. Raises as `claim_rig`."""
    lock = claim_rig(client, rig, holder=holder, image=image)
    try:
        yield
    finally:
        release_rig(client, rig, lock)


def look_at_lock(client: docker.DockerClient, rig: str) -> dict[str, Any] | None:
    """The engine's description of the rig's lock; None when no process holds it.

    Raises UsageError when a container that is no lock has its name, EngineError.
    """
    try:
        with engine_call(f"look at the lock of rig {rig}"):
            found: dict[str, Any] = client.api.inspect_container(lock_name(rig))
    except NoSuchContainer:
        return None
    named = found["Config"]["Labels"] or {}
    if named.get(labels.RIG) != rig or named.get(labels.ROLE) not in GUARDS:
        raise UsageError(
            f"the container {lock_name(rig)} is not Blackstart's, and its name is that of the lock of rig {rig}: "
            "take another name for the rig, or rename that container"
        )
    return found


def holder_of(lock: dict[str, Any]) -> Holder | None:
    """The holder that the labels of a lock name; None when they cannot be read."""
    try:
        told = json.loads(lock["Config"]["Labels"][HOLDER_LABEL])
        return Holder(
            command=str(told["command"]),
            process=int(told["process"]),
            host=str(told["host"]),
            birth=str(told["birth"]),
            since_ns=int(told["since_ns"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def release_rig(client: docker.DockerClient, rig: str, lock: str) -> None:
    """Gives a lock back that `claim_rig` returned. Raises EngineError."""
    with contextlib.suppress(NoSuchContainer):
        remove_container(client, lock, rig=rig, roles=GUARDS)


def _take_over_or_refuse(client: docker.DockerClient, rig: str, found: dict[str, Any]) -> None:
    holder = holder_of(found)
    never_ran = found["State"]["Status"] == "created"
    if holder is not None and holder.is_alive() is False and never_ran:
        release_rig(client, rig, str(found["Id"]))
        return
    raise RigHeld(f"rig {rig} is in use by {holder or 'a process that its lock does not name'}", lock=found)


def _this_host() -> str:
    """This host, this boot of it, and this space of process numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, space = "", ""
    return f"{socket.gethostname() or platform.node()}/{boot}/{space}"


def _birth(process: int) -> str:
    """When a process of this host was born, in clock ticks since the boot; empty when it is not there or has ended,
    and on systems without /proc.
    """
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]
