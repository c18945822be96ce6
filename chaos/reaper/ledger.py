"""The ledger: every fault with its cure and its deadline, durable before the fault is injected.

A run that is killed leaves its ledger behind, and a repair reads from it alone which faults are open and which fault
cures each. The ledger only records: the runner injects and heals. Its lines are JSON objects; the arena keeps them
where they outlive the runner (on containers in the reaper, beside the rig; `docs/design/0014-reaper.md`).
"""

import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import BlackstartError

__all__ = ["Ledger", "OpenFault", "read_open", "runner_is_gone"]

Keep = Callable[[str], Awaitable[None]]
"""Makes one line durable. Raises HarnessError when it cannot: the fault must not be injected then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFault:
    """A fault that was about to be injected and whose healing was not seen.

    `undo` is the fault that cures it, empty when it heals by itself. `deadline_ns` (Unix time) is when the runner meant
    to cure it: once the runner is gone, the reaper cures it from then on.
    """

    number: int
    rig: str
    fault: str
    target: str
    undo: str
    deadline_ns: int

    def __str__(self) -> str:
        return f"{self.fault} on {self.target}"


class Ledger:
    """One run's ledger.

    Invariant: an entry is durable before its fault is in the world, and open until the healing was seen.
    """

    def __init__(self, *, rig: str, keep: Keep, opened: Iterable[OpenFault] = ()) -> None:
        """`opened` are the faults of an earlier run that this one is to heal."""
        self._rig = rig
        self._keep = keep
        self._open = {entry.number: entry for entry in opened}
        self._number = max(self._open, default=0)

    async def intend(self, *, fault: str, target: str, undo: str, at_ns: int, deadline_ns: int) -> OpenFault:
        """Record a fault that is about to be injected. Raises HarnessError: then it must not be injected."""
        self._number += 1
        entry = OpenFault(
            number=self._number, rig=self._rig, fault=fault, target=target, undo=undo, deadline_ns=deadline_ns
        )
        await self._keep(json.dumps({"entry": "intended", "at_ns": at_ns, **asdict(entry)}))
        self._open[entry.number] = entry
        return entry

    async def heal(self, entry: OpenFault, *, at_ns: int, how: str) -> None:
        """Record that a fault is healed, or that it needs no healing."""
        self._open.pop(entry.number, None)
        # The healing has been seen. When its line is lost, a repair only looks at a healthy target once more.
        with contextlib.suppress(BlackstartError):
            await self._keep(json.dumps({"entry": "healed", "at_ns": at_ns, "number": entry.number, "seen": how}))

    def open_faults(self) -> list[OpenFault]:
        """The faults to be undone, newest first."""
        return sorted(self._open.values(), key=lambda entry: -entry.number)


def read_open(text: str) -> list[OpenFault]:
    """The faults that the lines of a ledger leave open, newest first.

    A torn line is an entry whose fault was never injected: the runner injects after the whole line is durable.
    """
    found: dict[int, OpenFault] = {}
    for raw in text.split("\n"):
        line = _parsed(raw)
        if line.get("entry") == "intended":
            entry = _entry(line)
            if entry is not None:
                found[entry.number] = entry
        elif line.get("entry") == "healed":
            number = line.get("number")
            if isinstance(number, int):
                found.pop(number, None)
    return sorted(found.values(), key=lambda entry: -entry.number)


def runner_is_gone(text: str) -> bool:
    """Whether the lines of a ledger say that its runner's lease has lapsed."""
    return any(_parsed(raw).get("entry") == "runner-gone" for raw in text.split("\n"))


def _parsed(raw: str) -> Mapping[str, Any]:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) else {}


def _entry(line: Mapping[str, Any]) -> OpenFault | None:
    try:
        return OpenFault(
            number=int(line["number"]),
            rig=str(line["rig"]),
            fault=str(line["fault"]),
            target=str(line["target"]),
            undo=str(line["undo"]),
            deadline_ns=int(line["deadline_ns"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
