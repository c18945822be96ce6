"""The faults on nodes, networks and the engine on one real rig: what is seen from outside, what is cured, what is left.

One rig with proxies to the engine; each test leaves it whole. The combinations are the shipped experiments, from end to
end.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import docker
import pytest

from chaos.arena.docker.arena import DockerArena
from chaos.arena.docker.event_loop import drive
from chaos.arena.interrupt import Interrupt
from chaos.experiment.records import FaultCall
from chaos.experiment.targets import ByName
from chaos.history.records import ContainerRole, EngineEventSeen, FaultMoment
from chaos.reaper.ledger import Ledger
from chaos.run.injection import Injected, Injector
from harness.document.topology import read_topology
from harness.document.yaml_source import load
from harness.live.runtime import AsyncioRuntime
from harness.model import labels
from harness.model.object_names import engine_proxy_container
from harness.rig.lifecycle.rig import Rig
from harness.rig.lifecycle.teardown import left_behind, remove_rig

pytestmark = [pytest.mark.containers, pytest.mark.timeout(200)]

EXPERIMENTS = Path(__file__).parents[2] / "chaos" / "experiments"
DOCUMENT = "nodes: 3\nsettings: {engine-proxy: true}\ngroups:\n" + "".join(
    f"""\
  - name: {name}
    resources:
      - {{name: {name}-ip, type: ip-address}}
      - {{name: {name}-vm, type: virtual-machine, depends-on: "[{name}-ip]", restart-threshold: 50}}
"""
    for name in ("web", "shop", "data")
)
SETTLE_LIMIT_S = 60.0
RUN_LIMIT_S = 150.0

T = TypeVar("T")


class Trial:
    """One arena on the standing rig, with an injector: what a run has, without an experiment."""

    def __init__(self, arena: DockerArena, injector: Injector) -> None:
        self.arena = arena
        self.injector = injector

    async def inject(self, fault: str, node: str, **arguments: Any) -> Injected:
        call = FaultCall(fault=fault, target=ByName(name=node), arguments=arguments)
        injected = await self.injector.inject(call, {})
        print(f"{fault} {node}: {injected.receipt.outcome}: {injected.receipt.seen}")
        assert injected.receipt.outcome is FaultMoment.CONFIRMED, injected.receipt.seen
        return injected

    async def wait(self, what: str, holds: Callable[[], Awaitable[bool]], *, limit_s: float = SETTLE_LIMIT_S) -> None:
        end = time.monotonic() + limit_s
        while not await holds():
            assert time.monotonic() < end, f"waited {limit_s:g} s for {what}"
            await asyncio.sleep(0.1)

    async def wait_settled(self) -> None:
        async def holds() -> bool:
            seen = await self.arena.cluster()
            up = all(node.state == "Up" for node in seen.nodes)
            return up and all(group.state == "Online" for group in seen.groups)

        await self.wait("every node to be Up and every group Online", holds)

    async def owner(self, group: str = "web") -> str:
        seen = (await self.arena.cluster()).group(group)
        assert seen is not None
        assert seen.owner
        return seen.owner

    def events(
        self, *actions: str, node: str = "", role: ContainerRole = ContainerRole.NODE, since_ns: int = 0
    ) -> list[EngineEventSeen]:
        return [
            event
            for event in self.arena.history.of(EngineEventSeen)
            if event.role is role and event.action in actions and node in ("", event.node) and event.at_ns >= since_ns
        ]


@pytest.fixture(scope="module")
def rig(engine: docker.DockerClient, rig_names: Callable[[], str]) -> Iterator[Rig]:
    rig = Rig.up(read_topology(load(DOCUMENT, name="rig.yaml"), rig=rig_names()), say=print, client=engine)
    yield rig
    rig.down(say=print)
    assert left_behind(engine, rig.name) == []


@pytest.fixture
def on_rig(rig: Rig) -> Callable[[Callable[[Trial], Awaitable[None]]], None]:
    """Runs a coroutine on the whole rig, undoes what it left open, and waits until the rig is whole again."""

    def run(test: Callable[[Trial], Awaitable[None]]) -> None:
        async def main(runtime: AsyncioRuntime, interrupt: Interrupt) -> None:
            del interrupt
            arena = DockerArena(runtime, on_rig=rig.name)
            ledger = Ledger(rig=rig.name, keep=arena.keep_ledger_line)
            trial = Trial(arena, Injector(arena, ledger))
            try:
                await arena.up(rig.topology, say=print)
                await trial.wait_settled()
                try:
                    await test(trial)
                finally:
                    problems = await trial.injector.undo_all()
                assert problems == []
                await trial.wait_settled()
            finally:
                await arena.down(keep=True)

        drive(main)

    return run


OnRig = Callable[[Callable[[Trial], Awaitable[None]]], None]


def test_a_node_that_hangs_is_fenced_and_has_nothing_left_to_thaw(on_rig: OnRig) -> None:
    async def test(trial: Trial) -> None:
        victim = await trial.owner()
        since_ns = trial.arena.unix_ns()
        await trial.inject("node.hang", victim)

        async def is_fenced() -> bool:
            return bool(trial.events("die", node=victim, since_ns=since_ns))

        await trial.wait(f"{victim} to be fenced", is_fenced)
        thawed = await trial.inject("node.thaw", victim)

        assert "nothing was left to thaw" in thawed.receipt.seen
        vms = trial.events("pause", "unpause", node=victim, role=ContainerRole.VM, since_ns=since_ns)
        assert {event.action for event in vms} == {"pause"}, "its VMs froze, and never went on"

    on_rig(test)


def test_a_node_that_resets_dies_without_a_kill_and_is_back_by_itself(on_rig: OnRig) -> None:
    async def test(trial: Trial) -> None:
        victim = await trial.owner()
        since_ns = trial.arena.unix_ns()

        await trial.inject("node.reset", victim)

        death, *_ = trial.events("die", node=victim, since_ns=since_ns)
        asked = trial.events("kill", "stop", node=victim, since_ns=since_ns)
        assert [event for event in asked if event.at_ns <= death.at_ns] == []
        assert trial.events("start", node=victim, since_ns=death.at_ns)

    on_rig(test)


def test_a_cut_is_laid_again_in_the_next_life_until_it_is_healed(on_rig: OnRig) -> None:
    async def test(trial: Trial) -> None:
        victim = await trial.owner()
        since_ns = trial.arena.unix_ns()
        await trial.inject("node.isolate", victim)

        async def cut_in_a_new_life() -> bool:
            born = trial.events("start", node=victim, since_ns=since_ns)
            seen = await trial.arena.network(victim)
            return bool(born) and seen.cut and seen.dropped > 0 and seen.reached is False

        await trial.wait(f"a new life of {victim} that is cut off", cut_in_a_new_life)
        await asyncio.sleep(3)
        cluster = await trial.arena.cluster()
        assert [node.state for node in cluster.nodes if node.name == victim] != ["Up"]
        joined = await trial.inject("node.join-network", victim)

        assert f"{victim} answers" in joined.receipt.seen

    on_rig(test)


def test_a_partial_cut_costs_nobody_his_vote(on_rig: OnRig) -> None:
    async def test(trial: Trial) -> None:
        victim = await trial.owner()
        other, _ = [node for node in ("node1", "node2", "node3") if node != victim]
        since_ns = trial.arena.unix_ns()

        await trial.inject("node.isolate", victim, **{"from": (other,), "direction": "in"})
        await asyncio.sleep(4)

        seen = await trial.arena.network(victim)
        assert (seen.prober, seen.reached) == (other, False)
        assert trial.events("die", since_ns=since_ns) == []
        await trial.inject("node.join-network", victim)

    on_rig(test)


def test_ten_seconds_without_the_engine_are_no_failure_and_what_crashed_restarts(rig: Rig, on_rig: OnRig) -> None:
    async def test(trial: Trial) -> None:
        victim = await trial.owner()
        before = await trial.arena.cluster()
        since_ns = trial.arena.unix_ns()
        await trial.inject("engine.stall", victim)
        await asyncio.sleep(10)
        assert trial.events("die", "kill", "start", since_ns=since_ns) == []
        assert trial.events("die", role=ContainerRole.VM, since_ns=since_ns) == []
        now = await trial.arena.cluster()
        assert [(group.owner, group.epoch, group.state) for group in now.groups] == [
            (group.owner, group.epoch, group.state) for group in before.groups
        ]
        assert all(resource.wanted for group in now.groups for resource in group.resources)

        await trial.injector.inject(FaultCall(fault="vm.crash", target=ByName(name="web-vm")), {})
        await asyncio.sleep(1)
        assert trial.events("start", role=ContainerRole.VM, since_ns=since_ns) == []
        await trial.inject("engine.resume", victim)

        async def restarted() -> bool:
            starts = trial.events("start", role=ContainerRole.VM, since_ns=since_ns)
            return [(event.vm, event.node) for event in starts] == [("web-vm", victim)]

        await trial.wait("web-vm to be restarted in place, once", restarted)
        assert rig.client.api.inspect_container(engine_proxy_container(rig.name, victim))["State"]["Running"]

    on_rig(test)


def test_held_calls_may_be_dropped(on_rig: OnRig) -> None:
    async def test(trial: Trial) -> None:
        victim = await trial.owner()
        await trial.inject("engine.stall", victim)
        await trial.inject("engine.resume", victim, then="drop")

    on_rig(test)


def test_a_node_whose_engine_is_stalled_cannot_fence_and_another_survivor_does(on_rig: OnRig) -> None:
    async def test(trial: Trial) -> None:
        victim = await trial.owner()
        stalled, _ = [node for node in ("node1", "node2", "node3") if node != victim]
        await trial.inject("engine.stall", stalled)
        since_ns = trial.arena.unix_ns()
        await trial.inject("node.hang", victim)

        async def is_fenced() -> bool:
            return bool(trial.events("die", node=victim, since_ns=since_ns))

        await trial.wait(f"{victim} to be fenced by the third node", is_fenced)
        await trial.inject("engine.resume", stalled)

    on_rig(test)


def test_a_signal_cures_what_is_injected_and_in_flight(rig: Rig, tmp_path: Path) -> None:
    document = tmp_path / "cut.yaml"
    groups = DOCUMENT.replace("\n", "\n  ")
    document.write_text(
        f"title: A cut that a signal ends\nrig:\n  {groups}\nmethod:\n"
        "  - {type: action, name: stall, provider: {type: fault, fault: engine.stall, target: node1}}\n"
        "  - {type: action, name: cut, pauses: {after: 60s}, background: true,\n"
        "     provider: {type: fault, fault: node.isolate, target: node2}}\n"
        "  - {type: probe, name: look, pauses: {after: 60s}, provider: {type: cluster, probe: nodes-up}}\n"
    )
    process = run_experiment("--on-rig", rig.name, str(document), cwd=tmp_path)
    lines = tmp_path / "out" / "journal.jsonl"
    try:
        end = time.monotonic() + SETTLE_LIMIT_S
        while not lines.exists() or lines.read_text().count('"intended"') < 2:
            assert time.monotonic() < end, f"waited {SETTLE_LIMIT_S:g} s for the cut to be begun"
            time.sleep(0.02)
        process.terminate()  # the stall is in the world, and the cut under way
    finally:
        code, output = finish(process)

    assert code == 143, output
    told = json.loads((tmp_path / "out" / "journal.json").read_text())["blackstart"]
    injected = {fault["number"] for fault in told["faults"] if fault["moment"] == "injected"}
    healed = {fault["number"] for fault in told["faults"] if fault["moment"] == "healed"}
    assert injected <= healed
    mine = rig.client.api.containers(all=True, filters={"label": f"{labels.RIG}={rig.name}"})
    assert not any(container["State"] == "paused" for container in mine)
    rig.wait_online(say=print)


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    ["engine-late-start", "power-returns-during-failover", "hung-vm-and-power-cut", "second-node-lost"],
)
def test_a_combination_of_faults_passes_and_leaves_nothing(
    tmp_path: Path, engine: docker.DockerClient, rig_names: Callable[[], str], name: str
) -> None:
    rig = rig_names()
    try:
        code, output = finish(run_experiment("--name", rig, str(EXPERIMENTS / f"{name}.yaml"), cwd=tmp_path))

        assert code == 0, output
        told = json.loads((tmp_path / "out" / "journal.json").read_text())["blackstart"]
        assert "broken" not in {checker["ruling"] for checker in told["checkers"]}
        assert left_behind(engine, rig) == []
    finally:
        remove_rig(engine, rig, say=print)


def run_experiment(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    command = [str(Path(sys.executable).with_name("blackstart")), "run", *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit code and output."""
    killer = threading.Timer(RUN_LIMIT_S, process.kill)
    killer.start()
    try:
        output, _ = process.communicate()
    finally:
        killer.cancel()
    return process.returncode, output
