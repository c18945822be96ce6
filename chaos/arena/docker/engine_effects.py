"""Stalling the engine of one node: the container between its VMMS and the engine freezes, and calls hang in it.

Frozen it still takes connections and bytes, as a hung engine does. Thawed it passes them on, late; killed and started
it has forgotten them.
"""

import json
import time
from pathlib import Path
from typing import Any

import docker

from chaos.arena.docker.in_node import engine_ping
from chaos.arena.port import EngineSeen
from harness.errors import EngineError, NoSuchContainer, UsageError, WaitTimeout
from harness.model import labels
from harness.model.object_names import engine_proxy_container, node_container
from harness.rig.engine.connection import engine_call
from harness.rig.engine.exec import run_inside
from harness.rig.engine.ownership import kill_container, pause_container
from harness.rig.lifecycle.compose_file import PROXY_SOCKET

__all__ = ["look_at_engine", "resume_engine", "stall_engine"]

PROBE_LIMIT_S = 10.0
"""Starting Python in a node took 0.1 s, and the question waits for one second."""
VMMS_USER = "902:902"
"""The question is asked as the process that is concerned asks: nobody else of the node may."""


def stall_engine(client: docker.DockerClient, rig: str, node: str) -> int:
    """From now on the engine does not answer in that node."""
    at_ns = time.time_ns()
    pause_container(client, _proxy(client, rig, node)["Id"], rig=rig, roles=(labels.Role.ENGINE_PROXY,))
    return at_ns


def resume_engine(client: docker.DockerClient, rig: str, node: str, *, drop: bool) -> int:
    """The engine answers again; `drop`: what was asked meanwhile is forgotten."""
    proxy = _proxy(client, rig, node)["Id"]
    at_ns = time.time_ns()
    if drop:
        kill_container(client, proxy, rig=rig, roles=(labels.Role.ENGINE_PROXY,))
    with engine_call(f"resume the engine of {node}"):
        if drop:
            client.api.wait(proxy)
            client.api.start(proxy)
        else:
            client.api.unpause(proxy)
    return at_ns


def look_at_engine(client: docker.DockerClient, rig: str, node: str) -> EngineSeen:
    """What a call from inside of the node meets."""
    state = _proxy(client, rig, node)["State"]
    source = Path(engine_ping.__file__).read_text(encoding="utf-8")
    answers: bool | None
    try:
        command = ["python3", "-I", "-c", source, PROXY_SOCKET]
        finished = run_inside(
            client, node_container(rig, node), command, user=VMMS_USER, limit_s=PROBE_LIMIT_S
        )
        answers = bool(json.loads(finished.stdout)["answers"])
    except (EngineError, WaitTimeout, ValueError, KeyError):
        answers = None  # the node is off, frozen, or dies just now
    return EngineSeen(stalled=bool(state["Paused"]), answers=answers)


def _proxy(client: docker.DockerClient, rig: str, node: str) -> dict[str, Any]:
    name = engine_proxy_container(rig, node)
    try:
        with engine_call(f"inspect {name}"):
            found: dict[str, Any] = client.api.inspect_container(name)
    except NoSuchContainer as error:
        raise UsageError(f"there is no {name}: the rig was made without the setting engine-proxy: true") from error
    return found
