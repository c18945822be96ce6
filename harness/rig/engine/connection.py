"""The container engine as this side of a rig reaches it: the connection, and its errors as ours.

Synchronous, and with a limit on every call. The nodes have their own way to the engine (`harness.live`); nothing here
runs in a node.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import docker
import docker.errors
import requests
from docker.context import ContextAPI

from harness.errors import EngineError, EngineUnanswered, HarnessError, NoSuchContainer
from harness.live.engine_paths import guard_paths

__all__ = [
    "CALL_LIMIT_S",
    "DEFAULT_SOCKET",
    "ENGINE_ID_VARIABLE",
    "connect",
    "engine_call",
    "host_in_use",
    "in_parallel",
]

CALL_LIMIT_S = 60
"""One call of the engine. Killing a node with thirty VMs took a second; a loaded host is much slower."""

DEFAULT_SOCKET = Path("/var/run/docker.sock")
ENGINE_ID_VARIABLE = "BLACKSTART_ENGINE_ID"
"""Set where a process may act on one engine only, such as in the reaper: the ID of that engine."""
_THREADS = 8
"""The engine gains nothing from more than a few calls at once, and eight keep a hung one from holding up the rest."""

T = TypeVar("T")
R = TypeVar("R")


def connect(*, limit_s: int = CALL_LIMIT_S) -> docker.DockerClient:
    """The engine of DOCKER_HOST, else the usual socket, else that of the current `docker context`.

    Raises HarnessError, saying what to install or to start, when none answers, or when it is not the engine that this
    process is bound to. `limit_s` is for each later call.
    """
    environment = dict(os.environ)
    host = environment.get("DOCKER_HOST") or _host_without_environment()
    if host:
        environment["DOCKER_HOST"] = host
    try:
        _try_socket(host or f"unix://{DEFAULT_SOCKET}", limit_s)
        client = docker.from_env(environment=environment, timeout=limit_s)
        guard_paths(client.api)
        client.ping()
        bound_to = environment.get(ENGINE_ID_VARIABLE)
        found = str(client.info().get("ID")) if bound_to else bound_to
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise HarnessError(
            f"no container engine answers at {host or DEFAULT_SOCKET} ({_reason(error)}). Start it, or install one: "
            "on Debian and Ubuntu `sudo tools/engine.sh install`, elsewhere Docker Engine 20.10 or newer"
        ) from error
    if found != bound_to:
        client.close()
        raise HarnessError(
            f"cannot use the engine at {host or DEFAULT_SOCKET}: it is {found}, and this process is bound to the "
            f"engine {bound_to} by {ENGINE_ID_VARIABLE}; try the socket of that one"
        )
    return client


@contextlib.contextmanager
def engine_call(what: str) -> Iterator[None]:
    """The engine's errors inside as ours: `what` is what was tried, such as "kill rig-node1"."""
    try:
        yield
    except docker.errors.NotFound as error:
        raise NoSuchContainer(f"{what}: the engine knows no such object: {error.explanation or error}") from error
    except docker.errors.APIError as error:
        raise EngineError(f"{what}: the engine refused: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise EngineUnanswered(f"{what}: no answer from the engine: {_reason(error)}") from error


def in_parallel(call: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`call` of every item, at most eight at once, results in order. The first error is raised after all have ended."""
    work = list(items)
    if not work:
        return []
    with ThreadPoolExecutor(max_workers=min(_THREADS, len(work)), thread_name_prefix="engine") as pool:
        futures = [pool.submit(call, item) for item in work]
    return [future.result() for future in futures]


def host_in_use() -> str:
    """The way by which `connect` reaches the engine, such as `unix:///run/docker.sock`; empty for the usual socket."""
    return os.environ.get("DOCKER_HOST") or _host_without_environment() or ""


def _try_socket(host: str, limit_s: int) -> None:
    """Raises OSError when nothing listens: the client would say so less clearly, and leave a socket open."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as trial:
            trial.settimeout(limit_s)
            trial.connect(host.removeprefix("unix://"))


def _host_without_environment() -> str | None:
    if DEFAULT_SOCKET.exists():
        return None
    try:
        context = ContextAPI.get_current_context()
    except (docker.errors.DockerException, OSError, ValueError):
        return None
    host = getattr(context, "Host", None)
    return host if isinstance(host, str) and host.startswith("unix://") else None


def _reason(error: BaseException) -> str:
    """The innermost cause: the client wraps "permission denied" in three layers of its own words."""
    innermost = error
    while innermost.__context__ is not None:
        innermost = innermost.__context__
    if isinstance(innermost, PermissionError):
        return "permission denied; may this user speak to it (group docker)?"
    if isinstance(innermost, OSError) and innermost.strerror:
        return innermost.strerror
    return str(error) or type(error).__name__
