"""The insides of a scripted world's nodes: four programs each, the voter's disk, the VMs' processes."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from chaos.arena.process_effects import (
    DiskSeen,
    FillVoterDisk,
    FreeVoterDisk,
    Freezing,
    HangVm,
    KillVm,
    NodeInside,
    NodeProgram,
    ProcessEffect,
    ProgramSeen,
    ProgramSignal,
    SignalProgram,
    StartVm,
    StopVm,
    ThawVm,
    WipeVoter,
)

SIZE = 64 << 20


class World(Protocol):
    """What the insides need of the world around them."""

    def unix_ns(self) -> int: ...
    def vm_event(self, action: str, vm: str, **more: Any) -> None: ...
    def vm_runs(self, vm: str, running: bool) -> None: ...


@dataclass
class _Node:
    programs: dict[NodeProgram, ProgramSeen]
    disk: DiskSeen


@dataclass
class Processes:
    """All of them. `obey` False: what is done to them has no effect. `deaf` programs run and do not answer."""

    world: World
    limited: bool = True
    obey: bool = True
    deaf: set[NodeProgram] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    nodes: dict[str, _Node] = field(default_factory=dict)
    pid: int = 10

    def node(self, name: str) -> _Node:
        """The node's insides, made at the first look."""
        if name not in self.nodes:
            disk = DiskSeen(size=SIZE, free=SIZE // 2, limited=self.limited, files=3, oldest_ns=1)
            self.nodes[name] = _Node(programs={program: self._process() for program in NodeProgram}, disk=disk)
        return self.nodes[name]

    def inside(self, name: str, ask: Collection[NodeProgram]) -> NodeInside:
        """A look."""
        node = self.node(name)
        answers = {
            program: program in node.programs and not node.programs[program].hangs and program not in self.deaf
            for program in ask
        }
        vms = dict.fromkeys(self.stopped, "TT")
        return NodeInside(programs=dict(node.programs), answers=answers, vms=vms, disk=node.disk)

    def apply(self, effect: ProcessEffect) -> None:
        """What comes of an effect."""
        if not self.obey:
            return
        match effect:
            case SignalProgram(node=node, program=program, signal=ProgramSignal.KILL):
                self.node(node).programs[program] = self._process()
            case SignalProgram(node=node, program=program, signal=signal):
                state = "T" if signal is ProgramSignal.STOP else "S"
                programs = self.node(node).programs
                programs[program] = replace(programs[program], state=state)
            case WipeVoter(node=node):
                self.node(node).programs[NodeProgram.VOTER] = self._process()
                self.node(node).disk = replace(self.node(node).disk, oldest_ns=self.world.unix_ns())
            case FillVoterDisk(node=node):
                self.node(node).programs.pop(NodeProgram.VOTER)
                self.node(node).disk = replace(self.node(node).disk, free=0)
            case FreeVoterDisk(node=node):
                self.node(node).programs[NodeProgram.VOTER] = self._process()
                self.node(node).disk = replace(self.node(node).disk, free=SIZE // 2)
            case HangVm() | ThawVm():
                self._hang(effect)
            case KillVm(vm=vm):
                self.world.vm_event("kill", vm, signal=9)
                self.end_vm(vm)
            case StopVm(vm=vm):
                self.world.vm_event("kill", vm, signal=15)
                self.end_vm(vm)
                self.world.vm_event("stop", vm)
            case StartVm(vm=vm):
                self.world.vm_runs(vm, True)
                self.world.vm_event("start", vm)

    def end_vm(self, vm: str) -> None:
        """It dies."""
        self.world.vm_runs(vm, False)
        self.world.vm_event("die", vm, exit_code=137)

    def _hang(self, effect: HangVm | ThawVm) -> None:
        hang = isinstance(effect, HangVm)
        of = self.paused if effect.how is Freezing.PAUSE else self.stopped
        (of.add if hang else of.discard)(effect.container)
        if effect.how is Freezing.PAUSE:
            self.world.vm_event("pause" if hang else "unpause", effect.vm)

    def _process(self) -> ProgramSeen:
        self.pid += 1
        return ProgramSeen(pid=self.pid, started=100 * self.pid, state="S")
