"""When the managers that decide by all of their facts look at them: at once where it may matter, else now and then."""

import pytest

from harness.cluster_service.look import LOOK_US, REST_US, Look
from harness.cluster_service.messages import Event, HostConnected, RegisterNoticed, Settled, Tick, VoterFailed
from harness.database.proposer import Result
from harness.database.protocol import Ballot

ROUTINE: tuple[Event, ...] = (
    Tick(),
    VoterFailed(number=1, voter="v"),
    RegisterNoticed(key="group/web", ballot=Ballot(1, "p")),
)


@pytest.fixture
def look() -> Look:
    made = Look()
    made.done(0, may_act=True, acted=True, wake_us=50)
    return made


def test_the_first_look_is_due() -> None:
    assert Look().due(0, Tick(), may_act=False)


@pytest.mark.parametrize("event", ROUTINE)
def test_routine_waits_for_the_next_time_of_a_manager(look: Look, event: Event) -> None:
    assert look.wake_us == 50
    look.done(60, may_act=True, acted=True, wake_us=100_000)

    assert not look.due(99_999, event, may_act=True)
    assert look.due(100_000, event, may_act=True)


@pytest.mark.parametrize(("acted", "pause_us"), [(True, LOOK_US), (False, REST_US)])
def test_routine_waits_no_longer_than_the_pause_between_looks(look: Look, acted: bool, pause_us: int) -> None:
    look.done(0, may_act=True, acted=acted, wake_us=None)

    assert look.wake_us is None
    assert not look.due(pause_us - 1, Tick(), may_act=True)
    assert look.due(pause_us, Tick(), may_act=True)


@pytest.mark.parametrize("event", [HostConnected(), Settled(id=1, key="cluster", result=Result.DONE, reason="")])
def test_a_fact_that_may_concern_them_is_looked_at_at_once(look: Look, event: Event) -> None:
    assert look.due(1, event, may_act=True)


def test_the_right_to_act_that_begins_or_ends_is_looked_at_at_once(look: Look) -> None:
    assert look.due(1, Tick(), may_act=False)
