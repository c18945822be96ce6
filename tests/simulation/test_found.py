"""Schedules that once broke the cluster: what the search has found in the core, made small, and mended since."""

from pathlib import Path

import pytest

from chaos.search.schedule_file import read_schedule
from chaos.search.search import broken_by, play
from harness.simulation.world.composition import Composition

FILES = sorted((Path(__file__).parent / "found").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_was_found_is_mended(path: Path) -> None:
    assert broken_by(play(read_schedule(path.read_text(encoding="utf-8"), name=str(path)))) == ()


class _TakesEverybody(Composition):
    voters_admit_all = True


def test_an_empty_voter_passes_for_another_where_no_access_list_names_it() -> None:
    path = Path(__file__).parent / "found" / "an-empty-voter-taken-for-another.yaml"
    schedule = read_schedule(path.read_text(encoding="utf-8"), name=str(path))

    assert "is not a member" in broken_by(play(schedule, _TakesEverybody))[0]


def test_a_session_has_time_to_be_heard_of_before_it_is_declared_down() -> None:
    path = Path(__file__).parent / "found" / "a-newcomer-taken-for-lost.yaml"
    schedule = read_schedule(path.read_text(encoding="utf-8"), name=str(path))

    trace = play(schedule).world.trace

    joined = {line.fields["session"]: line.at_us for line in trace if line.event == "node-joined"}
    down = [line for line in trace if line.event == "node-declared-down"]
    assert down
    assert all(line.at_us - joined[line.fields["session"]] >= 2_000_000 for line in down)
