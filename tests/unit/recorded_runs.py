"""Journals for the tests of reports: built record by record, small and hostile or as large as a rig may be."""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from chaos.history.records import (
    CleanUp,
    ClientAnswer,
    ClientBeat,
    ClusterSeen,
    ContainerRole,
    EngineEventSeen,
    FaultMoment,
    FaultRecord,
    GroupSeen,
    History,
    LogLine,
    NodeSeen,
    PartBegan,
    Record,
    ResourceSeen,
    Stall,
    StepEnded,
    to_plain,
)

BEGAN_NS = 1_700_000_000 * 10**9
SECOND_NS = 10**9


def at(seconds: float) -> int:
    """Unix nanoseconds, so many seconds after the run began."""
    return BEGAN_NS + int(seconds * SECOND_NS)


def node_event(seconds: float, action: str, node: str) -> EngineEventSeen:
    return EngineEventSeen(at_ns=at(seconds), action=action, container=f"c-{node}", role=ContainerRole.NODE, node=node)


def vm_event(
    seconds: float, action: str, vm: str, node: str, *, container: str = "", group: str = ""
) -> EngineEventSeen:
    return EngineEventSeen(
        at_ns=at(seconds),
        action=action,
        container=container or f"c-{vm}-{node}",
        role=ContainerRole.VM,
        node=node,
        vm=vm,
        group=group or vm,
        session=f"{node}@1/1",
        exit_code=137 if action == "die" else None,
    )


def line(seconds: float, node: str, event: str, message: str = "", /, **fields: Any) -> LogLine:
    return LogLine(
        at_ns=at(seconds), node=node, component="cluster-service", event=event, message=message or event, fields=fields
    )


def fault(seconds: float, moment: FaultMoment, *, number: int = 1, target: str = "node1", **more: Any) -> FaultRecord:
    return FaultRecord(
        at_ns=at(seconds), number=number, fault="node.power-off", target=target, moment=moment, **more
    )


def step(began: float, ended: float, name: str, outcome: str = "succeeded", **more: Any) -> StepEnded:
    more.setdefault("phase", "method")
    return StepEnded(at_ns=at(ended), began_ns=at(began), name=name, outcome=outcome, **more)


def topology(nodes: Sequence[str], vms: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Groups with their VMs, as the journal keeps a rig."""
    return {
        "nodes": [{"name": name, "address": "10.0.0.1", "voter": index < 5} for index, name in enumerate(nodes)],
        "groups": [
            {"name": group, "resources": [{"name": name, "type": "virtual-machine"} for name in names]}
            for group, names in vms.items()
        ],
    }


@dataclass
class Recorded:
    """A run on its way to a journal. `write` puts it into a directory and answers the file."""

    records: Iterable[Record] = ()
    title: str = "A test"
    exit_code: int = 0
    length_s: float = 10
    nodes: Sequence[str] = ("node1", "node2")
    vms: Mapping[str, Sequence[str]] | None = None
    findings: Sequence[Mapping[str, Any]] = ()
    checkers: Sequence[Mapping[str, Any]] = ()
    experiment: Mapping[str, Any] | None = None
    arena: Mapping[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        return {
            "platform": "Linux",
            "node": "a host",
            "experiment": {"title": self.title, **(self.experiment or {})},
            "blackstart": {
                "version": metadata.version("blackstart"),
                "title": self.title,
                "file": "some/test.yaml",
                "rig": "test",
                "topology": topology(self.nodes, self.vms or {"web": ("web-vm",)}),
                "began_ns": BEGAN_NS,
                "ended_ns": at(self.length_s),
                "exit_code": self.exit_code,
                "findings": list(self.findings),
                "checkers": list(self.checkers),
                "arena": dict(self.arena or {"arena": "test"}),
            },
            "history": [to_plain(record) for record in History(self.records)],
        }

    def write(self, directory: Path) -> Path:
        path = directory / "journal.json"
        path.write_text(json.dumps(self.document()))
        return path


def power_cut() -> Iterator[Record]:
    """Two nodes, one VM: node1 loses its power, node2 takes over, the power comes back."""
    for number, node in enumerate(("node1", "node2")):
        yield node_event(0.1, "start", node)
        yield line(0.5 + number / 10, node, "node-joined", session=f"{node}@1/1")
    yield PartBegan(at_ns=at(0), part="up")
    yield line(0.8, "node1", "group-claimed", group="web", owner="node1", epoch=1)
    yield vm_event(1, "start", "web-vm", "node1", group="web")
    yield ClientAnswer(at_ns=at(1.2), vm="web-vm", ok=True, boot="b1", node="node1")
    yield PartBegan(at_ns=at(1.5), part="gate")
    yield step(1.5, 1.6, "all online", phase="gate", output=True, expected="true", what="cluster groups-online")
    yield PartBegan(at_ns=at(1.7), part="method")
    yield fault(2, FaultMoment.INTENDED)
    yield fault(2, FaultMoment.INJECTED, affected=("web-vm",))
    yield vm_event(2.1, "die", "web-vm", "node1", group="web")
    yield node_event(2.2, "die", "node1")
    yield fault(2.3, FaultMoment.CONFIRMED, seen="node1 died after 200 ms", affected=("web-vm",))
    yield step(1.9, 2.3, "cut the power", output="node1", what="node.power-off on owner of web")
    yield ClientAnswer(at_ns=at(2.2), vm="web-vm", ok=False, error="timed out")
    yield line(4, "node2", "node-lease-expired", node="node1", session="node1@1/1")
    yield line(4.1, "node2", "node-declared-down", node="node1", session="node1@1/1")
    yield line(4.2, "node2", "node-fenced", node="node1", session="node1@1/1")
    yield line(4.3, "node2", "group-claimed", group="web", owner="node2", epoch=2)
    yield line(4.4, "node2", "resource-state", resource="web-vm", group="web", old="Offline", state="OnlinePending")
    yield vm_event(4.6, "start", "web-vm", "node2", group="web")
    yield line(4.7, "node2", "resource-state", resource="web-vm", group="web", old="OnlinePending", state="Online")
    yield ClientAnswer(at_ns=at(4.9), vm="web-vm", ok=True, boot="b2", node="node2")
    yield node_event(6, "start", "node1")
    yield fault(6.1, FaultMoment.HEALED, seen="by node.power-on")
    yield line(7, "node1", "node-joined", session="node1@1/2")
    yield ClientBeat(at_ns=at(3), asked=20, answered=5)
    yield PartBegan(at_ns=at(9), part="down")
    yield CleanUp(at_ns=at(9.9))


def snapshot(
    seconds: float, *, wanted: bool = True, owner: str = "node1", epoch: int = 1, paused: bool = False
) -> ClusterSeen:
    resource = ResourceSeen(name="web-vm", type="virtual-machine", state="Online", wanted=wanted)
    return ClusterSeen(
        at_ns=at(seconds),
        quorum=True,
        nodes=(NodeSeen(name="node1", state="Up", paused=paused, session="node1@1/1"),),
        groups=(GroupSeen(name="web", owner=owner, state="Online", epoch=epoch, resources=(resource,)),),
    )


def large_run(*, nodes: int = 9, vms: int = 64, length_s: int = 600, seed: int = 1) -> Recorded:
    """As large as a rig of containers gets: a fault every eight seconds, power cuts and crashes by turns."""
    chance = random.Random(seed)
    node_names = [f"node{number}" for number in range(1, nodes + 1)]
    names = [f"customer-{number:02d}-vm" for number in range(1, vms + 1)]
    return Recorded(
        records=list(_large(chance, node_names, names, length_s)),
        title="Nine nodes, sixty-four VMs, ten minutes of power cuts and crashes",
        length_s=length_s,
        nodes=node_names,
        vms={name.removesuffix("-vm"): (name,) for name in names},
    )


def _large(chance: random.Random, nodes: list[str], vms: list[str], length_s: int) -> Iterator[Record]:
    where: dict[str, str] = {}
    epochs = dict.fromkeys(vms, 0)
    boots = iter(range(10**6))

    def start(seconds: float, vm: str, node: str) -> Iterator[Record]:
        where[vm], boot = node, next(boots)
        group = vm.removesuffix("-vm")
        yield vm_event(seconds, "start", vm, node, container=f"{boot:012d}", group=group)
        containers[vm] = f"{boot:012d}"
        yield ClientAnswer(at_ns=at(seconds + 0.2), vm=vm, ok=True, boot=f"b{boot}", node=node)

    def claim(seconds: float, vm: str, node: str) -> LogLine:
        epochs[vm] += 1
        group = vm.removesuffix("-vm")
        return line(seconds, node, "group-claimed", group=group, owner=node, epoch=epochs[vm])

    containers: dict[str, str] = {}
    yield PartBegan(at_ns=at(0), part="up")
    for node in nodes:
        yield node_event(1, "start", node)
        yield line(3, node, "node-joined", session=f"{node}@1/0")
    for index, vm in enumerate(vms):
        yield claim(4 + index / 20, vm, nodes[index % len(nodes)])
        yield from start(4.5 + index / 20, vm, nodes[index % len(nodes)])
    yield PartBegan(at_ns=at(10), part="gate")
    yield step(10, 11, "all VMs answer", phase="gate")
    yield PartBegan(at_ns=at(11), part="method")
    for number, begins in enumerate(range(15, length_s - 20, 8), start=1):
        yield step(begins - 0.2, begins + 0.5, f"fault {number}")
        if number % 3 == 0:
            victim = chance.choice(nodes)
            lost = [vm for vm, node in where.items() if node == victim]
            yield fault(begins, FaultMoment.INJECTED, number=number, target=victim, affected=tuple(lost))
            for vm in lost:
                group = vm.removesuffix("-vm")
                yield vm_event(
                    begins + 0.2, "die", vm, victim, container=containers[vm], group=group
                )
                yield ClientAnswer(at_ns=at(begins + 0.3), vm=vm, ok=False, error="timed out")
            yield node_event(begins + 0.2, "die", victim)
            yield fault(begins + 0.4, FaultMoment.CONFIRMED, number=number, target=victim, affected=tuple(lost))
            for index, vm in enumerate(lost):
                survivor = chance.choice([node for node in nodes if node != victim])
                yield claim(begins + 2 + index / 50, vm, survivor)
                yield from start(begins + 2.5 + index / 20, vm, survivor)
            yield node_event(begins + 5, "start", victim)
            yield fault(begins + 5, FaultMoment.HEALED, number=number, target=victim, seen="by node.power-on")
            yield line(begins + 6.5, victim, "node-joined", session=f"{victim}@1/{number}")
        else:
            vm = chance.choice(vms)
            node, group = where[vm], vm.removesuffix("-vm")
            crash = {"number": number, "target": vm, "affected": (vm,)}
            yield fault(begins, FaultMoment.INJECTED, **crash)
            yield vm_event(begins + 0.05, "die", vm, node, container=containers[vm], group=group)
            yield fault(begins + 0.1, FaultMoment.CONFIRMED, **crash)
            yield fault(begins + 0.1, FaultMoment.HEALED, number=number, target=vm, seen="nothing to undo")
            yield from start(begins + 0.4, vm, node)
    for second in range(10, length_s - 5):
        yield ClientBeat(at_ns=at(second), asked=1000, answered=1000 - 100 * (second % 24 < 2))
        yield line(second, nodes[second % len(nodes)], "output", "Background saving terminated with success")
    yield Stall(at_ns=at(300), length_us=2_500_000)
    yield PartBegan(at_ns=at(length_s - 5), part="down")
