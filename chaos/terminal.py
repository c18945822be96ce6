"""What a person sees of a run: one line a step, what is being waited for, the recovery table and the verdict.

Plain lines when the output is no terminal, so that a job's log reads the same; there a wait says what it waits for once
and not twenty times a second. It decides nothing and keeps nothing.
"""

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from chaos.experiment import Experiment
from chaos.recovery import Phase, Recovery
from chaos.verdict import ExitCode, Finding, FindingKind, Ruling, Verdict, exit_meaning

__all__ = ["Terminal"]

LOG_WIDTH = 200
"""Columns of an output that is no terminal: nobody told how wide its readers see it, and a cut-off table is useless."""

_MARKS = {"succeeded": "[green]ok[/]", "failed": "[red]FAILED[/]", "skipped": "[yellow]skipped[/]"}
_RULINGS = {
    Ruling.HOLDS: "[green]holds[/]",
    Ruling.BROKEN: "[red]BROKEN[/]",
    Ruling.INCONCLUSIVE: "[yellow]inconclusive[/]",
    Ruling.NOT_APPLICABLE: "[dim]not applicable[/]",
}


class _HeardOrNot(Console):
    """A console whose reader may go away: what it has begun goes on to its end all the same, clean-up and verdict."""

    def on_broken_pipe(self) -> None:
        """Nobody reads any more."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Terminal:
    """The view of one run."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or _HeardOrNot(highlight=False, soft_wrap=True, emoji=False)
        if not self._console.is_terminal:
            self._console.width = LOG_WIDTH
        self._status: Status | None = None
        self._waiting = ""

    def begin(self, title: str, file: str, rig: str) -> None:
        """The first line."""
        self._print(f"[bold]{escape(title)}[/]")
        self._print(f"  {escape(file)}, rig {escape(rig)}", dim=True)

    def plan(self, experiment: Experiment) -> None:
        """What a run would do, without doing it."""
        self.begin(experiment.title, experiment.file, experiment.topology.rig)
        parts = {
            "steady state": experiment.hypothesis,
            "during": experiment.during,
            "method": experiment.method,
            "rollbacks": experiment.rollbacks,
        }
        for part, activities in parts.items():
            for activity in activities:
                self._print(f"  {part}: {escape(activity.name)} [dim]({escape(str(activity.call))})[/]")

    def phase(self, text: str) -> None:
        """A part of the run begins."""
        self.rest()
        self._print(f"[bold]{escape(text)}[/]")

    def waiting(self, what: str, seen: str = "") -> None:
        """Say what is being waited for now, and what is `seen` of it; where lines stay, `what` is told once."""
        if self._console.is_terminal:
            shown = f"{escape(what)} [dim]{escape(seen)}[/]"
            if self._status is None:
                self._status = self._console.status(shown)
                self._status.start()
            self._status.update(shown)
        elif what != self._waiting:
            self._print(f"  ... {escape(what)}", dim=True)
        self._waiting = what

    def rest(self) -> None:
        """Nothing is being waited for."""
        self._waiting = ""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def step(self, name: str, outcome: str, detail: str, seconds: float) -> None:
        """A step ended."""
        self.rest()
        shown = f" [dim]({escape(detail)})[/]" if detail else ""
        self._print(f"  {_MARKS.get(outcome, escape(outcome))} {escape(name)}{shown} [dim]{seconds:.1f} s[/]")

    def note(self, text: str) -> None:
        """Something worth a line."""
        self.rest()
        self._print(f"  {escape(text)}")

    def recovery(self, rows: Sequence[Recovery]) -> None:
        """The recovery table: seconds from the fault, by machine."""
        self.rest()
        if not rows:
            return
        table = Table(title="Recovery, seconds after the fault", title_justify="left", box=None, pad_edge=False)
        for heading in ("machine", "fault", "from", "to"):
            table.add_column(heading, no_wrap=True)
        phases = (Phase.DETECTED, Phase.CLAIMED, Phase.STARTED, Phase.ANSWERING)
        for phase in phases:
            table.add_column(phase.value, justify="right")
        for row in rows:
            times = [_seconds(row.after_s(phase)) for phase in phases]
            table.add_row(row.machine, f"{row.fault} {row.target}", row.from_node, row.to_node, *times)
        self._console.print(table)

    def verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """What each checker says."""
        self.phase("Checkers")
        for verdict in verdicts:
            self._print(f"  {_RULINGS[verdict.ruling]} {escape(verdict.checker)}")
            for reason in verdict.reasons:
                self._print(f"      {escape(reason)}")

    def verdict(self, code: ExitCode, findings: Sequence[Finding], outputs: Sequence[str]) -> None:
        """The last lines: the verdict, its reasons, where the evidence is, the exit code."""
        self.rest()
        colour = "green" if code is ExitCode.PASSED else "red"
        self._print(f"[bold {colour}]verdict: {escape(exit_meaning(code))}[/] (exit code {code.value})")
        # The kinds are declared in the order in which they decide.
        for finding in sorted(findings, key=lambda finding: list(FindingKind).index(finding.kind)):
            self._print(f"  {escape(finding.kind.value)}: {escape(finding.reason)}")
        for output in outputs:
            self._print(f"  {escape(output)}", dim=True)

    def _print(self, markup: str, *, dim: bool = False) -> None:
        self._console.print(markup, style="dim" if dim else None)


def _seconds(after_s: float | None) -> str:
    return "-" if after_s is None else f"{after_s:.3f}"
