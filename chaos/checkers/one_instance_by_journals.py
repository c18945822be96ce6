"""At most one running instance of a VM, ever, by the journals that the guests keep on their disks.

The end-to-end proof: only the VM itself writes there, so it holds whatever engine and cluster believe. Two
boots whose lines interleave ran at one time; so did two boots whose boot-time ranges overlap. Boot-time clocks of
different engines cannot be compared, the order of lines in one file always can. A VM that runs a program of its
own keeps no journal: then the engine's events alone speak for it, and that is said.
"""

from chaos.history.instances import read_instances
from chaos.history.records import GuestJournal, GuestRun, History
from chaos.history.verdict import Ruling, Verdict

__all__ = ["NAME", "check"]

NAME = "at-most-one-instance, guests' journals"
MAX_REASONS = 5
"""For one VM: a hostile guest can forge thousands."""
MAX_TORN = 16
MAX_TORN_PER_BOOT = 2
"""A crash tears one line and a full disk another; a journal with more of them was written by another program."""


def check(history: History) -> Verdict:
    """BROKEN when two boots of a VM interleave or overlap; INCONCLUSIVE when one that ran has no sound journal.

    Each journal is ruled on by itself, and every reason names its VM: no guest hides another's evidence.
    """
    journals = {journal.vm: journal for journal in history.of(GuestJournal)}
    ran = {instance.vm for instance in read_instances(history).all}
    broken = [reason for journal in journals.values() for reason in _violations(journal)]
    silent = sorted(vm for vm in ran if vm in journals and not journals[vm].kept)
    unread = [_unread(vm, journals.get(vm)) for vm in sorted(ran.difference(silent))]
    doubts = tuple(reason for reason in unread if reason)
    without = (f"no journal is kept by {', '.join(silent)}: the engine's events alone speak for it",) if silent else ()
    if broken:
        return Verdict(checker=NAME, ruling=Ruling.BROKEN, reasons=tuple(broken), notes=doubts)
    if not ran and not any(journal.lines for journal in journals.values()):
        return Verdict(checker=NAME, ruling=Ruling.NOT_APPLICABLE, notes=("no VM ran",))
    if ran and ran == set(silent):
        return Verdict(checker=NAME, ruling=Ruling.NOT_APPLICABLE, notes=without)
    if doubts:
        return Verdict(checker=NAME, ruling=Ruling.INCONCLUSIVE, reasons=doubts)
    lines = sum(journal.lines for journal in journals.values())
    torn = [f"{found.unreadable_lines} of {found.vm}" for found in journals.values() if found.unreadable_lines]
    kept = sum(journal.kept for journal in journals.values())
    note = f"{lines} lines of {kept} VMs" + (f"; torn: {', '.join(torn)}" if torn else "")
    return Verdict(checker=NAME, ruling=Ruling.HOLDS, notes=(note, *without))


def _violations(journal: GuestJournal) -> list[str]:
    """Every way in which the journal shows two instances, and after the first few their number alone."""
    reasons = [*_interleaved(journal), *_overlapping(journal)]
    more = len(reasons) - MAX_REASONS
    return [*reasons[:MAX_REASONS], f"{journal.vm}: {more} more like these"] if more > 0 else reasons


def _interleaved(journal: GuestJournal) -> list[str]:
    """A boot that writes again after another boot has written ran at the same time as that one."""
    reasons: list[str] = []
    last_of: dict[str, int] = {}
    for index, run in enumerate(journal.runs):
        earlier = last_of.get(run.boot)
        if earlier is not None:
            between = journal.runs[earlier + 1]
            reasons.append(
                f"{journal.vm} ran twice: boot {run.boot} on {_place(run)} wrote line {run.first_line} "
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
    latest: tuple[int, GuestRun] | None = None
    # By first line, each boot need only be compared with the one that wrote last before: linear but for the sort.
    for first, last, run in sorted(ranges.values(), key=lambda entry: entry[:2]):
        if latest is not None and (overlap_ns := min(last, latest[0]) - first) > 0:
            reasons.append(
                f"{journal.vm} ran twice: boot {latest[1].boot} on {_place(latest[1])} and "
                f"boot {run.boot} on {_place(run)} wrote during the same {overlap_ns / 1e9:.3f} s"
            )
        if latest is None or last > latest[0]:
            latest = (last, run)
    return reasons


def _unread(vm: str, journal: GuestJournal | None) -> str:
    if journal is None:
        return f"the journal of {vm}, which ran, was not read"
    if journal.error:
        return f"the journal of {vm} could not be read: {journal.error}"
    if not journal.lines:
        return f"the journal of {vm}, which ran, holds no whole line"
    if journal.unreadable_lines > MAX_TORN + MAX_TORN_PER_BOOT * len(journal.runs):
        return f"the journal of {vm} holds {journal.unreadable_lines} lines that are no records"
    return ""


def _place(run: GuestRun) -> str:
    return run.node or "an unknown node"
