"""Faults on VMs and on a node's processes with real containers: through the engine, or by a command in the node.

Never through anything that the fault may have struck. A command in a frozen node is refused by the engine, and one
whose node dies breaks off: both are errors that say so.
"""

import json
import signal as signals
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import docker

from chaos.arena.docker.in_node import processes
from chaos.arena.process_effects import (
    DiskSeen,
    FillVoterDisk,
    FreeVoterDisk,
    Freezing,
    HangVm,
    KillVm,
    NodeInside,
    NodeProgram,
    ProcessEffect,
    ProgramSeen,
    ProgramSignal,
    SignalProgram,
    StartVm,
    StopVm,
    ThawVm,
    WipeVoter,
)
from harness.errors import HarnessError
from harness.model import labels
from harness.model.object_names import node_container
from harness.rig.engine.connection import engine_call
from harness.rig.engine.exec import run_inside
from harness.rig.engine.ownership import kill_container, pause_container, stop_container

__all__ = ["carry_out", "look_inside"]

PROBE_LIMIT_S = 10.0
"""Starting Python in a node took 0.1 s; a node that hangs answers never."""
VMS = (labels.Role.VM,)
STOP_GRACE_S = 5
"""A guest ends within milliseconds of its TERM; one that ignores it is killed after that, which is a stop as well."""

_SIGNALS = {
    ProgramSignal.KILL: signals.SIGKILL,
    ProgramSignal.STOP: signals.SIGSTOP,
    ProgramSignal.CONTINUE: signals.SIGCONT,
}


def carry_out(client: docker.DockerClient, rig: str, effect: ProcessEffect) -> int:
    """Do it. Answers the earliest time at which it acted, in Unix nanoseconds. Raises EngineError, HarnessError."""
    match effect:
        case KillVm(container=container):
            return _timed(lambda: kill_container(client, container, rig=rig, roles=VMS))
        case StopVm(container=container):
            return _timed(lambda: stop_container(client, container, rig=rig, grace_s=STOP_GRACE_S, roles=VMS))
        case StartVm(container=container):
            return _timed(lambda: client.api.start(container), what=f"start {effect.vm}")
        case HangVm(container=container, how=Freezing.PAUSE):
            return _timed(lambda: pause_container(client, container, rig=rig, roles=VMS))
        case ThawVm(container=container, how=Freezing.PAUSE):
            return _timed(lambda: client.api.unpause(container), what=f"unpause {effect.vm}")
        case HangVm(container=container) | ThawVm(container=container):
            number = signals.SIGSTOP if isinstance(effect, HangVm) else signals.SIGCONT
            return _probe(client, rig, effect.node, "vm", {"container": container, "signal": int(number)})
        case SignalProgram():
            arguments = {"pid": effect.pid, "started": effect.started, "signal": int(_SIGNALS[effect.signal])}
            return _probe(client, rig, effect.node, "program", arguments)
        case WipeVoter():
            return _probe(client, rig, effect.node, "wipe", {"pid": effect.pid, "started": effect.started})
        case FillVoterDisk():
            return _probe(client, rig, effect.node, "fill", {})
        case FreeVoterDisk():
            return _probe(client, rig, effect.node, "free", {})


def look_inside(
    client: docker.DockerClient, rig: str, node: str, *, ask: Collection[NodeProgram] = ()
) -> NodeInside:
    """The node's processes now; `ask` are programs to be asked whether they answer, half a second each at most.

    Raises EngineError for a node that is off, frozen, or dies meanwhile.
    """
    arguments = {"ask": [program.value for program in ask]}
    told = _run(client, rig, node, "look", arguments)
    by_user = {program.user: program for program in NodeProgram}
    return NodeInside(
        programs={by_user[int(user)]: ProgramSeen(**seen) for user, seen in told["programs"].items()},
        answers={NodeProgram(name): bool(answers) for name, answers in told["answers"].items()},
        vms={str(container): str(states) for container, states in told["vms"].items()},
        disk=DiskSeen(**told["disk"]) if told["disk"] is not None else None,
    )


def _timed(call: Callable[[], object], *, what: str = "act on a VM") -> int:
    at_ns = time.time_ns()
    with engine_call(what):
        call()
    return at_ns


def _probe(client: docker.DockerClient, rig: str, node: str, action: str, arguments: Mapping[str, Any]) -> int:
    return int(_run(client, rig, node, action, arguments)["at_ns"])


def _run(client: docker.DockerClient, rig: str, node: str, action: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    source = Path(processes.__file__).read_text(encoding="utf-8")
    container = node_container(rig, node)
    command = ["python3", "-I", "-c", source, action, json.dumps(arguments)]
    shown = f"{action} {json.dumps(arguments)}"
    finished = run_inside(client, container, command, user="0", limit_s=PROBE_LIMIT_S, shown=shown)
    try:
        told: dict[str, Any] = json.loads(finished.stdout)
    except ValueError as error:
        said = (finished.stdout + finished.stderr).strip()[-500:]
        raise HarnessError(f"{action} in {container} was not done; it said: {said!r}") from error
    if "error" in told:
        raise HarnessError(f"{action} in {container} was not done: {told['error']}")
    return told
