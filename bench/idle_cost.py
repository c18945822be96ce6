"""What a node costs while nothing happens: its memory and processor time as `docker stats` reckons them."""

import itertools
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import docker

from bench.figure import Figure, Goal, GoalKind, Series
from bench.rigs import say, standing_rig
from harness.errors import HarnessError
from harness.model import labels
from harness.model.object_names import node_container
from harness.rig.images.build import ensure_images, find_project_root
from harness.rig.lifecycle.rig import Rig

__all__ = ["idle_cost"]

SETTLE_S = 60.0
WINDOW_S = 3.0
MIB = 1 << 20
NODES = ("node1", "node2", "node3")

TOPOLOGY = "nodes: 3\nvoters: 3\ngroups:\n" + "".join(
    f"""
  - name: g{number}
    preferred-owners: [{NODES[number % 3]}]
    resources:
      - {{name: ip{number}, type: ip-address}}
      - {{name: vm{number}, type: virtual-machine, depends-on: "[ip{number}]"}}
"""
    for number in range(9)
)

BARE = """
redis-server --port 0 --save '' --appendonly yes --dir /tmp >/dev/null &
for modules in asyncio asyncio asyncio,docker; do
    python3 -I -c "import time, $modules; time.sleep(3600)" &
done
exec python3 -I -c 'import os, select, signal, subprocess, time; time.sleep(3600)'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One reading of a container's counters; `at_s` is the engine's time of it."""

    at_s: float
    memory_bytes: int
    processor_ns: int


def idle_cost(client: docker.DockerClient, rounds: int) -> list[Figure]:
    """So many windows, beginning a minute after the rig is up; each value is the median of the three nodes."""
    with standing_rig(client, TOPOLOGY) as rig:
        boxes = {node: node_container(rig.name, node) for node in NODES}
        boxes["bare"] = _bare_processes(client, rig)
        say(f"waiting {SETTLE_S:g} s, for the cost of a node at rest")
        time.sleep(SETTLE_S)
        samples = [_samples(client, boxes)]
        for _ in range(rounds):
            time.sleep(WINDOW_S)
            samples.append(_samples(client, boxes))
    memory = [{box: one.memory_bytes / MIB for box, one in taken.items()} for taken in samples[1:]]
    percent = [
        {box: _percent(before[box], after[box]) for box in boxes}
        for before, after in itertools.pairwise(samples)
    ]
    where = (
        f"Of the node's container, three VMs on the node, default beats, {SETTLE_S:g} s after the rig is up; the "
        "median of three nodes"
    )
    floor_is = "a container with bare processes: four Pythons that have imported what a node's import and sleep, and "
    return [
        Figure(
            title="memory of an idle node",
            unit="MiB",
            measured=_of_nodes(memory),
            floor=_of_bare(memory),
            goal=Goal(kind=GoalKind.MEDIAN, limit=90.0),
            how=f"{where}. Usage without the page cache that is not in use, as `docker stats` shows it.",
            floor_is=f"{floor_is}a redis-server.",
        ),
        Figure(
            title="processor time of an idle node",
            unit="% of a core",
            measured=_of_nodes(percent),
            floor=_of_bare(percent),
            goal=Goal(kind=GoalKind.MEDIAN, limit=2.0),
            how=f"{where}, over windows of {WINDOW_S:g} s.",
            floor_is=f"{floor_is}a redis-server, all of which do nothing.",
        ),
    ]


def _of_nodes(windows: list[dict[str, float]]) -> Series:
    return Series(values=tuple(statistics.median(window[node] for node in NODES) for window in windows))


def _of_bare(windows: list[dict[str, float]]) -> Series:
    return Series(values=tuple(window["bare"] for window in windows))


def _bare_processes(client: docker.DockerClient, rig: Rig) -> str:
    image = ensure_images(client, project_root=find_project_root(), say=say).hypervisor.tag
    box = client.containers.create(
        image,
        entrypoint=["sh", "-c", BARE],
        network_mode="none",
        cap_drop=["ALL"],
        labels={labels.RIG: rig.name, labels.ROLE: str(labels.Role.CLIENT)},
    )
    box.start()
    return str(box.id)


def _samples(client: docker.DockerClient, boxes: Mapping[str, str]) -> dict[str, Sample]:
    return {name: _sample(name, client.api.stats(box, stream=False, one_shot=True)) for name, box in boxes.items()}


def _sample(name: str, stats: dict[str, Any]) -> Sample:
    memory = stats["memory_stats"]
    if "stats" not in memory:
        raise HarnessError(f"{name} does not run at the moment, so it was not at rest: this host is too busy")
    # The same as the command line's: version 1 of control groups and version 2 name the unused cache differently.
    unused = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
    # Nine digits of a second are more than the parser takes.
    read = datetime.fromisoformat(stats["read"][:26].rstrip("Z") + "+00:00")
    return Sample(
        at_s=read.timestamp(),
        memory_bytes=memory["usage"] - unused,
        processor_ns=stats["cpu_stats"]["cpu_usage"]["total_usage"],
    )


def _percent(before: Sample, after: Sample) -> float:
    return (after.processor_ns - before.processor_ns) / 1e9 / (after.at_s - before.at_s) * 100
