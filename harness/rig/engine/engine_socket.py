"""The socket of the engine in use, on the engine's own host: what nodes, proxies and the reaper mount.

This side may reach the engine by another way than the nodes: another socket, a forwarded one, a network. The mounted
socket must lead to the very same engine, or a node would act on the containers of another one. Where that is not plain,
a container asks through the candidate for itself before anything is made: only its own engine knows it. The ID of an
engine alone proves less, because two engines of one host may share it; nodes and reaper compare it all the same.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import docker
from docker.types import Mount

from harness.errors import EngineError, NoSuchContainer, UsageError
from harness.model import labels
from harness.rig.engine.connection import DEFAULT_SOCKET, engine_call, host_in_use
from harness.rig.engine.ownership import remove_container

__all__ = ["EngineSocket", "socket_on_engine"]

TRIAL_LIMIT_S = 20
"""A container that runs Python for one question took 0.6 s."""
INSIDE = "/var/run/docker.sock"

_QUESTION = f"""
import docker, socket
client = docker.APIClient(base_url="unix://{INSIDE}", timeout=5)
try:
    print(client.inspect_container(socket.gethostname())["Id"])
except docker.errors.NotFound:
    print(client.info()["ID"])
"""
"""Prints the ID of the container that asks; where the engine does not know it, that of the engine."""

_proven: dict[tuple[str, str], str] = {}
"""The sockets that a trial of this process has proven, by the way to the engine and its ID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSocket:
    """A path on the engine's host, and the ID of the engine that it must lead to."""

    path: str
    engine_id: str


def socket_on_engine(client: docker.DockerClient, *, rig: str, image: str) -> EngineSocket:
    """The socket to mount into containers of `rig`. `image` is that of the nodes, for a trial where one is needed.

    Raises UsageError when no socket on the engine's host is known to lead to it, EngineError.
    """
    with engine_call("ask the engine about itself"):
        info = client.info()
    engine_id = str(info.get("ID") or "")
    host = host_in_use()
    path = host.removeprefix("unix://") if host.startswith("unix://") else ""
    if path and any("rootless" in option for option in info.get("SecurityOptions") or []):
        return EngineSocket(path=path, engine_id=engine_id)  # its own user's, the same on both sides
    if not host or (path and os.path.realpath(path) == os.path.realpath(DEFAULT_SOCKET)):
        return EngineSocket(path=str(DEFAULT_SOCKET), engine_id=engine_id)
    known = _proven.get((host, engine_id))
    if known is not None:
        return EngineSocket(path=known, engine_id=engine_id)
    refusals = []
    # An engine in a virtual machine has the usual socket there, under any name of the socket on this side.
    for candidate in dict.fromkeys([*([path] if path else []), str(DEFAULT_SOCKET)]):
        refusal = _refusal(client, candidate, rig=rig, image=image)
        if not refusal:
            _proven[host, engine_id] = candidate
            return EngineSocket(path=candidate, engine_id=engine_id)
        refusals.append(f"{candidate}: {refusal}")
    raise UsageError(
        f"cannot give nodes the socket of the engine at {host}: on its VM, {'; '.join(refusals)}. "
        f"Try Blackstart on that VM, with DOCKER_HOST=unix://PATH of that engine's own socket"
    )


def _refusal(client: docker.DockerClient, path: str, *, rig: str, image: str) -> str:
    """Why the socket at `path` does not lead to the engine; empty when it does."""
    try:
        with _trial(client, path, rig=rig, image=image) as container, engine_call("ask through the socket"):
            client.api.start(container)
            ended = client.api.wait(container, timeout=TRIAL_LIMIT_S)["StatusCode"]
            said = client.api.logs(container).decode(errors="replace").strip()
    except EngineError as error:
        return str(error)
    if ended != 0:
        return f"no engine answers there ({said[-200:]!r})"
    return "" if said == container else f"it leads to another engine (its ID is {said[:80]!r})"


@contextlib.contextmanager
def _trial(client: docker.DockerClient, path: str, *, rig: str, image: str) -> Iterator[str]:
    """A container of the rig that asks one question, removed afterwards. Raises EngineError without such a `path`."""
    name = f"{rig}_socket_trial"
    with contextlib.suppress(NoSuchContainer):
        remove_container(client, name, rig=rig, roles=(labels.Role.CLIENT,))
    # A mount, not a bind: that would make a missing path, as a directory.
    host = client.api.create_host_config(
        mounts=[Mount(target=INSIDE, source=path, type="bind")],
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
    )
    with engine_call("make a container that asks through the socket"):
        made = client.api.create_container(
            image,
            name=name,
            entrypoint=["python3", "-I", "-c", _QUESTION],
            user="0:0",
            labels={labels.RIG: rig, labels.ROLE: str(labels.Role.CLIENT)},
            host_config=host,
        )
    try:
        yield str(made["Id"])
    finally:
        remove_container(client, str(made["Id"]), rig=rig, roles=(labels.Role.CLIENT,))
