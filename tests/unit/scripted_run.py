"""One run of the runner in a scripted world, and what is asked of it when it is over."""

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from scripted_arena import ScriptedArena

from chaos.experiment.loader import read_experiment
from chaos.history.records import FaultMoment, FaultRecord, StepEnded
from chaos.history.verdict import ExitCode
from chaos.run.runner import RunResult, run_experiment
from chaos.run.terminal import Terminal

DOCUMENT = """
title: A test
rig:
  nodes: 3
  groups:
    - name: web
      resources:
        - {name: web-ip, type: ip-address}
        - {name: web-vm, type: virtual-machine, depends-on: "[web-ip]"}
    - {name: data, resources: [{name: data-vm, type: virtual-machine}]}
steady-state-hypothesis:
  title: all is well
  probes:
    - {type: probe, name: all online, provider: {type: cluster, probe: groups-online}, tolerance: true}
method:
  - {type: action, name: crash, provider: {type: fault, fault: vm.crash, target: web-vm}}
  - type: probe
    name: crash recovered
    provider: {type: cluster, probe: recovery-time, group: web}
    tolerance: [0, 1]
    until: {timeout: 5s}
  - type: action
    name: cut the power
    provider: {type: fault, fault: node.power-off, target: {owner-of: web}}
    register: victim
  - type: probe
    name: recovered
    provider: {type: cluster, probe: recovery-time, group: web}
    tolerance: [0, 5]
    until: {timeout: 10s}
rollbacks:
  - {type: action, name: power on, provider: {type: fault, fault: node.power-on, target: "${victim}"}}
"""


class Ran:
    """A run that is over: its result, its world, its files."""

    def __init__(self, arena: ScriptedArena, directory: Path, document: str = DOCUMENT, **options: Any) -> None:
        self.arena = arena
        self.out = directory / "out"
        self.screen = io.StringIO()
        experiment = read_experiment(document, name="test.yaml")
        self.result: RunResult = arena.drive(
            run_experiment(
                experiment,
                arena=arena,
                interrupt=arena.interrupt,
                terminal=Terminal(Console(file=self.screen, width=200)),
                out=self.out,
                **options,
            )
        )

    @property
    def code(self) -> ExitCode:
        return self.result.code

    @property
    def reasons(self) -> str:
        return "; ".join(finding.reason for finding in self.result.findings)

    def steps(self, phase: str) -> list[str]:
        return [f"{step.name}: {step.outcome}" for step in self.arena.history.of(StepEnded) if step.phase == phase]

    def faults(self) -> list[str]:
        records = self.arena.history.of(FaultRecord)
        return [f"{record.fault} {record.moment}" for record in records if record.moment is not FaultMoment.INTENDED]

    def journal(self) -> Any:
        return json.loads((self.out / "journal.json").read_text())
