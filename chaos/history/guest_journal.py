"""A VM's own journal, as the guest wrote it on its disk: lines to runs of one boot.

Pure text in, record out. The guest writes a line every tenth of a second; the evidence is the order in which boots
follow one another in the file, so neighbouring lines of one boot become one `GuestRun`. Nothing is lost by that: a boot
that comes back later gets a second run.

The guest may be hostile: every line is bounded, nothing in it is believed to have the right type, and text is made
visible before it becomes part of a record. A journal that exceeds a limit becomes a record with an `error`, which
names the limit; its runs up to there are kept.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from chaos.history.records import GuestJournal, GuestRun
from harness.model.topology import Topology
from harness.model.workload import runs_guest

__all__ = ["MAX_LINES", "MAX_RUNS", "read_guest_journal", "vms_without_journal"]

MAX_RUNS = 10_000
"""A VM that boots every second for three hours has so many."""
MAX_LINES = 1_000_000
"""The guest's program keeps at most 370,000."""
MAX_LINE_CHARACTERS = 4096
"""The guest's own lines have some 200; a torn one has another glued to it."""
MAX_NAME_CHARACTERS = 64
MAX_BOOTTIME_NS = 1 << 62
CHECK_INTERVAL_LINES = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    boot: str
    node: str
    boottime_ns: int | None


def vms_without_journal(topology: Topology) -> frozenset[str]:
    """The VMs that run another program than the guest's, which keep no journal."""
    return frozenset(
        resource.name
        for group in topology.groups
        for resource in group.resources
        if resource.type == "virtual-machine" and not runs_guest(resource.properties)
    )


def read_guest_journal(
    text: str, *, vm: str, at_ns: int, check: Callable[[], None] = lambda: None
) -> GuestJournal:
    """Parse the journal in `text`, read at `at_ns`. `check` is called now and then, and may raise to end the work.

    Lines that are no whole record are counted: a crash in the middle of a write leaves one.
    """
    runs: list[GuestRun] = []
    lines = unreadable = 0
    error = ""
    for number, raw in enumerate(_lines(text), start=1):
        if number % CHECK_INTERVAL_LINES == 0:
            check()
        if number > MAX_LINES:
            error = f"it has more than {MAX_LINES} lines"
            break
        if not raw.strip("\0 \r\t"):
            continue
        line = _parse(raw)
        if line is None:
            unreadable += 1
            continue
        if runs and runs[-1].boot == line.boot and runs[-1].node == line.node:
            runs[-1] = _longer(runs[-1], line)
        elif len(runs) >= MAX_RUNS:
            error = f"boots follow one another more than {MAX_RUNS} times in it"
            break
        else:
            runs.append(_run(vm, number, line))
        lines += 1
    return GuestJournal(
        at_ns=at_ns, vm=vm, runs=tuple(runs), lines=lines, unreadable_lines=unreadable, error=error
    )


def _lines(text: str) -> Iterator[str]:
    """One after the other, each cut to a bounded length: a list of all of a hostile file's lines takes gigabytes."""
    begin = 0
    while begin <= len(text):
        end = text.find("\n", begin)
        end = len(text) if end < 0 else end
        yield text[begin : min(end, begin + MAX_LINE_CHARACTERS + 1)]
        begin = end + 1


def _run(vm: str, number: int, line: _Line) -> GuestRun:
    return GuestRun(
        vm=vm,
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
    if len(raw) > MAX_LINE_CHARACTERS:
        return None
    # A torn line has the next boot's first line glued to it; the last object in it is whole.
    found = _object(raw) or _object(raw[raw.rfind("{") :])
    if found is None:
        return None
    boot, node, boottime_ns = found.get("boot"), found.get("node", ""), found.get("boottime")
    if not isinstance(boot, str) or not isinstance(node, str):
        return None
    if boottime_ns is not None and (type(boottime_ns) is not int or not 0 <= boottime_ns <= MAX_BOOTTIME_NS):
        return None
    if len(boot) > MAX_NAME_CHARACTERS or len(node) > MAX_NAME_CHARACTERS:
        return None
    return _Line(boot=_visible(boot), node=_visible(node), boottime_ns=boottime_ns)


def _object(raw: str) -> dict[str, Any] | None:
    try:
        found = json.loads(raw, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError for a key that stands twice: readers would differ about its value."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _visible(text: str) -> str:
    """`text` with an escape for each character that is not for showing, halves of surrogate pairs among them."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
