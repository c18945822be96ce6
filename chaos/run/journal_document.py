"""The journal's final document: the Chaos Toolkit's keys, our own under `blackstart`, and every record of the history.

Pure: facts of a run in, plain data out. `status` and `deviated` follow the Chaos Toolkit's words, the verdict follows
ours. With `history` the document is all that a report of the run needs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import PurePath
from typing import Any

from chaos.experiment.records import Experiment
from chaos.history.journal import about_this_host
from chaos.history.overload import overload_since
from chaos.history.records import CleanUp, FaultRecord, GuestJournal, History, Stall, StepEnded, StreamGap, to_plain
from chaos.history.recovery import Phase as RecoveryPhase
from chaos.history.recovery import Recovery
from chaos.history.verdict import ExitCode, Finding, Verdict, exit_meaning
from chaos.run.activity_runner import RunPhase

__all__ = ["RunFacts", "about_experiment", "journal_document"]

MASK = "***"
"""In the place of each value of a VM's environment."""
NOT_A_HOST = {"platform": "simulation", "node": "simulation"}
"""A simulated run is the same everywhere, and so is its journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Everything that the document is made of."""

    experiment: Experiment
    history: History
    arena: Mapping[str, Any]
    began_ns: int
    ended_ns: int
    code: ExitCode
    findings: Sequence[Finding]
    verdicts: Sequence[Verdict]
    recoveries: Sequence[Recovery]
    seed: int = 0


def journal_document(facts: RunFacts) -> dict[str, Any]:
    """The document, as plain data."""
    steps = facts.history.of(StepEnded)
    about = about_experiment(facts.experiment)
    return {
        "chaoslib-version": f"blackstart {about['version']}",
        **(NOT_A_HOST if facts.arena.get("arena") == "sim" else about_this_host()),
        "experiment": about["experiment"],
        "start": _time(facts.began_ns),
        "end": _time(facts.ended_ns),
        "duration": round((facts.ended_ns - facts.began_ns) / 1e9, 3),
        "status": _status(facts.code),
        "deviated": facts.code is ExitCode.BROKEN,
        "steady_states": {
            "before": _steady_state(steps, RunPhase.GATE),
            "after": _steady_state(steps, RunPhase.AFTER),
            "restored": _steady_state(steps, RunPhase.RESTORED),
            "during": _runs(steps, RunPhase.DURING),
        },
        "run": _runs(steps, RunPhase.METHOD),
        "rollbacks": _runs(steps, RunPhase.ROLLBACKS),
        "blackstart": {
            **{key: value for key, value in about.items() if key != "experiment"},
            "began_ns": facts.began_ns,
            "ended_ns": facts.ended_ns,
            "seed": facts.seed,
            "choices": list(facts.experiment.choices),
            "exit_code": facts.code.value,
            "verdict": exit_meaning(facts.code),
            "findings": [to_plain(finding) for finding in facts.findings],
            "checkers": [to_plain(verdict) for verdict in facts.verdicts],
            "recovery": [_recovery(row) for row in facts.recoveries],
            "faults": [to_plain(record) for record in facts.history.of(FaultRecord)],
            "stalls": [to_plain(record) for record in facts.history.of(Stall)],
            "overload": overload_since(facts.history, 0),
            "gaps": [to_plain(record) for record in facts.history.of(StreamGap)],
            "guest_journals": [to_plain(record) for record in facts.history.of(GuestJournal)],
            "clean_up": [to_plain(record) for record in facts.history.of(CleanUp)],
            "records": len(facts.history),
            "arena": to_plain(dict(facts.arena)),
        },
        "history": [to_plain(record) for record in facts.history],
    }


def about_experiment(experiment: Experiment) -> dict[str, Any]:
    """What is to be known of the experiment itself: the version that runs it, its file, its content, and the rig that
    was read out of it. Of the file its name alone: from where a run was started is no part of what it is.
    """
    return {
        "version": metadata.version("blackstart"),
        "experiment": _without_values(experiment.document),
        "title": experiment.title,
        "file": PurePath(experiment.file).name,
        "rig": experiment.topology.rig,
        "topology": _without_values(to_plain(experiment.topology)),
    }


def _without_values(content: Any) -> Any:
    """`content` with a mask for each value of a VM's environment: a journal is published, and names will do.

    In a topology the environment is a property, and so JSON in a text.
    """
    if isinstance(content, list | tuple):
        return [_without_values(entry) for entry in content]
    if not isinstance(content, Mapping):
        return content
    return {key: _masked(entry) if key == "environment" else _without_values(entry) for key, entry in content.items()}


def _masked(environment: Any) -> Any:
    if isinstance(environment, str):
        try:
            return json.dumps(_masked(json.loads(environment)))
        except ValueError:
            return MASK
    return dict.fromkeys(environment, MASK) if isinstance(environment, Mapping) else MASK


def _status(code: ExitCode) -> str:
    if code in (ExitCode.HUNG_UP, ExitCode.INTERRUPTED, ExitCode.QUIT, ExitCode.TERMINATED):
        return "interrupted"
    if code is ExitCode.HARNESS:
        return "aborted"
    return "failed" if code is ExitCode.NO_STEADY_STATE else "completed"


def _steady_state(steps: Sequence[StepEnded], phase: RunPhase) -> dict[str, Any] | None:
    asked = [step for step in steps if step.phase == phase]
    if not asked:
        return None
    return {
        "steady_state_met": all(step.outcome == "succeeded" for step in asked),
        "probes": [_run(step) for step in asked],
    }


def _runs(steps: Sequence[StepEnded], phase: RunPhase) -> list[dict[str, Any]]:
    return [_run(step) for step in steps if step.phase == phase]


def _run(step: StepEnded) -> dict[str, Any]:
    return {
        "activity": {"name": step.name},
        "output": to_plain(step.output),
        "status": step.outcome,
        "reason": step.reason,
        "start": _time(step.began_ns),
        "end": _time(step.at_ns),
        "duration": round((step.at_ns - step.began_ns) / 1e9, 3),
    }


def _recovery(row: Recovery) -> dict[str, Any]:
    phases = {f"{phase}_s": row.after_s(phase) for phase in RecoveryPhase if phase is not RecoveryPhase.FAULT}
    return {
        "fault": row.fault,
        "target": row.target,
        "vm": row.vm,
        "group": row.group,
        "from": row.from_node,
        "to": row.to_node,
        "at": _time(row.fault_ns),
        **phases,
    }


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, tz=UTC).isoformat(timespec="milliseconds")
