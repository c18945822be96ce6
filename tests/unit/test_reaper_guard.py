"""A run's side of its reaper, against the reaper's own program over a socket that frames as the engine does."""

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from chaos.reaper.guard import Guard
from chaos.reaper.ledger_file import LedgerFile
from chaos.reaper.orders import Orders, ReaperTimes
from chaos.repair.reaper_program import serve
from harness.errors import HarnessError
from harness.model import labels

LINE = '{"entry": "healed", "number": 1}'


class FakeEngine:
    """An engine with one container: the reaper's program on a thread."""

    def __init__(self, directory: Path) -> None:
        self.api = self
        self.book = LedgerFile(directory / "ledger.jsonl")
        self.calls: list[str] = []
        self.served = threading.Event()
        self.named: dict[str, str] = {}
        self._orders = Orders(rig="", keep_rig=False, lease_s=1, grace_s=0)
        self._ours, self._theirs = socket.socketpair()
        self._to, self._source = os.pipe()[::-1]
        self._from, self._sink = os.pipe()

    def info(self) -> dict[str, Any]:
        return {"SecurityOptions": []}

    def create_host_config(self, **options: Any) -> dict[str, Any]:
        return options

    def create_container(self, image: str, *, labels: dict[str, str], command: list[str], **_: Any) -> dict[str, str]:
        self.calls.append(f"create of {image}")
        self.named = labels
        self._orders = Orders.read(command[0])
        return {"Id": "reaper"}

    def put_archive(self, container: str, path: str, archive: bytes) -> None:
        self.calls.append(f"put into {container} at {path}: {len(archive) > 100_000}")

    def start(self, container: str) -> None:
        self.calls.append(f"start {container}")
        self._tasks = [threading.Thread(target=task, daemon=True) for task in (self._serve, self._take_in)]
        self._tasks.append(threading.Thread(target=self._hand_out, daemon=True))
        for task in self._tasks:
            task.start()

    def attach_socket(self, container: str, *, params: dict[str, int]) -> socket.socket:
        assert container == "reaper"
        assert params["stdin"] == params["stdout"] == 1
        return self._ours

    def inspect_container(self, container: str) -> dict[str, Any]:
        return {"Id": container, "Name": "/test-lock", "Config": {"Labels": self.named}, "Image": "image"}

    def inspect_image(self, image: str) -> dict[str, Any]:
        return {"Id": image, "Config": {"Labels": None}}

    def remove_container(self, container: str, **_: Any) -> None:
        self.calls.append(f"remove {container}")

    def cut_connection(self) -> None:
        with contextlib.suppress(OSError):  # the guard has ended it
            self._theirs.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut_connection()
        os.close(self._to)
        for task in self._tasks:
            task.join(timeout=0.5)
        self._theirs.close()
        self._ours.close()

    def _serve(self) -> None:
        serve(self._orders, self.book, source=self._source, sink=self._sink)
        self.served.set()

    def _take_in(self) -> None:
        with contextlib.suppress(OSError):  # the connection was cut
            while data := self._theirs.recv(4096):
                os.write(self._to, data)

    def _hand_out(self) -> None:
        while data := os.read(self._from, 4096):
            with contextlib.suppress(OSError):  # no runner is attached any more
                self._theirs.sendall(struct.pack(">BxxxL", 1, len(data)) + data)


def guarded(directory: Path, test: Callable[[Guard, FakeEngine], Awaitable[None]], *, lease_s: float = 30) -> None:
    """Runs a test with a guard that is attached to its reaper."""

    async def main() -> None:
        engine = FakeEngine(directory)
        times = ReaperTimes(lease_s=lease_s, grace_s=0)
        guard = Guard(engine, rig="test", command="a test", keep_rig=False, times=times)  # type: ignore[arg-type]
        guard.start(image="image")
        guard.attach()
        try:
            await test(guard, engine)
        finally:
            await asyncio.to_thread(guard.end)
            await asyncio.to_thread(engine.close)

    asyncio.run(main())


def test_guard_claims_the_lock_with_a_reaper_before_it_starts(tmp_path: Path) -> None:
    async def test(_: Guard, engine: FakeEngine) -> None:
        assert engine.calls == ["create of image", "put into reaper at /var/lib: True", "start reaper"]
        assert engine.named[labels.ROLE] == labels.Role.REAPER

    guarded(tmp_path, test)


def test_kept_line_is_on_the_reapers_disk_when_keep_returns(tmp_path: Path) -> None:
    async def test(guard: Guard, _: FakeEngine) -> None:
        await guard.keep(LINE)
        assert (tmp_path / "ledger.jsonl").read_text() == f"{LINE}\n"
        assert guard.lost == ""

    guarded(tmp_path, test)


def test_lines_kept_at_once_are_each_acknowledged(tmp_path: Path) -> None:
    async def test(guard: Guard, _: FakeEngine) -> None:
        await asyncio.gather(*(guard.keep(f"line {number}") for number in range(50)))
        assert len((tmp_path / "ledger.jsonl").read_text().split()) == 100

    guarded(tmp_path, test)


def test_line_that_the_reaper_cannot_keep_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(guard: Guard, _: FakeEngine) -> None:
        monkeypatch.setattr(os, "fsync", _full)
        with pytest.raises(HarnessError, match="No space left"):
            await guard.keep(LINE)

    guarded(tmp_path, test)


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_renewed_lease_outlasts_its_length(tmp_path: Path) -> None:
    async def test(guard: Guard, engine: FakeEngine) -> None:
        renewal = asyncio.create_task(guard.renew())
        assert not await asyncio.to_thread(engine.served.wait, 3)
        await guard.keep(LINE)
        renewal.cancel()

    guarded(tmp_path, test, lease_s=2)


def test_frozen_runner_learns_that_its_reaper_took_over(tmp_path: Path) -> None:
    """It renews nothing for longer than its lease, as a stopped process, and then goes on."""

    async def test(guard: Guard, engine: FakeEngine) -> None:
        assert await asyncio.to_thread(engine.served.wait, 5)
        assert "its reaper took rig test over" in await guard.confirm()
        with pytest.raises(HarnessError, match="took rig test over"):
            await guard.keep(LINE)

    guarded(tmp_path, test, lease_s=0.2)


def test_reaper_that_dies_lets_no_fault_be_injected(tmp_path: Path) -> None:
    async def test(guard: Guard, engine: FakeEngine) -> None:
        engine.cut_connection()
        with pytest.raises(HarnessError, match="does not guard this run any more"):
            await guard.keep(LINE)
        assert "does not guard this run any more" in await guard.confirm()

    guarded(tmp_path, test)


def test_healthy_reaper_confirms_the_lease(tmp_path: Path) -> None:
    async def test(guard: Guard, _: FakeEngine) -> None:
        assert await guard.confirm() == ""

    guarded(tmp_path, test)


def test_hand_over_ends_the_lease_and_leaves_the_reaper(tmp_path: Path) -> None:
    async def test(guard: Guard, engine: FakeEngine) -> None:
        await guard.hand_over()
        assert await asyncio.to_thread(engine.served.wait, 5)
        assert "remove reaper" not in engine.calls
        assert guard.lost == ""

    guarded(tmp_path, test)
