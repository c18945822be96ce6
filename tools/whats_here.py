#!/usr/bin/env python3
"""Writes docs/whats-here.md: every module in one line, in reading order, from the first line of its docstring.

    python tools/whats_here.py            write the page
    python tools/whats_here.py --check    end with 1 when the page is not what would be written
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "whats-here.md"

READING_ORDER = (
    ("Records, states and rules as plain data", "harness/model"),
    ("Shared by all parts", "harness"),
    ("The replicated cluster database", "harness/database"),
    ("The cluster service", "harness/cluster_service"),
    ("Cluster service: messages, identifiers, deadlines", "harness/cluster_service/core"),
    ("Cluster service: membership, leases, fencing", "harness/cluster_service/membership"),
    ("Cluster service: placement of groups", "harness/cluster_service/placement"),
    ("Cluster service: resources of owned groups", "harness/cluster_service/resources"),
    ("Cluster service: administrators' requests", "harness/cluster_service/administration"),
    ("VMMS: the VMs of a node", "harness/vmms"),
    ("The resource host", "harness/resource_host"),
    ("The resource drivers", "harness/drivers"),
    ("The processes of a node, and the live adapter of every port", "harness/live"),
    ("The simulator", "harness/simulation"),
    ("Simulator: virtual time", "harness/simulation/kernel"),
    ("Simulator: the twin of every port", "harness/simulation/twins"),
    ("Simulator: the oracle", "harness/simulation/oracle"),
    ("Simulator: nodes and cluster", "harness/simulation/world"),
    ("Simulator: invariants", "harness/simulation/invariants"),
    ("Simulator: fault schedules", "harness/simulation/faults"),
    ("Rig documents", "harness/document"),
    ("The rig: from a topology to running containers", "harness/rig"),
    ("Rig: calls of the container engine", "harness/rig/engine"),
    ("Rig: images", "harness/rig/images"),
    ("Rig: the running cluster", "harness/rig/cluster"),
    ("Rig: creation to removal", "harness/rig/lifecycle"),
    ("PID 1 and the other programs of the node's image", "images/hypervisor"),
    ("The guest's image", "images/guest"),
    ("Chaos: experiments on a cluster", "chaos"),
    ("Chaos: history, recovery times, verdict", "chaos/history"),
    ("Chaos: output", "chaos/output"),
    ("Chaos: the arena port", "chaos/arena"),
    ("Chaos: faults", "chaos/faults"),
    ("Chaos: experiment documents", "chaos/experiment"),
    ("Chaos: the reaper, runner's side", "chaos/reaper"),
    ("Chaos: the arena of containers", "chaos/arena/docker"),
    ("Chaos: scripts that run inside containers", "chaos/arena/docker/in_node"),
    ("Chaos: the arena of the simulator", "chaos/arena/simulation"),
    ("Chaos: checkers", "chaos/checkers"),
    ("Chaos: reports", "chaos/report"),
    ("Chaos: which experiment runs where", "chaos/compatibility"),
    ("Chaos: runs", "chaos/run"),
    ("Chaos: repair after a dead run", "chaos/repair"),
    ("Chaos: search in the simulator", "chaos/search"),
    ("The command line", "chaos/cli"),
    ("The project's own tools", "tools"),
    ("Benchmarks", "bench"),
    ("Fuzzing", "fuzz"),
)
FIRST = ("session", "states", "topology", "vm", "host", "records", "changes")
"""Modules to read before their neighbours, wherever they occur."""


def main(arguments: list[str]) -> int:
    """Write or check the page. Returns the exit code."""
    page = render()
    if "--check" not in arguments:
        PAGE.write_text(page)
        return 0
    if PAGE.exists() and PAGE.read_text() == page:
        return 0
    print(f"{PAGE.relative_to(ROOT)} is not what tools/whats_here.py writes: run it", file=sys.stderr)
    return 1


def render() -> str:
    """The page."""
    lines = [
        "# What is here",
        "",
        "Every module in one line, in reading order. Written by `tools/whats_here.py` from the modules' docstrings.",
        "",
        "Beside the code: `chaos/experiments/` (the shipped experiments), `compose/` (rendered rigs to start by hand), "
        "`docs/design/` (decisions), `docs/rules.md` (the rules of the cluster), `tests/`.",
    ]
    for title, folder in READING_ORDER:
        modules = sorted((ROOT / folder).glob("*.py"), key=_place)
        if modules:
            lines += ["", f"## {title}", ""]
            lines += [f"- `{module.relative_to(ROOT)}`: {_first_line(module)}" for module in modules]
    return "\n".join(lines) + "\n"


def _place(module: Path) -> tuple[bool, int, str]:
    name = module.stem
    return name != "__init__", FIRST.index(name) if name in FIRST else len(FIRST), name


def _first_line(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text())) or "no docstring"
    return " ".join(docstring.split("\n\n", 1)[0].split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
