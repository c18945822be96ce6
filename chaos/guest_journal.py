"""A machine's own journal, as the guest wrote it on its disk: lines to runs of one boot.

Pure text in, record out. The guest writes a line every tenth of a second; what proves anything is in which order boots
follow one another in the file, so neighbouring lines of one boot become one `GuestRun`. Nothing is left out by that: a
boot that comes back later gets a second run.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from chaos.history import GuestJournal, GuestRun
from harness.model.topology import Topology
from harness.model.workload import runs_guest

__all__ = ["machines_without_journal", "read_guest_journal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    boot: str
    node: str
    boottime_ns: int | None


def machines_without_journal(topology: Topology) -> frozenset[str]:
    """The machines that run another program than the guest's: a journal is not to be expected of them."""
    return frozenset(
        resource.name
        for group in topology.groups
        for resource in group.resources
        if resource.type == "virtual-machine" and not runs_guest(resource.properties)
    )


def read_guest_journal(text: str, *, machine: str, at_ns: int) -> GuestJournal:
    """The journal in `text`, read at `at_ns`.

    Lines that are no whole record are counted: a crash in the middle of a write leaves one.
    """
    runs: list[GuestRun] = []
    lines = unreadable = 0
    for number, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip("\0 \r\t"):
            continue
        line = _parse(raw)
        if line is None:
            unreadable += 1
            continue
        lines += 1
        if runs and runs[-1].boot == line.boot and runs[-1].node == line.node:
            runs[-1] = _longer(runs[-1], line)
        else:
            runs.append(_run(machine, number, line))
    return GuestJournal(at_ns=at_ns, machine=machine, runs=tuple(runs), lines=lines, unreadable_lines=unreadable)


def _run(machine: str, number: int, line: _Line) -> GuestRun:
    return GuestRun(
        machine=machine,
        boot=line.boot,
        node=line.node,
        first_line=number,
        lines=1,
        first_boottime_ns=line.boottime_ns,
        last_boottime_ns=line.boottime_ns,
    )


def _longer(run: GuestRun, line: _Line) -> GuestRun:
    stamps = (run.first_boottime_ns, run.last_boottime_ns, line.boottime_ns)
    known = [stamp for stamp in stamps if stamp is not None]
    first_ns, last_ns = min(known, default=None), max(known, default=None)
    return replace(run, lines=run.lines + 1, first_boottime_ns=first_ns, last_boottime_ns=last_ns)


def _parse(raw: str) -> _Line | None:
    # A torn line has the next boot's first line glued to it; the last object in it is whole.
    found = _object(raw) or _object(raw[raw.rfind("{") :])
    if found is None or not isinstance(found.get("boot"), str):
        return None
    boottime_ns = found.get("boottime")
    return _Line(
        boot=found["boot"],
        node=str(found.get("node", "")),
        boottime_ns=boottime_ns if isinstance(boottime_ns, int) else None,
    )


def _object(raw: str) -> dict[str, Any] | None:
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
