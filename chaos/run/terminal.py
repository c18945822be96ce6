"""What a person sees of a run: one line a step, what is being waited for, the recovery table and the verdict.

Plain lines when the output is no terminal, so that a job's log reads the same; there a wait says what it waits for once
and not twenty times a second. It decides nothing and keeps nothing: no method raises, whatever becomes of the output.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.status import Status
from rich.table import Table

from chaos.experiment.records import Experiment
from chaos.history.recovery import Phase, Recovery
from chaos.history.verdict import ExitCode, Finding, FindingKind, Ruling, Verdict, exit_meaning
from chaos.output.printing import aside, console, markup

__all__ = ["Terminal"]

LOG_WIDTH = 200
"""Columns of an output that is no terminal: nobody told how wide its readers see it, and a cut-off table is useless."""

_CONTINUED = " " * 8

_MARKS = {"succeeded": "[green]ok[/]", "failed": "[red]FAILED[/]", "skipped": "[yellow]skipped[/]"}
_RULINGS = {
    Ruling.HOLDS: "[green]holds[/]",
    Ruling.BROKEN: "[red]BROKEN[/]",
    Ruling.INCONCLUSIVE: "[yellow]inconclusive[/]",
    Ruling.NOT_APPLICABLE: "[dim]not applicable[/]",
}


class Terminal:
    """The view of one run. Invariant: no method raises, so printing never decides how a run goes on."""

    def __init__(self, shown_on: Console | None = None) -> None:
        self._console = shown_on or console(soft_wrap=True)
        if not self._console.is_terminal:
            self._console.width = LOG_WIDTH
        self._status: Status | None = None
        self._waiting = ""

    @aside
    def begin(self, title: str, file: str, rig: str) -> None:
        """The first line."""
        self._print(f"[bold]{markup(title)}[/]")
        self._print(f"  {markup(file)}, rig {markup(rig)}", dim=True)

    @aside
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
                self._print(f"  {part}: {markup(activity.name)} [dim]({markup(str(activity.call))})[/]")

    @aside
    def phase(self, text: str) -> None:
        """A part of the run begins."""
        self.rest()
        self._print(f"[bold]{markup(text)}[/]")

    @aside
    def waiting(self, what: str, seen: str = "") -> None:
        """Say what is being waited for now, and what is `seen` of it; where lines stay, `what` is told once."""
        if self._console.is_terminal:
            shown = f"{markup(what)} [dim]{markup(seen)}[/]"
            if self._status is None:
                self._status = self._console.status(shown)
                self._status.start()
            self._status.update(shown)
        elif what != self._waiting:
            self._print(f"  ... {markup(what)}", dim=True)
        self._waiting = what

    @aside
    def rest(self) -> None:
        """Nothing is being waited for."""
        self._waiting = ""
        status, self._status = self._status, None
        if status is not None:
            status.stop()

    @aside
    def step(self, name: str, outcome: str, detail: str, seconds: float) -> None:
        """A step ended."""
        self.rest()
        shown = f" [dim]({markup(detail)})[/]" if detail else ""
        self._print(f"  {_MARKS.get(outcome, markup(outcome))} {markup(name)}{shown} [dim]{seconds:.1f} s[/]")

    @aside
    def note(self, text: str) -> None:
        """Something worth a line."""
        self.rest()
        self._print(f"  {markup(text)}")

    @aside
    def recovery(self, rows: Sequence[Recovery]) -> None:
        """The recovery table: seconds from the fault, by VM."""
        self.rest()
        if not rows:
            return
        table = Table(title="Recovery, seconds after the fault", title_justify="left", box=None, pad_edge=False)
        for heading in ("vm", "fault", "from", "to"):
            table.add_column(heading, no_wrap=True)
        phases = (Phase.DETECTED, Phase.CLAIMED, Phase.STARTED, Phase.ANSWERING)
        for phase in phases:
            table.add_column(phase.value, justify="right")
        for row in rows:
            times = [_seconds(row.after_s(phase)) for phase in phases]
            cells = (row.vm, f"{row.fault} {row.target}", row.from_node, row.to_node)
            table.add_row(*map(markup, cells), *times)
        self._console.print(table)

    @aside
    def verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """What each checker says."""
        self.phase("Checkers")
        for verdict in verdicts:
            self._print(f"  {_RULINGS[verdict.ruling]} {markup(verdict.checker)}")
            for reason in verdict.reasons:
                self._print(f"      {markup(reason)}")

    @aside
    def verdict(self, code: ExitCode, findings: Sequence[Finding], outputs: Sequence[str]) -> None:
        """The last lines: the verdict, its reasons, where the evidence is, the exit code."""
        self.rest()
        colour = "green" if code is ExitCode.PASSED else "red"
        self._print(f"[bold {colour}]verdict: {markup(exit_meaning(code))}[/] (exit code {code.value})")
        # The kinds are declared in the order in which they decide.
        for finding in sorted(findings, key=lambda finding: list(FindingKind).index(finding.kind)):
            self._print(f"  {markup(finding.kind.value)}: {markup(finding.reason)}")
        for output in outputs:
            self._print(f"  {markup(output)}", dim=True)

    def _print(self, line: str, *, dim: bool = False) -> None:
        """One entry. Its further lines are indented, so that no name of a file can forge an entry."""
        self._console.print(line.replace("\n", f"\n{_CONTINUED}"), style="dim" if dim else None)


def _seconds(after_s: float | None) -> str:
    return "-" if after_s is None else f"{after_s:.3f}"
