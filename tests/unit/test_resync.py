"""When managers that decide by all of their facts look at them: at once where it may matter, else now and then."""

import pytest

from harness.cluster_service.core.resync import RESYNC_ACTIVE_US, RESYNC_IDLE_US, ResyncTimer


@pytest.fixture
def look() -> ResyncTimer:
    made = ResyncTimer()
    made.done(0, may_act=True, acted=True, wake_us=50)
    return made


def test_the_first_look_is_due() -> None:
    assert ResyncTimer().due(0, may_act=False, routine=True)


def test_routine_waits_for_the_next_time_of_a_manager(look: ResyncTimer) -> None:
    assert look.wake_us == 50
    look.done(60, may_act=True, acted=True, wake_us=100_000)

    assert not look.due(99_999, may_act=True, routine=True)
    assert look.due(100_000, may_act=True, routine=True)


@pytest.mark.parametrize(("acted", "pause_us"), [(True, RESYNC_ACTIVE_US), (False, RESYNC_IDLE_US)])
def test_routine_waits_no_longer_than_the_pause_between_looks(look: ResyncTimer, acted: bool, pause_us: int) -> None:
    look.done(0, may_act=True, acted=acted, wake_us=None)

    assert look.wake_us is None
    assert not look.due(pause_us - 1, may_act=True, routine=True)
    assert look.due(pause_us, may_act=True, routine=True)


def test_what_is_no_routine_is_looked_at_at_once(look: ResyncTimer) -> None:
    assert look.due(1, may_act=True, routine=False)


def test_the_right_to_act_that_begins_or_ends_is_looked_at_at_once(look: ResyncTimer) -> None:
    assert look.due(1, may_act=False, routine=True)


def test_a_manager_that_has_looked_alone_brings_the_next_look_forward_and_never_puts_it_off(look: ResyncTimer) -> None:
    look.done(0, may_act=True, acted=False, wake_us=RESYNC_IDLE_US - 1)
    look.also(100, acted=True, wake_us=RESYNC_IDLE_US + 1)

    assert look.wake_us == RESYNC_IDLE_US - 1
    assert look.due(100 + RESYNC_ACTIVE_US, may_act=True, routine=True)

    look.also(200, acted=False, wake_us=300)

    assert look.due(300, may_act=True, routine=True)
