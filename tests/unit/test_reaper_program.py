"""The reaper's program: it keeps before it answers; once its runner is gone it heals, removes, tries again."""

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from chaos.reaper.ledger import OpenFault
from chaos.reaper.ledger_file import LedgerFile
from chaos.reaper.orders import Orders
from chaos.repair.reaper_program import GIVE_UP_S, Reaping, serve
from harness.errors import CleanupError, HarnessError

START_NS = 1_000 * 10**9


def intended(number: int, *, deadline_s: float = 0) -> str:
    entry = {
        "entry": "intended",
        "number": number,
        "rig": "test",
        "fault": "node.isolate",
        "target": f"node{number}",
        "undo": "node.join-network",
        "deadline_ns": START_NS + int(deadline_s * 1e9),
    }
    return json.dumps(entry)


def healed(number: int) -> str:
    return json.dumps({"entry": "healed", "number": number})


class World:
    """A rig on virtual time, whose faults and objects may withstand."""

    def __init__(self, directory: Path, *lines: str, keep_rig: bool = False) -> None:
        self.book = LedgerFile(directory / "ledger.jsonl")
        for line in lines:
            self.book.keep(line)
        self.orders = Orders(rig="test", keep_rig=keep_rig, lease_s=1, grace_s=20)
        self.elapsed_s = 0.0
        self.done: list[str] = []
        self.cures_failing = 0
        self.removals_failing = 0

    def run(self) -> None:
        Reaping(
            self.orders,
            self.book,
            cure=self._cure,
            remove=self._remove,
            now=lambda: self.elapsed_s,
            unix_ns=lambda: START_NS + int(self.elapsed_s * 1e9),
            sleep=self._sleep,
        ).run()

    def _cure(self, faults: Sequence[OpenFault], keep: Callable[[str], None]) -> list[str]:
        if self.cures_failing:
            self.cures_failing -= 1
            raise HarnessError("the engine does not answer")
        for fault in faults:
            self.done.append(f"{self.elapsed_s:g} s: healed {fault.target}")
            keep(healed(fault.number))
        return []

    def _remove(self) -> None:
        if self.removals_failing:
            self.removals_failing -= 1
            raise CleanupError("a network is in use")
        self.done.append(f"{self.elapsed_s:g} s: removed")

    def _sleep(self, seconds: float) -> None:
        self.elapsed_s += max(seconds, 0.001)


def test_faults_are_healed_at_once_and_the_rig_removed_after_the_grace(tmp_path: Path) -> None:
    world = World(tmp_path, intended(1), intended(2), healed(1))

    world.run()

    assert world.done == ["0 s: healed node2", "20 s: removed"]


def test_fault_with_a_duration_is_healed_at_its_deadline(tmp_path: Path) -> None:
    world = World(tmp_path, intended(1, deadline_s=5), intended(2), keep_rig=True)

    world.run()

    assert world.done == ["0 s: healed node2", "5 s: healed node1"]


def test_kept_rig_is_left_standing_without_faults(tmp_path: Path) -> None:
    world = World(tmp_path, intended(1), keep_rig=True)

    world.run()

    assert world.done == ["0 s: healed node1"]


def test_cure_that_fails_is_tried_again_with_longer_pauses(tmp_path: Path) -> None:
    world = World(tmp_path, intended(1), keep_rig=True)
    world.cures_failing = 3

    world.run()

    assert world.done == ["7 s: healed node1"], "after 1, 2 and 4 seconds"


def test_removal_that_fails_is_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.removals_failing = 2

    world.run()

    assert world.done == ["23 s: removed"], "after 1 and 2 seconds"


def test_rig_is_removed_although_its_faults_withstand(tmp_path: Path) -> None:
    world = World(tmp_path, intended(1))
    world.cures_failing = 10**9

    world.run()

    assert world.done == ["20 s: removed"], "a fault cannot outlive its rig"


def test_reaper_gives_up_after_its_limit_and_names_the_repair(tmp_path: Path) -> None:
    world = World(tmp_path, intended(1), keep_rig=True)
    world.cures_failing = 10**9

    with pytest.raises(HarnessError, match=r"node\.isolate on node1.*blackstart repair --name test"):
        world.run()

    assert GIVE_UP_S <= world.elapsed_s < GIVE_UP_S + 61


class Served:
    """A reaper that serves a runner over two pipes."""

    def __init__(self, directory: Path, *, lease_s: float = 60) -> None:
        self.book = LedgerFile(directory / "ledger.jsonl")
        source, self._to = os.pipe()
        self._from, sink = os.pipe()
        orders = Orders(rig="test", keep_rig=False, lease_s=lease_s, grace_s=0)
        self.thread = threading.Thread(target=serve, args=(orders, self.book), kwargs={"source": source, "sink": sink})
        self.thread.start()

    def send(self, data: bytes) -> None:
        os.write(self._to, data)

    def answers(self) -> list[object]:
        return [json.loads(line) for line in os.read(self._from, 65536).decode().split("\n") if line]

    def hang_up(self) -> None:
        os.close(self._to)

    def wait_end(self) -> None:
        self.thread.join(timeout=10)
        assert not self.thread.is_alive()


def test_line_is_kept_before_it_is_answered(tmp_path: Path) -> None:
    served = Served(tmp_path)
    line = intended(1)

    served.send(json.dumps({"keep": line, "number": 4}).encode() + b"\n")

    assert served.answers() == [{"kept": 4}]
    assert [fault.target for fault in served.book.open_faults()] == ["node1"]
    served.send(b'{"hand_over": true}\n')
    served.wait_end()


def test_line_in_two_parts_is_one_line(tmp_path: Path) -> None:
    served = Served(tmp_path)
    whole = json.dumps({"keep": intended(1), "number": 4}).encode() + b"\n"

    served.send(whole[:30])
    served.send(whole[30:])

    assert served.answers() == [{"kept": 4}]
    served.send(b'{"hand_over": true}\n')
    served.wait_end()


def test_runner_that_hangs_up_is_waited_for_until_its_lease_ends(tmp_path: Path) -> None:
    """A call of the engine that it sent last may still be carried out."""
    began = time.monotonic()
    served = Served(tmp_path, lease_s=0.5)

    served.hang_up()
    served.wait_end()

    assert time.monotonic() - began >= 0.5


def test_ledger_survives_a_restart_of_the_reaper(tmp_path: Path) -> None:
    first = LedgerFile(tmp_path / "ledger.jsonl")
    first.keep(intended(1))
    first.close()

    assert [fault.target for fault in LedgerFile(tmp_path / "ledger.jsonl").open_faults()] == ["node1"]


def test_line_that_a_full_disk_refuses_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    served.send(json.dumps({"keep": intended(1), "number": 4}).encode() + b"\n")

    (answer,) = served.answers()
    assert isinstance(answer, dict)
    assert "No space left" in answer["error"]
    served.send(b'{"hand_over": true}\n')
    served.wait_end()
