"""The ledger: durable before the fault, open until healed, readable from its lines alone."""

import asyncio
import json

import pytest

from chaos.reaper.ledger import Ledger, OpenFault, read_open
from harness.errors import HarnessError


class Kept:
    """Lines that were made durable, or a disk that takes none any more."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.broken = False

    async def keep(self, line: str) -> None:
        if self.broken:
            raise HarnessError("the disk is full")
        self.lines.append(line)

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


def intend(book: Ledger, target: str, undo: str = "node.power-on") -> OpenFault:
    return asyncio.run(book.intend(fault="node.power-off", target=target, undo=undo, at_ns=1, deadline_ns=900))


def test_intended_fault_is_durable_with_cure_and_deadline() -> None:
    kept = Kept()
    entry = intend(Ledger(rig="test", keep=kept.keep), "node1")

    assert read_open(kept.text) == [entry]
    assert (entry.rig, entry.undo, entry.deadline_ns) == ("test", "node.power-on", 900)


def test_healed_fault_is_closed_and_others_stay_open() -> None:
    kept = Kept()
    book = Ledger(rig="test", keep=kept.keep)
    first, second, third = (intend(book, name) for name in ("node1", "node2", "node3"))

    asyncio.run(book.heal(second, at_ns=3, how="by node.power-on"))

    assert book.open_faults() == [third, first], "newest first"
    assert read_open(kept.text) == [third, first]


def test_fault_that_cannot_be_recorded_is_refused_and_not_open() -> None:
    kept = Kept()
    book = Ledger(rig="test", keep=kept.keep)
    kept.broken = True

    with pytest.raises(HarnessError, match="the disk is full"):
        intend(book, "node1")

    assert book.open_faults() == []


def test_healing_counts_although_its_line_is_lost() -> None:
    kept = Kept()
    book = Ledger(rig="test", keep=kept.keep)
    entry = intend(book, "node1")
    kept.broken = True

    asyncio.run(book.heal(entry, at_ns=2, how="seen"))

    assert book.open_faults() == []
    assert read_open(kept.text) == [entry], "a repair looks at it once more"


def test_ledger_of_an_earlier_run_is_taken_over() -> None:
    kept = Kept()
    entry = intend(Ledger(rig="test", keep=kept.keep), "node1")

    book = Ledger(rig="test", keep=kept.keep, opened=read_open(kept.text))

    assert book.open_faults() == [entry]
    assert intend(book, "node2").number == entry.number + 1


@pytest.mark.parametrize(
    "torn",
    [
        '{"entry": "intended", "numb',
        '{"entry": "intended", "number": 7}',
        '{"entry": "intended", "number": [], "rig": "", "fault": "", "target": "", "undo": "", "deadline_ns": 1}',
        '{"entry": "healed", "number": []}',
        "[]",
        "\x00\x00",
        "[" * 100_000,
    ],
)
def test_torn_line_is_a_fault_that_was_never_injected(torn: str) -> None:
    kept = Kept()
    entry = intend(Ledger(rig="test", keep=kept.keep), "node1")

    assert read_open(f"{kept.text}{torn}") == [entry]


def test_a_ledger_line_is_one_json_object() -> None:
    kept = Kept()
    intend(Ledger(rig="test", keep=kept.keep), "node\n1")

    (line,) = kept.lines
    assert "\n" not in line
    assert json.loads(line)["target"] == "node\n1"
