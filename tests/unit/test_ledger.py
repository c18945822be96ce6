"""The ledger: on the disk before the fault, open until healed, readable by whoever repairs."""

from pathlib import Path

import pytest

from chaos.ledger import Ledger, OpenFault, read_open
from harness.errors import HarnessError


def ledger(directory: Path) -> Ledger:
    return Ledger(directory / "deep" / "ledger.jsonl", rig="test")


def intend(book: Ledger, target: str, undo: str = "node.power-on") -> OpenFault:
    return book.intend(fault="node.power-off", target=target, undo=undo, at_ns=1, deadline_ns=900)


def test_a_fault_is_on_the_disk_before_it_is_injected(tmp_path: Path) -> None:
    book = ledger(tmp_path)

    entry = intend(book, "node1")

    assert read_open(book.path) == [entry]
    assert (entry.rig, entry.undo, entry.deadline_ns) == ("test", "node.power-on", 900)


def test_what_was_healed_is_not_open_and_what_was_noted_is(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    first, second, third = (intend(book, name) for name in ("node1", "node2", "node3"))

    book.note(third, at_ns=2, what="injected")
    book.heal(second, at_ns=3, how="by node.power-on")

    assert [entry.target for entry in book.open_faults()] == ["node3", "node1"], "newest first"
    assert read_open(book.path) == [third, first]


def test_a_torn_last_line_is_a_fault_that_never_was(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    entry = intend(book, "node1")
    with book.path.open("ab") as file:
        file.write(b'{"entry": "intended", "numb')

    assert read_open(book.path) == [entry]


def test_a_ledger_without_open_faults_goes_when_the_run_ends(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    book.heal(intend(book, "node1"), at_ns=2, how="it was on already")

    book.close(rig_gone=False)

    assert not book.path.exists()


@pytest.mark.parametrize(("rig_gone", "stays"), [(True, False), (False, True)])
def test_an_open_fault_keeps_the_ledger_while_its_rig_stands(tmp_path: Path, rig_gone: bool, stays: bool) -> None:
    book = ledger(tmp_path)
    intend(book, "node1")

    book.close(rig_gone=rig_gone)

    assert book.path.exists() is stays


def test_where_nothing_can_be_written_no_fault_may_be_injected(tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("a file where the directory should be")

    with pytest.raises(HarnessError, match="without it no fault is injected"):
        ledger(tmp_path)
