"""How long `blackstart up` takes until three nodes and six VMs are Online, and where the time goes."""

import subprocess
import sys
import time
from typing import Any

import docker

from bench.figure import Figure, Goal, GoalKind, Series, alternate
from bench.rigs import Events, new_name, say
from harness.document.topology import default_topology
from harness.errors import HarnessError
from harness.model import labels
from harness.rig.engine.own_files import write_rendered
from harness.rig.images.build import ensure_images, find_project_root
from harness.rig.lifecycle.compose_file import render
from harness.rig.lifecycle.compose_tool import require_compose_tool
from harness.rig.lifecycle.teardown import remove_rig

__all__ = ["rig_start"]

NODES = 3
VMS = 6
UP_LIMIT_S = 120.0
COMMAND = (sys.executable, "-c", "import sys; from chaos.cli.main import main; sys.exit(main())")
PHASES = ("node containers made", "nodes started", "cluster formed", "last VM started", "all seen Online")


def rig_start(client: docker.DockerClient, rounds: int) -> list[Figure]:
    """The whole command against the Compose tool alone, in turn."""
    ensure_images(client, project_root=find_project_root(), say=say)
    phases: list[dict[str, float]] = []
    found = alternate(
        rounds,
        {"ours": lambda _: _up(client, phases), "floor": lambda _: _compose_alone(client)},
    )
    figure = Figure(
        title="three nodes and six VMs are up",
        unit="s",
        measured=found["ours"],
        floor=found["floor"],
        goal=Goal(kind=GoalKind.MEDIAN, limit=5.0),
        how="The whole command `blackstart up`, from its start to its end, with the images present: network, volumes, "
        "secrets, three nodes, their cluster formed, every node Up and every group Online.",
        floor_is="the Compose tool alone, `up -d` of the rendered file of such a rig: the three containers started, "
        "and nothing waited for.",
        phases={phase: Series(values=tuple(one[phase] for one in phases)).median for phase in PHASES},
    )
    return [figure]


def _up(client: docker.DockerClient, phases: list[dict[str, float]]) -> float:
    name = new_name()
    marks = {}
    try:
        with Events(client, name) as events:
            began = time.time()
            command = [*COMMAND, "up", "--name", name, "--nodes", str(NODES)]
            with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as up:
                assert up.stderr is not None
                told = []
                for line in up.stderr:
                    told.append(line)
                    if "groups created" in line:
                        marks["cluster formed"] = time.time()
                code = up.wait(timeout=UP_LIMIT_S)
            marks["all seen Online"] = ended = time.time()
            if code != 0:
                raise HarnessError(f"`blackstart up` ended with {code}: {''.join(told)[-1000:]}")
            marks |= _marks(events.drop())
        phases.append(_phases(began, marks))
        return ended - began
    finally:
        remove_rig(client, name, say=say)


def _marks(events: list[dict[str, Any]]) -> dict[str, float]:
    """The last of each kind of event, in Unix seconds."""
    meant = {
        ("create", labels.Role.NODE.value): "node containers made",
        ("start", labels.Role.NODE.value): "nodes started",
        ("start", labels.Role.VM.value): "last VM started",
    }
    marks = {}
    for event in events:
        phase = meant.get((event["Action"], event["Actor"]["Attributes"].get(labels.ROLE, "")))
        if phase is not None:
            marks[phase] = event["timeNano"] / 1e9
    return marks


def _phases(began: float, marks: dict[str, float]) -> dict[str, float]:
    """How long each phase took after the one before. Raises HarnessError when a mark is missing."""
    missing = [phase for phase in PHASES if phase not in marks]
    if missing:
        raise HarnessError(f"the rig came up, but nothing told of: {', '.join(missing)}")
    lasted, last = {}, began
    for phase in PHASES:
        lasted[phase] = marks[phase] - last
        last = marks[phase]
    return lasted


def _compose_alone(client: docker.DockerClient) -> float:
    name = new_name()
    tool = require_compose_tool()
    try:
        file = write_rendered(find_project_root(), name, render(default_topology(rig=name, nodes=NODES)))
        began = time.time()
        tool.run(name, file, "up", "-d")
        return time.time() - began
    finally:
        remove_rig(client, name, say=say)
