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
    ("The words: records, states, rules as plain data", "harness/model"),
    ("What all parts share", "harness"),
    ("The replicated cluster database", "harness/database"),
    ("The cluster service and its managers", "harness/cluster_service"),
    ("VMMS: a node's machines", "harness/vmms"),
    ("The resource host", "harness/resource_host"),
    ("The resource drivers", "harness/drivers"),
    ("The processes of a node, and the live side of every port", "harness/live"),
    ("The simulated side of every port, and the seeded world", "harness/simulation"),
    ("The rig: from a topology to running containers", "harness/rig"),
    ("PID 1 and the rest of the node's image", "images/hypervisor"),
    ("The guest's image", "images/guest"),
    ("Experiments: documents, runner, history, verdict", "chaos"),
    ("Faults", "chaos/faults"),
    ("How the faults act on containers", "chaos/docker_effects"),
    ("The reaper: what undoes the faults of a run whose runner is gone", "chaos/reaper"),
    ("Checkers", "chaos/checkers"),
    ("Reports", "chaos/report"),
    ("Searching the simulator", "chaos/search"),
    ("The command line", "chaos/cli"),
    ("Tools of the project itself", "tools"),
    ("Benchmarks", "bench"),
)
FIRST = ("session", "states", "topology", "machine", "host", "records", "changes")
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
