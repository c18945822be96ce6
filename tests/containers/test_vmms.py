"""VMMS on a real engine: how it says that VMs ended, that what it removed is gone, and its power over nodes."""

import asyncio
import io
import json
import os
import tarfile
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import docker.errors
import pytest
from small_rig import HYPERVISOR, SmallRig

from harness.errors import EngineError
from harness.live.cluster_log import ClusterLog, LineWriter
from harness.live.docker_engine import DockerEngine
from harness.live.runtime import AsyncioRuntime, boot_time_us
from harness.model.labels import Role
from harness.model.session import Session
from harness.model.vm import Ending, Order, Proof, VmState, VmView
from harness.rig.images.build import ensure_images, find_project_root
from harness.rig.lifecycle.compose_file import NODE_CAPABILITIES
from harness.vmms.vmms import Vmms

pytestmark = pytest.mark.containers

LIMIT_S = 30.0
FAR_US = 10**15
SECOND_US = 1_000_000

T = TypeVar("T")


class Bench:
    """VMMS of several nodes in this process, each with a way to the engine of its own."""

    def __init__(self, rig: SmallRig, runner: asyncio.Runner) -> None:
        self.rig = rig
        self._runner = runner
        self._engines: list[DockerEngine] = []
        self.failures: list[str] = []
        self._log = ClusterLog(
            "test", "vmms", writer=LineWriter(node="test", descriptor=os.open(os.devnull, os.O_WRONLY))
        )

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(LIMIT_S):
                return await coroutine

        result = self._runner.run(limited())
        assert self.failures == []
        return result

    async def vmms_of(self, node: str) -> Vmms:
        """VMMS of that node's present life."""
        runtime = AsyncioRuntime(on_failure=lambda task, error: self.failures.append(f"{task}: {error!r}"))
        engine = DockerEngine()
        self._engines.append(engine)
        container = self.rig.nodes[node].id
        vmms = Vmms(runtime=runtime, engine=engine, rig=self.rig.name, node=node, log=self._log, container=container)
        runtime.spawn(vmms.run(), name=f"vmms of {node}")
        await vmms.identity()
        return vmms

    async def started(self, vmms: Vmms, vm: str) -> VmView:
        """A VM that VMMS has prepared and started."""
        await vmms.prepare(self.rig.spec(vm), epoch=1, adopt=False)
        return await vmms.start(vm, order=order(await vmms.identity()))

    def container_of(self, node: str, vm: str) -> str:
        """The id of the VM's only container."""
        (found,) = [box for box in self.rig.vms(node) if box.labels["io.blackstart.resource"] == vm]
        return str(found.id)

    def close(self) -> None:
        for engine in self._engines:
            engine.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    rig = SmallRig()
    try:
        rig.start_node("node1")
        with asyncio.Runner() as runner:
            bench = Bench(rig, runner)
            yield bench
            bench.close()
    finally:
        rig.close()


def order(session: Session) -> Order:
    return Order(session=session, epoch=1, not_after_us=boot_time_us() + 10 * SECOND_US)


async def ending(vmms: Vmms, vm: str) -> VmView:
    """The VM, as soon as VMMS knows how its run ended."""
    notices = vmms.notices()
    try:
        async for notice in notices:
            if notice.view.name == vm and notice.view.ending is not None:
                return notice.view
    finally:
        vmms.drop_notices(notices)
    raise AssertionError("the notices ended")


def test_prepared_vm_starts_about_as_fast_as_the_engine_can(bench: Bench) -> None:
    async def scenario() -> tuple[list[float], list[float]]:
        vmms = await bench.vmms_of("node1")
        through_vmms, bare = [], []
        await vmms.prepare(bench.rig.spec("web1"), epoch=1, adopt=False)
        container = bench.container_of("node1", "web1")
        for _ in range(5):
            began = time.perf_counter()
            view = await vmms.start("web1", order=order(await vmms.identity()))
            through_vmms.append(time.perf_counter() - began)
            assert view.state is VmState.RUNNING
            assert await vmms.terminate("web1") is Proof.STOPPED
            began = time.perf_counter()
            await asyncio.to_thread(bench.rig.client.api.start, container)
            bare.append(time.perf_counter() - began)
            await asyncio.to_thread(bench.rig.client.api.kill, container)
            await ending(vmms, "web1")
        return sorted(through_vmms), sorted(bare)

    through_vmms, bare = bench.run(scenario())

    # The medians differ by one look at the container, some 3 ms; the rest is for a VM that does other work.
    assert through_vmms[2] - bare[2] < 0.05, f"through VMMS {through_vmms}, bare {bare}"


def test_crash_kill_and_stop_are_told_apart(bench: Bench) -> None:
    async def scenario() -> list[tuple[Ending | None, int | None]]:
        vmms = await bench.vmms_of("node1")
        api = bench.rig.client.api
        seen = []
        for end_by_hand in (bench.rig.crash, api.kill, api.stop):
            await bench.started(vmms, "web1")
            # It must have come far enough to obey TERM.
            await asyncio.sleep(0.3)
            await asyncio.to_thread(end_by_hand, bench.container_of("node1", "web1"))
            view = await ending(vmms, "web1")
            seen.append((view.ending, view.exit_code))
        await bench.started(vmms, "web1")
        await asyncio.sleep(0.3)
        assert await vmms.shut_down("web1", grace_us=5 * SECOND_US) is Proof.STOPPED
        view = await vmms.view("web1")
        return [*seen, (view.ending, view.exit_code)]

    assert bench.run(scenario()) == [
        (Ending.CRASHED, 137),
        (Ending.KILLED, 137),
        (Ending.STOPPED, 0),
        (Ending.ASKED, 0),
    ]


def test_late_start_of_a_closed_vm_meets_nothing(bench: Bench) -> None:
    async def scenario() -> tuple[Proof, list[str]]:
        vmms = await bench.vmms_of("node1")
        await bench.started(vmms, "web1")
        container = bench.container_of("node1", "web1")
        proof = await vmms.close("web1", epoch=1)
        with pytest.raises(docker.errors.NotFound):
            await asyncio.to_thread(bench.rig.client.api.start, container)
        return proof, [box.name for box in bench.rig.vms("node1")]

    assert bench.run(scenario()) == (Proof.REMOVED, [])


def test_rebooted_node_clears_what_its_earlier_life_left(bench: Bench) -> None:
    async def scenario() -> tuple[Session, Session, int, list[str]]:
        earlier = await bench.vmms_of("node1")
        for vm in ("web1", "web2"):
            await bench.started(earlier, vm)
        node = bench.rig.nodes["node1"]
        await asyncio.to_thread(node.kill)
        await asyncio.to_thread(node.start)
        later = await bench.vmms_of("node1")
        cleared = await later.clear_earlier_sessions()
        left = [box.name for box in bench.rig.vms("node1")]
        return await earlier.identity(), await later.identity(), cleared, left

    earlier, later, cleared, left = bench.run(scenario())

    assert (earlier.container, cleared, left) == (later.container, 2, [])
    assert earlier.started != later.started


def test_fence_of_a_node_with_a_frozen_vm_takes_seconds_at_most(bench: Bench) -> None:
    bench.rig.start_node("node2")

    async def scenario() -> float:
        survivor, lost = await bench.vmms_of("node1"), await bench.vmms_of("node2")
        for vm in ("web1", "web2", "web3"):
            await bench.started(lost, vm)
        await asyncio.to_thread(bench.rig.client.api.pause, bench.container_of("node2", "web2"))
        began = time.perf_counter()
        await survivor.fence(await lost.identity(), not_after_us=FAR_US)
        return time.perf_counter() - began

    took_s = bench.run(scenario())

    assert bench.rig.vms("node2") == []
    bench.rig.nodes["node2"].reload()
    assert bench.rig.nodes["node2"].status == "exited"
    assert took_s < 5.0


def test_held_node_stays_off_until_it_is_released(bench: Bench) -> None:
    bench.rig.start_node("node2")
    bench.rig.nodes["node2"].kill()
    name = f"{bench.rig.name}_hold_node2"
    bench.rig.client.volumes.create(name, labels=bench.rig.labels(Role.HOLD, node="node2"))

    async def scenario() -> list[bool]:
        vmms = await bench.vmms_of("node1")
        held = await vmms.power_on("node2")
        await asyncio.to_thread(bench.rig.client.volumes.get(name).remove)
        return [held, await vmms.power_on("node2"), await vmms.power_on("node2")]

    assert bench.run(scenario()) == [False, True, True]
    bench.rig.nodes["node2"].reload()
    assert bench.rig.nodes["node2"].status == "running"


def test_fence_that_comes_too_late_kills_nothing(bench: Bench) -> None:
    bench.rig.start_node("node2")

    async def scenario() -> None:
        vmms = await bench.vmms_of("node1")
        with pytest.raises(EngineError, match="too late"):
            await vmms.fence(bench.rig.session("node2"), not_after_us=boot_time_us())

    bench.run(scenario())

    bench.rig.nodes["node2"].reload()
    assert bench.rig.nodes["node2"].status == "running"


ASK_WHO = """
import asyncio
from harness.live.vmms_client import VmmsClient
async def ask():
    async with VmmsClient() as hypervisor:
        for _ in range(100):
            try:
                print(await hypervisor.identity())
                return
            except Exception as error:
                last = error
                await asyncio.sleep(0.1)
        raise last
asyncio.run(ask())
"""
OUTSIDER = "909:909"
"""In no group of the node, like a guest; but a guest would be killed before it could knock: nothing permits guests."""
KNOCK = "import socket; socket.socket(socket.AF_UNIX).connect('/run/blackstart/vmms.sock')"


def test_process_of_the_image_serves_the_node_and_nobody_else(bench: Bench) -> None:
    client = bench.rig.client
    ensure_images(client, project_root=find_project_root(), say=lambda _text: None)
    vmms = {"name": "vmms", "argv": ["python3", "-I", "-m", "harness.live.vmms"], "uid": 902, "talks_to_engine": True}
    node = client.containers.create(
        HYPERVISOR,
        command=["/programs.json"],
        name=f"{bench.rig.name}-node2",
        labels=bench.rig.labels(Role.NODE, node="node2"),
        cap_drop=["ALL"],
        cap_add=list(NODE_CAPABILITIES),
        environment={
            "BLACKSTART_RIG": bench.rig.name,
            "BLACKSTART_NODE": "node2",
            "BLACKSTART_VOTERS": "node1=192.0.2.1",
            "BLACKSTART_BEAT_MS": "500",
            "BLACKSTART_LEASE_MS": "2000",
            "BLACKSTART_GRACE_MS": "1000",
            "BLACKSTART_PROGRAM_ASK_MS": "1000",
            "BLACKSTART_PROGRAM_SILENCE_MS": "5000",
        },
        volumes={"/var/run/docker.sock": {"bind": "/var/run/docker.sock", "mode": "rw"}},
    )
    node.put_archive("/", archive_of("programs.json", json.dumps({"programs": [vmms]}).encode()))
    node.start()
    bench.rig.nodes["node2"] = node

    code, answer = node.exec_run(["python3", "-I", "-c", ASK_WHO], user="903:910")
    refused, complaint = node.exec_run(["python3", "-I", "-c", KNOCK], user=OUTSIDER)

    assert (code, answer.decode().strip()) == (0, str(bench.rig.session("node2"))), node.logs().decode()
    assert refused == 1
    assert "PermissionError" in complaint.decode()


def archive_of(name: str, content: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as files:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o644
        files.addfile(entry, io.BytesIO(content))
    return archive.getvalue()
