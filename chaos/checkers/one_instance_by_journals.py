"""At most one running instance of a machine, ever, by the journals that the guests keep on their disks.

The end-to-end proof: nobody but the machine itself writes there, so it holds whatever engine and cluster believe. Two
boots whose lines interleave ran at one time; so did two boots whose boot-time ranges overlap. Boot-time clocks of
different engines cannot be compared, the order of lines in one file always can. A machine that runs a program of its
own keeps no journal: then the engine's events alone speak for it, and that is said.
"""

from itertools import combinations

from chaos.history import GuestJournal, GuestRun, History
from chaos.instances import read_instances
from chaos.verdict import Ruling, Verdict

__all__ = ["NAME", "check"]

NAME = "at-most-one-instance, guests' journals"


def check(history: History) -> Verdict:
    """BROKEN when two boots of a machine interleave or overlap; INCONCLUSIVE when one that ran has none to read."""
    journals = {journal.machine: journal for journal in history.of(GuestJournal)}
    ran = {instance.machine for instance in read_instances(history).all}
    broken = [reason for journal in journals.values() for reason in _interleaved(journal)]
    broken += [reason for journal in journals.values() for reason in _overlapping(journal)]
    if broken:
        return Verdict(checker=NAME, ruling=Ruling.BROKEN, reasons=tuple(broken))
    if not ran and not any(journal.lines for journal in journals.values()):
        return Verdict(checker=NAME, ruling=Ruling.NOT_APPLICABLE, notes=("no machine ran",))
    silent = sorted(machine for machine in ran if machine in journals and not journals[machine].kept)
    without = (f"no journal is kept by {', '.join(silent)}: the engine's events alone speak for it",) if silent else ()
    if ran and ran == set(silent):
        return Verdict(checker=NAME, ruling=Ruling.NOT_APPLICABLE, notes=without)
    unread = [_unread(machine, journals.get(machine)) for machine in sorted(ran.difference(silent))]
    doubts = tuple(reason for reason in unread if reason)
    if doubts:
        return Verdict(checker=NAME, ruling=Ruling.INCONCLUSIVE, reasons=doubts)
    lines = sum(journal.lines for journal in journals.values())
    torn = sum(journal.unreadable_lines for journal in journals.values())
    kept = sum(journal.kept for journal in journals.values())
    note = f"{lines} lines of {kept} machines" + (f", {torn} torn" if torn else "")
    return Verdict(checker=NAME, ruling=Ruling.HOLDS, notes=(note, *without))


def _interleaved(journal: GuestJournal) -> list[str]:
    """A boot that writes again after another boot has written ran at the same time as that one."""
    reasons: list[str] = []
    last_of: dict[str, int] = {}
    for index, run in enumerate(journal.runs):
        earlier = last_of.get(run.boot)
        if earlier is not None:
            between = journal.runs[earlier + 1]
            reasons.append(
                f"{journal.machine} ran twice: boot {run.boot} on {_place(run)} wrote line {run.first_line} "
                f"after boot {between.boot} on {_place(between)} had written line {between.first_line}"
            )
        last_of[run.boot] = index
    return reasons


def _overlapping(journal: GuestJournal) -> list[str]:
    ranges: dict[str, tuple[int, int, GuestRun]] = {}
    for run in journal.runs:
        if run.first_boottime_ns is None or run.last_boottime_ns is None:
            continue
        first, last, _ = ranges.get(run.boot, (run.first_boottime_ns, run.last_boottime_ns, run))
        ranges[run.boot] = (min(first, run.first_boottime_ns), max(last, run.last_boottime_ns), run)
    reasons = []
    for (first_a, last_a, run_a), (first_b, last_b, run_b) in combinations(ranges.values(), 2):
        overlap_ns = min(last_a, last_b) - max(first_a, first_b)
        if overlap_ns > 0:
            reasons.append(
                f"{journal.machine} ran twice: boot {run_a.boot} on {_place(run_a)} and "
                f"boot {run_b.boot} on {_place(run_b)} wrote during the same {overlap_ns / 1e9:.3f} s"
            )
    return reasons


def _unread(machine: str, journal: GuestJournal | None) -> str:
    if journal is None:
        return f"the journal of {machine}, which ran, was not read"
    if journal.error:
        return f"the journal of {machine} could not be read: {journal.error}"
    if not journal.lines:
        return f"the journal of {machine}, which ran, holds no whole line"
    return ""


def _place(run: GuestRun) -> str:
    return run.node or "an unknown node"
