"""The simulated engine and the real one keep the same promises of the `Engine` port.

Each expectation runs in both worlds; `by hand` is what somebody does to a container past the port.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

import pytest
from small_rig import SmallRig

from harness.errors import EngineError, NoSuchContainer
from harness.live.docker_engine import DockerEngine
from harness.live.docker_events import EventStream
from harness.model import labels as label
from harness.model.labels import Role
from harness.model.session import Session
from harness.model.vm import VmSpec
from harness.ports import Container, Engine, EngineEvent, EventGap
from harness.simulation.kernel.runtime import SimulatedRuntime, VirtualClock
from harness.simulation.twins.engine import SimulatedEngine
from harness.simulation.twins.engine_client import SimulatedEngineClient

LIMIT_S = 30.0
NOBODY = "f" * 64

T = TypeVar("T")


class World(Protocol):
    """An engine with one node, `node1`, that runs."""

    engine: Engine
    rig: str
    session: Session

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T: ...
    def events(self) -> AsyncIterator[EngineEvent | EventGap]: ...
    def spec(self, vm: str) -> VmSpec: ...
    def vm_labels(self, vm: str) -> dict[str, str]: ...

    # By hand.
    async def crash(self, container: str) -> None: ...
    async def stop(self, container: str) -> None: ...
    async def pause(self, container: str) -> None: ...
    async def unpause(self, container: str) -> None: ...
    async def power_off(self) -> None: ...
    async def hold(self) -> None: ...


class SimulatedWorld:
    """On virtual time."""

    def __init__(self) -> None:
        self.rig = "contract"
        self._clock = VirtualClock()
        self._engine = SimulatedEngine(self._clock, random.Random(1))
        self._runtime = SimulatedRuntime(self._clock, on_error=self._fail)
        self._engine.add_node("node1", {label.RIG: self.rig})
        self._engine.start_node("node1")
        self._clock.run_until(1_000_000)
        self.engine: Engine = SimulatedEngineClient(self._engine)
        node = self._engine.node("node1")
        self.session = Session("node1", node.id[:12], node.started)

    @staticmethod
    def _fail(_task: object, error: Exception) -> None:
        raise error

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        results: list[T] = []

        async def root() -> None:
            results.append(await coroutine)

        self._runtime.spawn(root(), name="scenario")
        self._clock.run_until(self._clock.now_us + int(LIMIT_S * 1e6))
        assert results, f"the scenario still waits after {LIMIT_S} simulated seconds"
        return results[0]

    def events(self) -> AsyncIterator[EngineEvent | EventGap]:
        return self.engine.events(labels={label.RIG: self.rig})

    def spec(self, vm: str) -> VmSpec:
        return VmSpec(name=vm, group=vm, image="guest", address=None, user=10_001)

    def vm_labels(self, vm: str) -> dict[str, str]:
        own = {label.RESOURCE: vm, label.GROUP: vm, label.SESSION: str(self.session)}
        return {label.RIG: self.rig, label.ROLE: Role.VM.value, label.NODE: "node1", **own}

    async def crash(self, container: str) -> None:
        self._engine.crash_vm(container)
        await self._runtime.sleep(1_000_000)

    async def stop(self, container: str) -> None:
        self._engine.stop_by_hand(container)
        await self._runtime.sleep(1_000_000)

    async def pause(self, container: str) -> None:
        self._engine.pause(container)

    async def unpause(self, container: str) -> None:
        self._engine.unpause(container)

    async def power_off(self) -> None:
        self._engine.power_off_node("node1")
        await self._runtime.sleep(1_000_000)

    async def hold(self) -> None:
        self._engine.hold(self.rig, "node1")


class DockerWorld:
    """On the real engine; what is done by hand goes through a client of its own."""

    def __init__(self, rig: SmallRig, runner: asyncio.Runner) -> None:
        self.rig = rig.name
        self._small = rig
        self._runner = runner
        self._streams: list[EventStream] = []
        self.session = rig.start_node("node1")
        self._engine = runner.run(self._make())
        self.engine: Engine = self._engine

    @staticmethod
    async def _make() -> DockerEngine:
        return DockerEngine()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(LIMIT_S):
                return await coroutine

        return self._runner.run(limited())

    def events(self) -> AsyncIterator[EngineEvent | EventGap]:
        stream = self._engine.events(labels={label.RIG: self.rig})
        self._streams.append(stream)
        return stream

    def spec(self, vm: str) -> VmSpec:
        return self._small.spec(vm)

    def vm_labels(self, vm: str) -> dict[str, str]:
        return self._small.vm_labels(vm, self.session)

    async def crash(self, container: str) -> None:
        await asyncio.to_thread(self._small.crash, container)

    async def stop(self, container: str) -> None:
        await asyncio.to_thread(self._small.client.api.stop, container)

    async def pause(self, container: str) -> None:
        await asyncio.to_thread(self._small.client.api.pause, container)

    async def unpause(self, container: str) -> None:
        await asyncio.to_thread(self._small.client.api.unpause, container)

    async def power_off(self) -> None:
        await asyncio.to_thread(self._small.nodes["node1"].kill)
        await asyncio.sleep(0.5)  # the engine notices the end of the guests a little later

    async def hold(self) -> None:
        labels = self._small.labels(Role.HOLD, node="node1")
        await asyncio.to_thread(lambda: self._small.client.volumes.create(f"{self.rig}_hold_node1", labels=labels))

    def close(self) -> None:
        for stream in self._streams:
            self._runner.run(stream.aclose())
        self._engine.close()


@pytest.fixture(params=["simulated", pytest.param("docker", marks=pytest.mark.containers)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "simulated":
        yield SimulatedWorld()
        return
    rig = SmallRig()
    try:
        with asyncio.Runner() as runner:
            docker_world = DockerWorld(rig, runner)
            yield docker_world
            docker_world.close()
    finally:
        rig.close()


async def prepared(world: World, vm: str = "web1") -> str:
    """A VM's container that never ran."""
    return await world.engine.create_vm(
        world.spec(vm), session=world.session, labels=world.vm_labels(vm)
    )


async def started(world: World, vm: str = "web1") -> tuple[str, Container]:
    """A VM that runs."""
    container = await prepared(world, vm)
    await world.engine.start(container)
    return container, await seen(world, container)


async def seen(world: World, container: str) -> Container:
    found = await world.engine.inspect(container)
    assert found is not None
    return found


async def heard(stream: AsyncIterator[EngineEvent | EventGap], container: str, *, until: str) -> list[EngineEvent]:
    """Events of the container up to and including the first `until`."""
    events: list[EngineEvent] = []
    async for event in stream:
        assert isinstance(event, EngineEvent)
        if event.container == container:
            events.append(event)
            if event.action == until:
                return events
    raise AssertionError("the stream ended")


def actions(events: list[EngineEvent]) -> list[str]:
    return [event.action for event in events]


def test_created_vm_is_listed_and_has_never_run(world: World) -> None:
    async def scenario() -> tuple[str, list[Container]]:
        container = await prepared(world)
        return container, await world.engine.containers(labels=world.vm_labels("web1"))

    container, (found,) = world.run(scenario())

    assert (found.id, found.running, found.started, found.started_ns) == (container, False, "", 0)
    assert world.vm_labels("web1").items() <= found.labels.items()
    assert found.name.startswith(f"{world.rig}-node1-web1-")


def test_started_vm_runs_and_tells_its_run(world: World) -> None:
    async def scenario() -> tuple[Container, list[Container], list[EngineEvent]]:
        stream = world.events()
        container, found = await started(world)
        listed = await world.engine.containers(labels=world.vm_labels("web1"))
        return found, listed, await heard(stream, container, until="start")

    found, listed, events = world.run(scenario())

    assert found.running
    assert found.started
    assert listed == [found]
    assert actions(events) == ["create", "start"]
    assert events[0].at_ns <= found.started_ns <= events[1].at_ns
    assert world.vm_labels("web1").items() <= events[1].labels.items()


def test_second_start_of_a_running_vm_is_harmless(world: World) -> None:
    async def scenario() -> tuple[Container, Container]:
        container, first = await started(world)
        await world.engine.start(container)
        return first, await seen(world, container)

    first, second = world.run(scenario())

    assert first == second


def test_crash_leaves_no_trace_of_a_signal(world: World) -> None:
    async def scenario() -> tuple[Container, Container, list[EngineEvent]]:
        stream = world.events()
        container, first = await started(world)
        await world.crash(container)
        return first, await seen(world, container), await heard(stream, container, until="die")

    first, found, events = world.run(scenario())

    assert (found.running, found.exit_code, found.started) == (False, 137, first.started)
    assert actions(events) == ["create", "start", "die"]
    assert events[-1].exit_code == 137


def test_kill_is_told_with_its_signal_and_answers_when_the_vm_is_dead(world: World) -> None:
    async def scenario() -> tuple[Container, list[EngineEvent]]:
        stream = world.events()
        container, _ = await started(world)
        await world.engine.kill(container)
        return await seen(world, container), await heard(stream, container, until="die")

    found, events = world.run(scenario())

    assert not found.running
    assert [(event.action, event.signal, event.exit_code) for event in events[2:]] == [
        ("kill", 9, None),
        ("die", None, 137),
    ]


def test_graceful_signal_ends_a_vm_without_a_stop_event(world: World) -> None:
    async def scenario() -> list[EngineEvent]:
        stream = world.events()
        container, _ = await started(world)
        await world.engine.kill(container, signal=15)
        await heard(stream, container, until="die")
        await world.engine.remove(container)
        return await heard(stream, container, until="destroy")

    events = world.run(scenario())

    assert "stop" not in actions(events)


def test_stop_by_an_administrator_has_an_event_of_its_own(world: World) -> None:
    async def scenario() -> list[EngineEvent]:
        stream = world.events()
        container, _ = await started(world)
        await world.stop(container)
        return await heard(stream, container, until="stop")

    events = world.run(scenario())

    assert [(event.action, event.signal) for event in events[2:]] == [("kill", 15), ("die", None), ("stop", None)]


def test_times_of_events_tell_one_run_from_the_next(world: World) -> None:
    async def scenario() -> tuple[Container, Container, list[EngineEvent]]:
        stream = world.events()
        container, first = await started(world)
        await world.engine.kill(container)
        await world.engine.start(container)
        second = await seen(world, container)
        events = await heard(stream, container, until="die")
        return first, second, events + await heard(stream, container, until="start")

    first, second, events = world.run(scenario())

    assert first.started != second.started
    die, start = events[-2:]
    assert first.started_ns < die.at_ns < second.started_ns <= start.at_ns


def test_paused_vm_still_counts_as_running(world: World) -> None:
    async def scenario() -> tuple[Container, Container, list[EngineEvent]]:
        stream = world.events()
        container, _ = await started(world)
        await world.pause(container)
        frozen = await seen(world, container)
        await world.unpause(container)
        return frozen, await seen(world, container), await heard(stream, container, until="unpause")

    frozen, thawed, events = world.run(scenario())

    assert (frozen.running, frozen.paused) == (True, True)
    assert (thawed.running, thawed.paused) == (True, False)
    assert actions(events)[2:] == ["pause", "unpause"]


def test_frozen_vm_can_be_removed(world: World) -> None:
    async def scenario() -> Container | None:
        container, _ = await started(world)
        await world.pause(container)
        await world.engine.remove(container)
        return await world.engine.inspect(container)

    assert world.run(scenario()) is None


def test_removed_vm_is_gone_for_every_later_call(world: World) -> None:
    async def scenario() -> tuple[list[str], Container | None, list[Container], list[str]]:
        stream = world.events()
        container, _ = await started(world)
        await world.engine.remove(container)
        calls: list[Callable[[str], Coroutine[Any, Any, None]]] = [
            world.engine.start,
            world.engine.kill,
            world.engine.remove,
        ]
        errors = []
        for call in calls:
            try:
                await call(container)
            except NoSuchContainer:
                errors.append("no such container")
        listed = await world.engine.containers(labels={label.RIG: world.rig, label.ROLE: Role.VM.value})
        events = await heard(stream, container, until="destroy")
        return errors, await world.engine.inspect(container), listed, actions(events)

    errors, found, listed, told = world.run(scenario())

    assert errors == ["no such container"] * 3
    assert found is None
    assert listed == []
    assert told == ["create", "start", "kill", "die", "destroy"]


def test_kill_of_a_stopped_vm_is_refused(world: World) -> None:
    async def scenario() -> None:
        await world.engine.kill(await prepared(world))

    with pytest.raises(EngineError, match="not running") as refusal:
        world.run(scenario())
    assert refusal.type is EngineError


def test_listing_wants_all_labels(world: World) -> None:
    async def scenario() -> tuple[str, list[Container]]:
        first = await prepared(world, "web1")
        await prepared(world, "web2")
        labels = {label.RIG: world.rig, label.ROLE: Role.VM.value, label.RESOURCE: "web1"}
        return first, await world.engine.containers(labels=labels)

    first, found = world.run(scenario())

    assert [box.id for box in found] == [first]


def test_container_is_found_by_the_beginning_of_its_id(world: World) -> None:
    async def scenario() -> tuple[Container | None, Container | None]:
        return await world.engine.inspect(world.session.container), await world.engine.inspect(NOBODY)

    found, nobody = world.run(scenario())

    assert found is not None
    assert (found.started, found.running) == (world.session.started, True)
    assert nobody is None


def test_vm_cannot_be_made_for_a_node_that_does_not_exist(world: World) -> None:
    async def scenario() -> None:
        nowhere = Session("node1", NOBODY[:12], "2020-01-01T00:00:00Z")
        await world.engine.create_vm(world.spec("web1"), session=nowhere, labels=world.vm_labels("web1"))

    with pytest.raises(EngineError, match=r"[Nn]o such container"):
        world.run(scenario())


def test_vms_die_with_their_node_and_cannot_start_without_it(world: World) -> None:
    async def scenario() -> tuple[Container, Container, list[EngineEvent]]:
        stream = world.events()
        container, _ = await started(world)
        await world.power_off()
        events = await heard(stream, container, until="die")
        with pytest.raises(EngineError):
            await world.engine.start(container)
        return await seen(world, container), await seen(world, world.session.container), events

    vm, node, events = world.run(scenario())

    assert not vm.running
    assert not node.running
    assert events[-1].exit_code == 137


def test_node_that_is_held_off_is_marked(world: World) -> None:
    async def scenario() -> tuple[frozenset[str], frozenset[str]]:
        before = await world.engine.holds(world.rig)
        await world.hold()
        return before, await world.engine.holds(world.rig)

    assert world.run(scenario()) == (frozenset(), frozenset({"node1"}))


def test_command_inside_ends_with_its_status(world: World) -> None:
    async def scenario() -> list[int | None]:
        container, _ = await started(world)
        return [await status_inside(world, container, command) for command in ("true", "false")]

    assert world.run(scenario()) == [0, 1]


def test_command_that_has_not_ended_has_no_status(world: World) -> None:
    async def scenario() -> int | None:
        container, _ = await started(world)
        begun = await world.engine.begin_inside(container, ("sleep", "20"))
        return await world.engine.ended_inside(begun)

    assert world.run(scenario()) is None


def test_command_inside_goes_with_its_vm(world: World) -> None:
    async def scenario() -> int | str | None:
        container, _ = await started(world)
        begun = await world.engine.begin_inside(container, ("sleep", "20"))
        await world.engine.kill(container)
        try:
            return await status_of(world, begun)
        except NoSuchContainer:
            return "gone"

    assert world.run(scenario()) in (137, "gone")


def test_command_in_a_vm_that_does_not_run_is_refused(world: World) -> None:
    async def scenario() -> str:
        container = await prepared(world)
        with pytest.raises(EngineError) as refused:
            await world.engine.begin_inside(container, ("true",))
        return type(refused.value).__name__

    assert world.run(scenario()) == "EngineError"


def test_command_in_a_container_that_is_not_there_says_so(world: World) -> None:
    async def scenario() -> None:
        with pytest.raises(NoSuchContainer):
            await world.engine.begin_inside(NOBODY, ("true",))

    world.run(scenario())


async def status_inside(world: World, container: str, command: str) -> int | None:
    return await status_of(world, await world.engine.begin_inside(container, (command,)))


async def status_of(world: World, begun: str) -> int | None:
    """Looked for until it is there; other calls of the engine let the time pass in both worlds."""
    for _ in range(500):
        status = await world.engine.ended_inside(begun)
        if status is not None:
            return status
        await world.engine.inspect(NOBODY)
    raise AssertionError(f"{begun} has not ended")


def test_a_start_that_comes_too_late_is_not_sent(world: World) -> None:
    async def scenario() -> Container:
        container = await prepared(world)
        with pytest.raises(EngineError, match="its time has passed"):
            await world.engine.start(container, not_after_us=0)
        return await seen(world, container)

    found = world.run(scenario())

    assert not found.running
    assert not found.started
