"""Writes docs/scale.md and docs/scale.svg: what it takes to simulate clusters of growing size.

`make scale`: some four minutes. Each cluster boots, then loses the power of one node, and is measured until every
VM runs again; each in a process of its own.
"""

import cProfile
import json
import pstats
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.model.topology import SECOND_US, GroupSpec, NodeSpec, ResourceSpec, Settings, Topology
from harness.simulation.kernel.deferred_gc import collected_later
from harness.simulation.world.world import World

__all__ = ["Measured", "cluster", "count", "measure"]

SIZES = ((4, 500), (8, 1000), (16, 2000), (32, 4000), (64, 8000))
VOTERS = 5
ROUNDS = 5
LIMIT_US = 600 * SECOND_US
STEP_US = SECOND_US // 4
MAX_LINEAR = 2.2
"""Twice as many of both: what counts as twice as much."""
DOCS = Path(__file__).resolve().parents[1] / "docs"

HEAD = """\
# Clusters of growing size in the simulator

A cluster boots, then one node loses its power, until every VM runs again: simulated time, processor time of the
one process that simulates it, and the most memory that it took. Forming the cluster comes before: it takes no simulated
time. One VM a group, five voters, every watcher and the record of events on. Function calls are counted in a run
of their own: no neighbour on the host and no cache changes them. "Each" is for each node and VM. Written by
`make scale` with version {version}; the median of {rounds} rounds.

| Nodes | VMs | Simulated, s | Processor, s | each, ms | Function calls, millions | each | Memory, MiB |
|---|---|---|---|---|---|---|---|
"""

FOOT = """
![processor seconds by nodes and VMs](scale.svg)

The aim is {nodes} nodes and {vms:,} VMs under 2 GiB ({memory}), faster than real time ({time}), at a cost
that grows no faster than nodes and VMs do: twice of both costs {calls_factor:.2f} times as many function calls at
last ({calls_growth}), and {factor:.2f} times as much processor time ({growth}; the median of the rounds; {most} and
less count as twice). In clusters of more than nine nodes a few watch each group, and an engine starts two VMs at a
time ([design/0009-large-clusters.md](design/0009-large-clusters.md)).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One cluster. `simulated_s` from the first power-on until all runs again after the loss of a node."""

    nodes: int
    vms: int
    simulated_s: float
    processor_s: float
    memory_mib: float


def cluster(nodes: int, vms: int) -> Topology:
    """VMs without addresses of their own, one a group."""
    return Topology(
        rig="sim",
        subnet="10.87.0.0/16",
        nodes=tuple(
            NodeSpec(name=f"node{i}", address=f"10.87.{i // 200}.{10 + i % 200}", voter=i <= min(nodes, VOTERS))
            for i in range(1, nodes + 1)
        ),
        groups=tuple(
            GroupSpec(name=f"web{i}", resources=(_vm(i),), failover_threshold=100) for i in range(1, vms + 1)
        ),
        settings=Settings(),
    )


def _vm(number: int) -> ResourceSpec:
    address = f"10.88.{number // 250}.{number % 250 + 1}"
    properties = {"image": "blackstart/guest", "address": address, "user": str(10_000 + number)}
    return ResourceSpec(name=f"vm{number}", type="virtual-machine", properties=properties)


def measure(nodes: int, vms: int) -> Measured:
    """In this process. Raises AssertionError when something broke or did not come back."""
    with collected_later():
        world = World(cluster(nodes, vms), seed=1)
        began_s = time.process_time()
        _boot_and_lose_a_node(world, nodes, vms)
        took_s = time.process_time() - began_s
    return Measured(
        nodes=nodes,
        vms=vms,
        simulated_s=world.clock.now_us / 1e6,
        processor_s=took_s,
        memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def count(nodes: int, vms: int) -> int:
    """How many functions are called for the same, Python's own included."""
    profile = cProfile.Profile()
    with collected_later():
        world = World(cluster(nodes, vms), seed=1)
        profile.runcall(_boot_and_lose_a_node, world, nodes, vms)
    calls: int = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    return calls


def _boot_and_lose_a_node(world: World, nodes: int, vms: int) -> None:
    _until_all_run(world, vms)
    world.engine.hold(world.topology.rig, f"node{nodes}")
    world.engine.power_off_node(f"node{nodes}")
    world.run(STEP_US)
    _until_all_run(world, vms)


def _until_all_run(world: World, vms: int) -> None:
    end_us = world.clock.now_us + LIMIT_US
    while world.instances.vms_running() < vms:
        world.run(STEP_US)
        if world.violations or world.clock.now_us >= end_us:
            raise AssertionError(f"{world.violations or 'not every vm runs'}")


def _plot(found: list[Measured]) -> None:
    """Both axes logarithmic; the dashed line grows with nodes and VMs, from the smallest cluster on."""
    from matplotlib import pyplot

    sizes = [one.nodes + one.vms for one in found]
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    axes.loglog(sizes, [one.processor_s for one in found], "o-", label="processor time")
    axes.loglog(sizes, [one.simulated_s for one in found], "s-", label="simulated time")
    first = found[0]
    linear = [first.processor_s * size / sizes[0] for size in sizes]
    axes.loglog(sizes, linear, "--", label="as nodes and VMs grow")
    axes.set_xlabel("nodes + VMs")
    axes.set_ylabel("seconds")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(DOCS / "scale.svg", metadata={"Date": None})


def _apart(nodes: int, vms: int, *what: str) -> Any:
    """In a process of its own: one that was at work before is slower, and takes more memory."""
    command = [sys.executable, __file__, str(nodes), str(vms), *what]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(run.stdout)


def _rounds() -> list[list[Measured]]:
    """Each round measures every size, one right after the other: a slow hour of the host slows them all."""
    rounds = []
    for _ in range(ROUNDS):
        rounds.append([Measured(**_apart(nodes, vms)) for nodes, vms in SIZES])
        sys.stdout.write(" ".join(f"{one.processor_s:.1f}" for one in rounds[-1]) + "\n")
        sys.stdout.flush()
    return rounds


def _reached(it_is: bool) -> str:
    return "reached" if it_is else "not reached"


def main(arguments: list[str]) -> int:
    """Without arguments everything; with NODES VMS that one, as JSON, and with `count` its function calls."""
    if arguments:
        nodes, vms, *what = arguments
        size = int(nodes), int(vms)
        sys.stdout.write(json.dumps(count(*size) if what == ["count"] else asdict(measure(*size))) + "\n")
        return 0
    calls = [int(_apart(nodes, vms, "count")) for nodes, vms in SIZES]
    rounds = _rounds()
    found = [sorted(runs, key=lambda one: one.processor_s)[ROUNDS // 2] for runs in zip(*rounds, strict=True)]
    page = HEAD.format(version=metadata.version("blackstart"), rounds=ROUNDS)
    for one, called in zip(found, calls, strict=True):
        size = one.nodes + one.vms
        each_ms = 1000 * one.processor_s / size
        page += (
            f"| {one.nodes} | {one.vms:,} | {one.simulated_s:.1f} | {one.processor_s:.1f} | {each_ms:.1f} | "
            f"{called / 1e6:.1f} | {called / size:,.0f} | {one.memory_mib:.0f} |\n"
        )
    last, calls_factor = found[-1], calls[-1] / calls[-2]
    factor = statistics.median(sizes[-1].processor_s / sizes[-2].processor_s for sizes in rounds)
    foot = FOOT.format(
        nodes=last.nodes,
        vms=last.vms,
        memory=_reached(last.memory_mib < 2048),
        time=_reached(last.processor_s < last.simulated_s),
        growth=_reached(factor <= MAX_LINEAR),
        calls_growth=_reached(calls_factor <= MAX_LINEAR),
        calls_factor=calls_factor,
        most=MAX_LINEAR,
        factor=factor,
    )
    (DOCS / "scale.md").write_text(page + foot, encoding="utf-8")
    _plot(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
