"""A runner's lease as its reaper sees it: every message renews it, silence ends it, and nothing brings it back."""

import json

import pytest

from chaos.reaper.lease import Lease


def message(**content: object) -> bytes:
    return json.dumps(content).encode()


def test_lease_lapses_after_its_length_of_silence() -> None:
    lease = Lease(length_s=10, now=100)

    assert not lease.lapsed(109.9)
    assert lease.lapsed(110)


def test_message_renews_the_lease() -> None:
    lease = Lease(length_s=10, now=100)

    lease.take(message(), now=109)

    assert lease.left_s(110) == 9
    assert not lease.lapsed(118.9)
    assert lease.lapsed(119)


def test_lapsed_lease_refuses_every_message() -> None:
    """The reaper may have healed faults meanwhile: a runner that was frozen must learn it and keep nothing more."""
    lease = Lease(length_s=10, now=100)
    assert lease.lapsed(111)

    reply = lease.take(message(keep="a line", number=1), now=111)

    assert reply.answer == {"lapsed": True}
    assert reply.keep == ""
    assert lease.lapsed(0)


def test_late_message_finds_the_lease_lapsed_before_any_look() -> None:
    lease = Lease(length_s=10, now=100)

    assert lease.take(message(), now=130).answer == {"lapsed": True}


def test_line_to_keep_is_answered_with_its_number() -> None:
    reply = Lease(length_s=10, now=0).take(message(keep="a line", number=7), now=1)

    assert (reply.keep, reply.answer) == ("a line", {"kept": 7})


def test_hand_over_ends_the_lease_at_once() -> None:
    lease = Lease(length_s=10, now=0)

    assert lease.take(message(hand_over=True), now=1).answer == {"handed_over": True}
    assert lease.left_s(1) == 0


@pytest.mark.parametrize("raw", [b"", b"no JSON", b"[]", b"\xff", b"[" * 100_000])
def test_unreadable_message_renews_nothing(raw: bytes) -> None:
    lease = Lease(length_s=10, now=0)

    reply = lease.take(raw, now=9)

    assert reply.answer is not None
    assert "error" in reply.answer
    assert lease.lapsed(10)
