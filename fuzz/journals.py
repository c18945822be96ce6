"""Journals to mutate: one record of every kind that a history has, as a document and as lines."""

import dataclasses
import json
import typing
from typing import Any

from chaos.experiment.loader import read_experiment
from chaos.history.records import (
    ClusterSeen,
    ContainerRole,
    EngineEventSeen,
    FaultMoment,
    FaultRecord,
    GroupSeen,
    GuestJournal,
    GuestRun,
    History,
    LogLine,
    NodeSeen,
    Record,
    ResourceSeen,
    StepEnded,
    to_plain,
)
from chaos.history.recovery import read_recoveries
from chaos.history.verdict import ExitCode, Finding, FindingKind, Ruling, Verdict
from chaos.run.journal_document import RunFacts, about_experiment, journal_document

__all__ = ["sample_journals"]

BEGAN_NS = 1_700_000_000 * 10**9
SECOND_NS = 10**9

_EXPERIMENT = """\
title: a node goes
rig: {nodes: 3, groups: 1}
steady-state-hypothesis:
  title: up
  probes: [{type: probe, name: all, provider: {type: cluster, probe: groups-online}, tolerance: true}]
method:
  - {type: action, name: cut, provider: {type: fault, fault: node.power-off, target: node1}}
rollbacks: []
"""
_PLAIN: dict[Any, Any] = {int: 7, str: "node1", bool: True, float: 0.5}


def sample_journals() -> tuple[list[str], list[str]]:
    """Documents (`journal.json`), and the lines of runs that ended and of one that was killed (`journal.jsonl`)."""
    experiment = read_experiment(_EXPERIMENT, name="fuzz.yaml")
    history = History(_records())
    verdicts = (Verdict(checker="recovery", ruling=Ruling.BROKEN, reasons=("late",)),)
    findings = (Finding(kind=FindingKind.BROKEN, reason="cut: late"),)
    facts = RunFacts(
        experiment=experiment,
        history=history,
        arena={"arena": "sim", "images": {"guest": "sha256:1"}},
        began_ns=BEGAN_NS,
        ended_ns=BEGAN_NS + 60 * SECOND_NS,
        code=ExitCode.BROKEN,
        findings=findings,
        verdicts=verdicts,
        recoveries=read_recoveries(history),
        seed=3,
    )
    document = json.dumps(journal_document(facts))
    began = {"record": "run-began", "at_ns": BEGAN_NS, **about_experiment(experiment)}
    killed = [json.dumps(to_plain(line)) for line in (began, {"record": "facts", "arena": "sim"}, *history)]
    ended = {"record": "run-ended", "at_ns": facts.ended_ns, "exit_code": 1, "findings": to_plain(findings)}
    verdict = {"record": "verdict", "verdict": to_plain(verdicts[0])}
    whole = [*killed, json.dumps(verdict), json.dumps(ended)]
    return [document], ["\n".join(killed) + '\n{"record": "LogL', "\n".join(whole) + "\n"]


def _records() -> list[Any]:
    records = [_record(kind, number) for number, kind in enumerate(typing.get_args(Record), start=1)]
    at_ns = BEGAN_NS + 20 * SECOND_NS
    nodes = tuple(NodeSeen(name=f"node{number}", state="Up") for number in (1, 2, 3))
    vm = ResourceSeen(name="web1-vm", type="virtual-machine", state="Online", wanted=True)
    group = GroupSeen(name="web1", owner="node1", state="Online", resources=(vm,))
    run = GuestRun(
        vm="web1-vm", boot="a", node="node1", first_line=1, lines=2, first_boottime_ns=1, last_boottime_ns=9
    )
    power_cut: dict[str, Any] = {"number": 1, "fault": "node.power-off", "target": "node1", "affected": ("web1-vm",)}
    return [
        *records,
        ClusterSeen(at_ns=at_ns, quorum=True, nodes=nodes, groups=(group,)),
        FaultRecord(at_ns=at_ns + 1, moment=FaultMoment.INJECTED, **power_cut),
        FaultRecord(at_ns=at_ns + 2, moment=FaultMoment.CONFIRMED, **power_cut),
        EngineEventSeen(
            at_ns=at_ns + 3, action="die", container="c", role=ContainerRole.NODE, node="node1", exit_code=137
        ),
        LogLine(at_ns=at_ns + 4, node="node2", component="cluster-service", event="node-down", message="node1 is Down"),
        EngineEventSeen(
            at_ns=at_ns + SECOND_NS, action="start", container="d", role=ContainerRole.VM, node="node2", vm="web1-vm"
        ),
        StepEnded(at_ns=at_ns + 5, began_ns=at_ns, phase="method", name="cut", outcome="failed", reason="late"),
        GuestJournal(at_ns=at_ns + 6, vm="web1-vm", runs=(run,), lines=2),
    ]


def _record(kind: Any, number: int) -> Any:
    """A record of that kind with a value for each field that has no default."""
    hints = typing.get_type_hints(kind)
    values = {}
    for entry in dataclasses.fields(kind):
        if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            hint = hints[entry.name]
            is_enum = isinstance(hint, type) and hasattr(hint, "__members__")
            values[entry.name] = next(iter(hint)) if is_enum else _PLAIN.get(hint, ())
    if "at_ns" in hints:
        values["at_ns"] = BEGAN_NS + number * SECOND_NS
    if "began_ns" in hints:
        values["began_ns"] = BEGAN_NS
    return kind(**values)
