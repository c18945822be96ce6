"""The way from a node's processes to VMMS, over a real socket: calls, errors and notices arrive, and a lost VMMS is
never mistaken for an answer.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from harness.errors import EngineError, EngineUnanswered, NoSuchContainer
from harness.live.framed_socket import FramedConnection, connect_frames, serve_frames
from harness.live.runtime import AsyncioRuntime
from harness.live.vmms import VmmsServer
from harness.live.vmms_client import VmmsClient
from harness.model.session import Session
from harness.model.vm import Ending, Order, Proof, VmNotice, VmSpec, VmState, VmView
from harness.ports import OrderRefused
from harness.vmms.notifications import Notifications, Subscription
from harness.vmms.vmms import Vmms

ME = frozenset({os.getuid()})
SESSION = Session("node1", "abc123", "2024-01-01T00:00:00.5Z")
SPEC = VmSpec(name="web1", group="web", image="guest", address="10.87.0.100", user=10_001, environment={"A": "b"})
VIEW = VmView(name="web1", group="web", state=VmState.STOPPED, run="r1", exit_code=3, ending=Ending.CRASHED)
LIMIT_S = 5.0


class FakeVmms:
    """Remembers what it was asked; a VM's name says what becomes of the call."""

    def __init__(self, runtime: AsyncioRuntime) -> None:
        self.asked: list[Any] = []
        self.finished: list[str] = []
        self.held = runtime.pending()
        self.subscriptions = 0
        self._notices = Notifications(runtime)
        self._runtime = runtime

    async def identity(self) -> Session:
        return SESSION

    async def prepare(self, spec: VmSpec, *, epoch: int, adopt: bool) -> VmView:
        self.asked.append((spec, epoch, adopt))
        return VIEW

    async def start(self, vm: str, *, order: Order) -> VmView:
        self.asked.append((vm, order))
        errors = {"refused": OrderRefused, "gone": NoSuchContainer, "unanswered": EngineUnanswered, "bad": EngineError}
        raise errors[vm](f"start of {vm}")

    async def terminate(self, vm: str) -> Proof:
        await self.held
        self.finished.append(vm)
        return Proof.STOPPED

    async def vms(self) -> list[VmView]:
        return [VIEW]

    def notices(self) -> Subscription:
        self.subscriptions += 1
        return self._notices.subscribe([VmNotice(view=VIEW, live=False, at_us=1)])

    def drop_notices(self, subscription: Subscription) -> None:
        self.subscriptions -= 1
        self._notices.unsubscribe(subscription)

    def publish(self) -> None:
        self._notices.publish(VmNotice(view=VIEW, live=True, at_us=2))


class Place:
    """Where VMMS listens; it can be lost and come back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runtime = AsyncioRuntime(on_failure=self._fail)
        self.vmms = FakeVmms(self.runtime)
        self._server: asyncio.Server | None = None
        self._connections: list[FramedConnection] = []

    @staticmethod
    def _fail(task: str, error: BaseException) -> None:
        raise AssertionError(f"{task}: {error!r}")

    async def open(self) -> None:
        serve = VmmsServer(cast(Vmms, self.vmms), self.runtime).connected

        async def connected(connection: FramedConnection) -> None:
            self._connections.append(connection)
            await serve(connection)

        self._server = await serve_frames(self.path, connected, users=ME, group=os.getgid())

    async def lose(self) -> None:
        """As when the process is killed."""
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.close()
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def place_at(path: Path) -> AsyncIterator[Place]:
    place = Place(path)
    await place.open()
    try:
        yield place
    finally:
        await place.lose()


def run(scenario: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(LIMIT_S):
            return await scenario

    return asyncio.run(limited())


def client_of(place: Place) -> VmmsClient:
    return VmmsClient(path=place.path, users=ME)


def test_records_arrive_as_they_were_sent(tmp_path: Path) -> None:
    async def scenario() -> tuple[Any, ...]:
        async with place_at(tmp_path / "s") as place, client_of(place) as client:
            view = await client.prepare(SPEC, epoch=7, adopt=True)
            return place.vmms.asked, view, await client.identity(), await client.vms()

    asked, view, session, vms = run(scenario())

    assert asked == [(SPEC, 7, True)]
    assert (view, session, vms) == (VIEW, SESSION, [VIEW])


@pytest.mark.parametrize(
    ("vm", "kind"),
    [("refused", OrderRefused), ("gone", NoSuchContainer), ("unanswered", EngineUnanswered), ("bad", EngineError)],
)
def test_errors_arrive_as_they_were_raised(tmp_path: Path, vm: str, kind: type[Exception]) -> None:
    async def scenario() -> None:
        async with place_at(tmp_path / "s") as place, client_of(place) as client:
            await client.start(vm, order=Order(session=SESSION, epoch=1, not_after_us=2))

    with pytest.raises(kind, match=f"^start of {vm}$") as error:
        run(scenario())
    assert error.type is kind


def test_call_under_way_when_vmms_is_lost_is_unanswered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with place_at(tmp_path / "s") as place, client_of(place) as client:
            call = asyncio.ensure_future(client.terminate("web1"))
            await client.identity()
            await place.lose()
            await call

    with pytest.raises(EngineUnanswered, match="terminate"):
        run(scenario())


def test_call_goes_on_when_its_caller_is_gone(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        async with place_at(tmp_path / "s") as place:
            async with client_of(place) as client:
                call = asyncio.ensure_future(client.terminate("web1"))
                await client.identity()
                call.cancel()
            place.vmms.held.set_result(None)
            while not place.vmms.finished:
                await asyncio.sleep(0.005)
            return place.vmms.finished

    assert run(scenario()) == ["web1"]


def test_client_finds_a_restarted_vmms_by_itself(tmp_path: Path) -> None:
    async def scenario() -> Session:
        async with place_at(tmp_path / "s") as place, client_of(place) as client:
            await client.identity()
            await place.lose()
            call = asyncio.ensure_future(client.identity())
            await asyncio.sleep(0.05)
            await place.open()
            return await call

    assert run(scenario()) == SESSION


def test_call_without_a_vmms_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.live.vmms_client.CONNECT_WAIT_S", 0.05)

    async def scenario() -> None:
        async with VmmsClient(path=tmp_path / "nobody", users=ME) as client:
            await client.identity()

    with pytest.raises(EngineUnanswered, match=r"identity: VMMS cannot be reached at .*nobody"):
        run(scenario())


def test_every_subscriber_hears_everything_and_the_loss_of_vmms(tmp_path: Path) -> None:
    async def scenario() -> tuple[list[list[bool]], list[str], int]:
        async with place_at(tmp_path / "s") as place, client_of(place) as client:
            streams = [client.notices() for _ in range(2)]
            first = [(await anext(stream)).live for stream in streams]
            place.vmms.publish()
            second = [(await anext(stream)).live for stream in streams]
            await place.lose()
            ends = []
            for stream in streams:
                try:
                    await anext(stream)
                except EngineUnanswered as error:
                    ends.append(str(error))
            return [first, second], ends, place.vmms.subscriptions

    heard, ends, subscriptions = run(scenario())

    assert heard == [[False, False], [True, True]]
    assert len(ends) == 2
    assert subscriptions == 0


def test_confused_message_is_refused_and_the_connection_lives_on(tmp_path: Path) -> None:
    async def scenario() -> list[Any]:
        async with place_at(tmp_path / "s") as place:
            connection = await connect_frames(place.path, users=ME)
            for message in (
                {"id": 1, "call": "no_such"},
                {"id": 2, "call": "prepare", "arguments": {"spec": 1}},
                {"id": 3, "call": "view", "arguments": None},
                {"id": 4, "call": "identity", "arguments": {}},
            ):
                connection.send(message)
            answers = [await anext(connection) for _ in range(4)]
            connection.close()
            return sorted(answers, key=lambda answer: int(answer["id"]))

    answers = run(scenario())

    assert ["error" in answer for answer in answers] == [True, True, True, False]


def test_client_does_not_load_the_engines_client() -> None:
    script = "import sys, harness.live.vmms_client; sys.exit('docker' in sys.modules or 'requests' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=30).returncode == 0
