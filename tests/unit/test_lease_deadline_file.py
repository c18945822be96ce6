"""The note that one service leaves for the next."""

from pathlib import Path

from harness.live.lease_deadline_file import LeaseNote
from harness.model.session import Session

HERE = Session("node1", "c0ffee", "1")


def test_the_next_service_of_the_session_reads_the_last_deadline(tmp_path: Path) -> None:
    note = LeaseNote(tmp_path / "note")
    note.write(HERE, 12_345_678_901)
    note.write(HERE, 9)

    assert LeaseNote(tmp_path / "note").read(HERE) == 9


def test_another_session_reads_nothing(tmp_path: Path) -> None:
    LeaseNote(tmp_path / "note").write(HERE, 9)

    assert LeaseNote(tmp_path / "note").read(Session("node1", "c0ffee", "2")) == 0


def test_without_a_note_or_with_a_broken_one_nothing_is_known(tmp_path: Path) -> None:
    assert LeaseNote(tmp_path / "none").read(HERE) == 0
    (tmp_path / "broken").write_text(f"{HERE} soon")

    assert LeaseNote(tmp_path / "broken").read(HERE) == 0


def test_a_place_that_cannot_be_written_is_no_trouble(tmp_path: Path) -> None:
    LeaseNote(tmp_path / "missing" / "note").write(HERE, 9)

    assert LeaseNote(tmp_path / "missing" / "note").read(HERE) == 0
