#!/usr/bin/env python3
"""Writes docs/faults.md: every fault in one table, from the faults themselves and their docstrings."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from chaos.faults.fault_table import FaultRow, fault_rows  # noqa: E402 - the project is found through this file's place

PAGE = ROOT / "docs" / "faults.md"

HEAD = """\
# Faults

Written by `tools/faults_table.py` from `chaos/faults/`. How an experiment names a fault and its target:
[experiments.md](experiments.md). `blackstart doctor` says which of them this host can carry out.

Every fault has a receipt: its effect is measured from outside after it was injected. One that is not confirmed never
yields a pass. A fault with a cure is in the ledger, with its cure, before it is injected, and open until its cure was
confirmed in the same way: by a step of the experiment, by itself after its `duration`, or at the end of the run.

What is done to a program of a node (cluster service, resource host, VMMS, voter) is done to the process that PID 1
keeps, and its children, by a command of root's in the node: past the engine and past PID 1.

| Fault | Aimed at | What it does | Arguments | Confirmed | Cure |
|---|---|---|---|---|---|
"""


def render() -> str:
    """The page."""
    return HEAD + "".join(_line(row) for row in fault_rows() if not row.heals) + _cures()


def _line(row: FaultRow) -> str:
    arguments = "; ".join(f"`{argument}`" for argument in row.arguments) or "none"
    cure = f"`{row.cure}`" if row.cure else "none"
    return f"| `{row.name}` | {row.target} | {row.does} | {arguments} | {row.receipt} | {cure} |\n"


def _cures() -> str:
    lines = ["\n## Cures\n", "\n", "| Cure | Aimed at | What it does | Arguments | Confirmed | Heals |\n"]
    lines.append("|---|---|---|---|---|---|\n")
    for row in fault_rows():
        if row.heals:
            heals = ", ".join(f"`{name}`" for name in row.heals)
            arguments = "; ".join(f"`{argument}`" for argument in row.arguments) or "none"
            lines.append(f"| `{row.name}` | {row.target} | {row.does} | {arguments} | {row.receipt} | {heals} |\n")
    return "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(render())
