"""Freezing, thawing and resetting a node with real containers.

The engine freezes containers one by one, so the node comes first: from then on nothing in it starts another VM.
What the engine still brings up of an earlier order is found by looking again.
"""

import contextlib
import time
from typing import Any

import docker

from harness.errors import EngineError
from harness.model import labels
from harness.model.object_names import node_container
from harness.rig.engine.connection import engine_call, in_parallel
from harness.rig.engine.ownership import own_container, pause_container

__all__ = ["hang_node", "reset_node", "thaw_node"]

ROUNDS = 20
"""Looks until nothing is left to freeze or thaw. Two are the rule; a start that was under way takes one more."""


def hang_node(client: docker.DockerClient, rig: str, node: str) -> int:
    """Freezes the node, then its VMs, all at once. Raises EngineError when the node cannot be frozen."""
    at_ns = time.time_ns()
    pause_container(client, node_container(rig, node), rig=rig, roles=(labels.Role.NODE,))

    def freeze(vm: str) -> None:
        pause_container(client, vm, rig=rig, roles=(labels.Role.VM,))

    _each(client, rig, node, state="running", roles=(labels.Role.VM,), call=freeze)
    return at_ns


def thaw_node(client: docker.DockerClient, rig: str, node: str) -> int:
    """Thaws whatever of the node is frozen, all at once."""
    at_ns = time.time_ns()
    roles = (labels.Role.NODE, labels.Role.VM)
    _each(client, rig, node, state="paused", roles=roles, call=client.api.unpause)
    return at_ns


def reset_node(client: docker.DockerClient, rig: str, node: str) -> int:
    """Has the node's PID 1 end itself, as root of the node; its answer would die with it, so none is awaited."""
    container = str(own_container(client, node_container(rig, node), rig=rig, roles=(labels.Role.NODE,))["Id"])
    life = _life(client, container)
    at_ns = time.time_ns()
    try:
        with engine_call(f"reset {node_container(rig, node)} from inside"):
            order = client.api.exec_create(container, ["sh", "-c", "kill -TERM 1"], user="0")["Id"]
            client.api.exec_start(order, detach=True)
    except EngineError:
        # The engine's own part of the command may die with the node. What ended that life is for the receipt to say.
        if _life(client, container) == life:
            raise
    return at_ns


def _life(client: docker.DockerClient, container: str) -> str:
    """When the container's present life began, empty when it does not run."""
    with engine_call(f"inspect {container[:12]}"):
        state = client.api.inspect_container(container)["State"]
    return str(state["StartedAt"]) if state["Running"] and not state["Restarting"] else ""


def _each(
    client: docker.DockerClient, rig: str, node: str, *, state: str, roles: tuple[labels.Role, ...], call: Any
) -> None:
    """`call` of each container of the node in that state, until there is none."""
    saw = ""
    for _ in range(ROUNDS):
        with engine_call(f"list the containers of {node}"):
            filters = {"label": [f"{labels.RIG}={rig}", f"{labels.NODE}={node}"], "status": [state]}
            listed = client.api.containers(all=True, filters=filters)
        found = [entry for entry in listed if entry["Labels"].get(labels.ROLE) in roles]
        if not found:
            return
        saw = ", ".join(entry["Names"][0].lstrip("/") for entry in found)

        def attempt(entry: Any) -> None:
            # Refused when it died, or was frozen or thawed by somebody else, a moment ago: the next look decides.
            with contextlib.suppress(EngineError), engine_call(f"change {entry['Id'][:12]}"):
                call(entry["Id"])

        in_parallel(attempt, found)
    raise EngineError(f"containers of {node} are still {state} after {ROUNDS} rounds: {saw}")
