"""Schedules that once broke the cluster: what the search has found in the core, made small, and mended since."""

from pathlib import Path

import pytest

from chaos.search.hunt import broken_by, play
from chaos.search.schedule_file import read_schedule

FILES = sorted((Path(__file__).parent / "found").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_was_found_is_mended(path: Path) -> None:
    assert broken_by(play(read_schedule(path.read_text(encoding="utf-8"), name=str(path)))) == ()
