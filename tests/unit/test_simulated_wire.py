"""The simulated sockets of a node with frames on the way: what is sent arrives as it does on the live sockets, errors
too, and a frame that is not whole is never taken for a message.
"""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from harness.cluster_service.core.messages import PingProgram, ProgramAnswered, WatchedProgram
from harness.errors import EngineError, EngineTooLate, EngineUnanswered, NoSuchContainer
from harness.live.framed_socket import serve_frames
from harness.live.runtime import AsyncioRuntime
from harness.live.vmms import VmmsServer
from harness.live.vmms_client import VmmsClient
from harness.model.host_messages import CallReason, EntryPoint, HostReport, HostRequest
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import SECOND_US, ResourceSpec
from harness.model.vm import Ending, Order, Proof, VmNotice, VmSpec, VmState, VmView
from harness.ports import Hypervisor, OrderRefused, Runtime
from harness.simulation.kernel.fifo_channel import Frames
from harness.simulation.kernel.runtime import SimulatedRuntime, SimulatedTask, VirtualClock
from harness.simulation.twins.vmms_link import VmmsLink, VmmsProcess
from harness.simulation.world.composition import Composition
from harness.vmms.notifications import Notifications, Subscription
from harness.vmms.remote import CALLS
from harness.vmms.vmms import Vmms
from harness.wire import FrameError

SESSION = Session("node1", "abc123", "2024-01-01T00:00:00.5Z")
SPEC = VmSpec(name="web1", group="web", image="guest", address="10.87.0.100", user=10_001, environment={"A": "b"})
VIEW = VmView(name="web1", group="web", state=VmState.STOPPED, run="r1", exit_code=3, ending=Ending.CRASHED)
ORDER = Order(session=SESSION, epoch=3, not_after_us=9)
NOTICE = VmNotice(view=VIEW, live=True, at_us=2)
REQUEST = HostRequest(
    number=4,
    entry_point=EntryPoint.OPEN,
    resource="web1",
    group="web",
    session=SESSION,
    epoch=3,
    not_after_us=9,
    why=CallReason.FAILOVER,
    spec=ResourceSpec(name="web1", type="virtual-machine", depends_on=(("ip1", "ip2"),), properties={"image": "guest"}),
)
REPORT = HostReport(
    sequence=7, resource="web1", group="web", epoch=3, state=ResourceState.FAILED, at_us=5, ending=Ending.KILLED
)
SAID = [
    REQUEST,
    REPORT,
    *(kind(program) for kind in (PingProgram, ProgramAnswered) for program in WatchedProgram),
]

EVERY_CALL: dict[str, tuple[Callable[[Hypervisor], Any], Any]] = {
    "alive": (lambda vmms: vmms.alive(), None),
    "identity": (lambda vmms: vmms.identity(), SESSION),
    "clear_earlier_sessions": (lambda vmms: vmms.clear_earlier_sessions(), 2),
    "prepare": (lambda vmms: vmms.prepare(SPEC, epoch=3, adopt=True), VIEW),
    "start": (lambda vmms: vmms.start("web1", order=ORDER), VIEW),
    "shut_down": (lambda vmms: vmms.shut_down("web1", grace_us=8), Proof.STOPPED),
    "terminate": (lambda vmms: vmms.terminate("web1"), Proof.REMOVED),
    "close": (lambda vmms: vmms.close("web1", epoch=3), Proof.REMOVED),
    "view": (lambda vmms: vmms.view("web1"), VIEW),
    "vms": (lambda vmms: vmms.vms(), [VIEW, VIEW]),
    "run_inside": (lambda vmms: vmms.run_inside("web1", ("true", "-v"), limit_us=8), None),
    "fence": (lambda vmms: vmms.fence(SESSION, not_after_us=9), None),
    "power_on": (lambda vmms: vmms.power_on("node2"), False),
}
"""A call of the port, and a result."""

ERRORS = (EngineError, EngineUnanswered, EngineTooLate, NoSuchContainer, OrderRefused)


class FakeVmms:
    """Notes what it is asked and answers with `outcome`, or raises it."""

    def __init__(self, runtime: Runtime, outcome: Any = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._outcome = outcome
        self._notices = Notifications(runtime)

    def __getattr__(self, call: str) -> Callable[..., Any]:
        async def answer(*positional: Any, **named: Any) -> Any:
            self.asked.append((call, dict(zip(CALLS[call], positional, strict=False)) | named))
            if isinstance(self._outcome, Exception):
                raise self._outcome
            return self._outcome

        return answer

    def notices(self) -> Subscription:
        return self._notices.subscribe([NOTICE])


class Node:
    """VMMS's process and one caller of it, with or without frames on the way."""

    def __init__(self, *, outcome: Any = None, frames: Frames | None = None) -> None:
        self.clock = VirtualClock()
        self.process = VmmsProcess()
        self.runtime = SimulatedRuntime(self.clock, on_error=_fail)
        self.vmms = FakeVmms(self.runtime, outcome)
        self.process.started(self.runtime, cast(Vmms, self.vmms))
        self.caller = SimulatedRuntime(self.clock, on_error=_fail)
        self.link = Composition(frames=frames).vmms_link(self.clock, self.process, self.caller)

    def ends(self, call: Any, *, within_us: int = 10_000) -> list[Any]:
        """How the call ended: with a result or an error, and how many callbacks that took; empty while it goes on."""
        ended: list[Any] = []

        async def run() -> None:
            try:
                ended.append(await call)
            except Exception as error:  # noqa: BLE001 - how it ended is what is asked for
                ended.append(error)
            ended.append(self.clock.scheduled)

        self.caller.spawn(run(), name="call of the test")
        self.clock.run_until(self.clock.now_us + within_us)
        return ended


def _fail(task: SimulatedTask, error: Exception) -> None:
    raise AssertionError(f"{task.name}: {error!r}")


class Cut(Frames):
    """The last byte of every frame is lost."""

    def encode(self, message: dict[str, Any]) -> bytes:
        return super().encode(message)[:-1]


class Twice(Frames):
    """Every frame arrives twice."""

    def encode(self, message: dict[str, Any]) -> bytes:
        return super().encode(message) * 2


class Forgets(Frames):
    """One field of the records that travel is lost."""

    def __init__(self, field: str) -> None:
        self._field = field

    def encode(self, message: dict[str, Any]) -> bytes:
        for record in message.values():
            if isinstance(record, dict):
                record.pop(self._field, None)
        return super().encode(message)


# Service, resource host and watch.


@pytest.mark.parametrize("said", SAID, ids=str)
def test_what_service_and_host_say_is_read_from_a_frame_as_it_was_said(said: object) -> None:
    heard: list[object] = []

    arrive = Composition(frames=Frames()).carry(heard.append, said)
    assert heard == []
    arrive()

    assert heard == [said]


@pytest.mark.parametrize("record", [REQUEST, REPORT], ids=str)
def test_record_that_arrives_is_another_one(record: object) -> None:
    heard: list[object] = []

    Frames().carry(heard.append, record)()

    assert heard[0] is not record


def test_without_frames_a_message_costs_nothing() -> None:
    node = Node()

    assert Composition().carry is partial
    assert type(node.link) is VmmsLink


@pytest.mark.parametrize("frames", [Cut(), Twice()])
@pytest.mark.parametrize("said", SAID, ids=str)
def test_frame_that_is_not_one_message_is_an_error(frames: Frames, said: object) -> None:
    arrive = frames.carry(lambda _: None, said)

    with pytest.raises(FrameError, match=r"^(0|2) messages in a frame of \d+ bytes$"):
        arrive()


@pytest.mark.parametrize(("said", "field"), [(REQUEST, "epoch"), (REPORT, "sequence")])
def test_record_that_lacks_a_field_is_an_error(said: object, field: str) -> None:
    arrive = Forgets(field).carry(lambda _: None, said)

    with pytest.raises(ValueError, match=field):
        arrive()


# VMMS and its callers.


@pytest.mark.parametrize("call", CALLS)
def test_calls_and_results_arrive_as_they_were_sent(call: str) -> None:
    ask, result = EVERY_CALL[call]
    plain, framed = (Node(outcome=result, frames=frames) for frames in (None, Frames()))

    ended = framed.ends(ask(framed.link))

    assert ended == plain.ends(ask(plain.link))
    assert ended[0] == result
    assert framed.vmms.asked == plain.vmms.asked


@pytest.mark.parametrize("frames", [None, Frames()])
def test_caller_waits_no_longer_than_on_a_node_for_a_vmms_that_hangs_and_does_it_later(frames: Frames | None) -> None:
    node = Node(outcome=VIEW, frames=frames)
    node.runtime.hold()

    ended = node.ends(node.link.view("web1"), within_us=2 * SECOND_US)
    assert not node.vmms.asked
    node.runtime.release()
    node.clock.run_until(node.clock.now_us + 10_000)

    assert isinstance(ended[0], EngineUnanswered)
    assert str(ended[0]) == "view: VMMS has not answered within 1 s"
    assert node.vmms.asked == [("view", {"vm": "web1"})]


async def live_error(error: Exception, path: Path) -> Exception:
    """How it arrives over the live socket."""
    me = frozenset({os.getuid()})
    runtime = AsyncioRuntime(on_failure=lambda task, failure: pytest.fail(f"{task}: {failure!r}"))
    vmms = VmmsServer(cast(Vmms, FakeVmms(runtime, error)), runtime)
    server = await serve_frames(path, vmms.connected, users=me, group=os.getgid())
    try:
        async with asyncio.timeout(5), VmmsClient(path=path, users=me) as client:
            await client.terminate("web1")
    except (EngineError, OrderRefused) as arrived:
        return arrived
    finally:
        server.close()
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_arrive_as_over_the_live_socket(kind: type[Exception], tmp_path: Path) -> None:
    node = Node(outcome=kind("end of web1"), frames=Frames())

    arrived, _ = node.ends(node.link.terminate("web1"))

    live = asyncio.run(live_error(kind("end of web1"), tmp_path / "s"))
    assert (type(arrived), str(arrived)) == (type(live), str(live))
    assert type(arrived) is (EngineError if kind is EngineTooLate else kind)


def test_notices_arrive_as_they_were_told_until_vmms_is_gone() -> None:
    node = Node(frames=Frames())
    notices = node.link.notices()

    first = node.ends(anext(notices))[0]
    waiting = anext(notices)
    node.clock.after(100, node.process.ended)
    second = node.ends(waiting)[0]

    assert (first, first is NOTICE) == (NOTICE, False)
    assert isinstance(second, EngineUnanswered)


def test_call_under_way_when_vmms_is_lost_is_unanswered() -> None:
    node = Node(outcome=VIEW, frames=Frames())
    node.clock.after(200, node.process.ended)

    ended = node.ends(node.link.view("web1"))

    assert isinstance(ended[0], EngineUnanswered)
    assert node.vmms.asked == [("view", {"vm": "web1"})]


def test_answer_without_a_field_is_no_answer() -> None:
    node = Node(outcome=VIEW, frames=Forgets("state"))

    arrived, _ = node.ends(node.link.view("web1"))

    assert isinstance(arrived, EngineUnanswered)
    assert "view: VMMS answered something else than was asked for" in str(arrived)


def test_call_without_an_argument_is_refused() -> None:
    node = Node(outcome=VIEW, frames=Forgets("epoch"))

    arrived, _ = node.ends(node.link.close("web1", epoch=3))

    assert type(arrived) is EngineError
    assert str(arrived).startswith("arguments of close: expected vm, epoch")
    assert node.vmms.asked == []


def test_answer_that_is_larger_than_a_frame_is_refused() -> None:
    node = Node(outcome=[VIEW] * 10_000, frames=Frames())

    arrived, _ = node.ends(node.link.vms())

    assert type(arrived) is EngineError
    assert str(arrived).startswith("the answer is too large: message of")
