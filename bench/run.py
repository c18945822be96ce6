"""Runs the benchmarks: `python -m bench.run [NAME ...] [--rounds N] [--write]`.

Prints a table; with --write also docs/benchmarks.md and docs/benchmarks.json. A benchmark that fails does not keep the
others from running, but then nothing is written. Whatever ends it, its rigs are removed.
"""

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import docker

from bench.database import database_latency, write_gap
from bench.figure import Figure
from bench.idle_cost import idle_cost
from bench.page import as_json, as_page, as_table
from bench.recovery import node_power_cut, vm_crash
from bench.rig_start import rig_start
from bench.rigs import say
from bench.simulation import schedules
from harness.errors import BlackstartError
from harness.rig.engine.connection import connect
from harness.rig.images.build import ensure_images, find_project_root
from harness.rig.lifecycle.compose_tool import require_compose_tool

__all__ = ["BENCHMARKS", "main"]

BENCHMARKS: dict[str, Callable[[docker.DockerClient, int], list[Figure]]] = {
    "vm-crash": vm_crash,
    "node-power-cut": node_power_cut,
    "database-latency": database_latency,
    "write-gap": write_gap,
    "rig-start": rig_start,
    "idle-cost": idle_cost,
    "schedules": schedules,
}
ROUNDS = 10
MAX_ROUNDS = 50
"""As often a VM may be restarted before it is moved."""
NOTES_MARK = "\n<!-- Below this line `make bench` leaves everything as it is. -->\n"
QUIET_LOAD = 0.5
"""What others take of a processor before a run on it says little about us."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks. Returns 0, also when a goal is not reached: that is a finding; 4 when a benchmark failed."""
    parser = argparse.ArgumentParser(prog="bench.run", description="figures and their floors, measured in turn")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all without one")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each figure, {ROUNDS} by default")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and docs/benchmarks.json")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}, expected of {', '.join(BENCHMARKS)}")
    if not 1 <= options.rounds <= MAX_ROUNDS:
        parser.error(f"--rounds is {options.rounds}, expected 1 to {MAX_ROUNDS}")
    if options.write and options.names:
        parser.error("--write writes the whole page: it goes with all benchmarks")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with contextlib.closing(connect()) as client:
            return _run(client, options.names or list(BENCHMARKS), options.rounds, write=options.write)
    except KeyboardInterrupt:
        say("interrupted: the rigs are removed, nothing is written")
        return 130


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


def _run(client: docker.DockerClient, names: Sequence[str], rounds: int, *, write: bool) -> int:
    root = find_project_root()
    ensure_images(client, project_root=root, say=say)
    facts = _facts(client, root, rounds)
    began = time.monotonic()
    figures: list[Figure] = []
    failed = []
    for name in names:
        say(f"{name}: {rounds} rounds")
        try:
            figures += BENCHMARKS[name](client, rounds)
        except BlackstartError as error:
            failed.append(name)
            say(f"{name} failed: {error}")
    facts["took"] = f"{(time.monotonic() - began) / 60:.1f} minutes"
    print(as_table(figures))
    for figure in figures:
        if figure.phases:
            print(f"{figure.title}: " + ", ".join(f"{name} {value:.2f} s" for name, value in figure.phases.items()))
    if failed:
        say(f"failed: {', '.join(failed)}; nothing is written")
        return 4
    if write:
        _write(root / "docs", figures, facts)
    return 0


def _write(docs: Path, figures: Sequence[Figure], facts: dict[str, str]) -> None:
    page = docs / "benchmarks.md"
    _, mark, notes = page.read_text().partition(NOTES_MARK) if page.exists() else ("", "", "")
    page.write_text(as_page(figures, facts, NOTES_MARK + (notes if mark else "")))
    (docs / "benchmarks.json").write_text(as_json(figures, facts))
    say("written: docs/benchmarks.md, docs/benchmarks.json")


def _facts(client: docker.DockerClient, root: Path, rounds: int) -> dict[str, str]:
    """The command, the VM and the date. The load is what others do: this has only just begun."""
    info = client.info()
    load = os.getloadavg()[0]
    quiet = "" if load < QUIET_LOAD else ": NOT a quiet VM, read the ratios with care"
    tool = require_compose_tool()
    return {
        "command": "`make bench`" if rounds == ROUNDS else f"`make bench ROUNDS={rounds}`",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "version": _version(root),
        "host": f"{info['NCPU']} processors ({_processor()}), {info['MemTotal'] / (1 << 30):.0f} GiB",
        "system": f"{info['OperatingSystem']}, kernel {info['KernelVersion']}, {info['Architecture']}",
        "engine": f"{info['ServerVersion']}, {info['Driver']}, control groups v{info.get('CgroupVersion', '1')}",
        "tools": f"{' '.join(tool.command)} {tool.version()}, Python {platform.python_version()}",
        "rounds": str(rounds),
        "load before": f"{load:.2f}{quiet}",
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _version(root: Path) -> str:
    """The commit; whether what is here differs from it."""
    try:
        asked = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "not a checkout"


if __name__ == "__main__":
    sys.exit(main())
