"""Whether this host has the memory for a rig in the simulator."""

from pathlib import Path

from harness.model.topology import Topology
from harness.simulation.world.memory_footprint import bytes_needed

__all__ = ["free_memory", "memory_shortfall"]

MEMINFO = Path("/proc/meminfo")
LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""What a container may use, and uses: version 2 and version 1 of the kernel's control groups."""


def memory_shortfall(topology: Topology, *, worlds: int = 1, free_bytes: int | None = None) -> str:
    """Why so many worlds of that rig at a time do not fit into memory, as a sentence; empty when they do, and when
    nobody knows. `free_bytes` is for tests.
    """
    free = free_memory() if free_bytes is None else free_bytes
    needed = worlds * bytes_needed(topology)
    if free is None or needed <= free:
        return ""
    resources = sum(len(group.resources) for group in topology.groups)
    at_a_time = f", {worlds} at a time" if worlds > 1 else ""
    return (
        f"{len(topology.nodes)} nodes and {resources} resources{at_a_time} take about {needed / 2**20:,.0f} MiB in the "
        f"simulator, and {free / 2**20:,.0f} MiB are free: expected fewer resources or nodes, or a VM with more"
    )


def free_memory() -> int | None:
    """Bytes that a new process can have; None where the system does not tell."""
    told = [_available(), *(_left(limit, used) for limit, used in LIMITS)]
    return min((free for free in told if free is not None), default=None)


def _available() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)


def _left(limit: Path, used: Path) -> int | None:
    try:
        most, now = limit.read_text().strip(), used.read_text().strip()
    except OSError:
        return None
    return int(most) - int(now) if most.isdigit() and now.isdigit() else None
