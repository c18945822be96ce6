"""Own leases and other nodes' leases, as a node reckons them."""

from harness.cluster_service.membership.lease import LeaseView
from harness.database.protocol import NO_BALLOT, Address, BeatAnswer, LeaseSeen, VoterSet

LEASE = 2_000_000
BEAT = 500_000
VOTERS = ("v1", "v2", "v3")
CLOCK = 1_700_000_000_000_000
"""What every voter's clock shows, and nobody else's."""


def view() -> LeaseView:
    return LeaseView(voter_set=VoterSet(version=1, members=dict.fromkeys(VOTERS, "i")), lease_us=LEASE)


def answer(voter: str, **peers: tuple[int, int]) -> BeatAnswer:
    return BeatAnswer(
        of=Address(rig="r", voter=voter, incarnation="i", set_version=1),
        session="me",
        revision=0,
        cluster=NO_BALLOT,
        clock_us=CLOCK,
        leases=tuple(
            LeaseSeen(session=name, renewals=renewals, at_us=CLOCK - age) for name, (renewals, age) in peers.items()
        ),
        changed=(),
    )


def beat(leases: LeaseView, now: int, voters: tuple[str, ...] = VOTERS, **peers: tuple[int, int]) -> None:
    for voter in voters:
        leases.answered(now, voter, now, 1, answer(voter, **peers), True)


def test_the_lease_counts_from_the_send_time_that_a_majority_has_acknowledged() -> None:
    leases = view()
    leases.answered(150, "v1", 100, 1, answer("v1"), True)
    assert leases.end_us is None

    leases.answered(290, "v2", 200, 1, answer("v2"), True)

    assert leases.end_us == 100 + LEASE


def test_a_renewal_that_does_not_count_does_not_move_the_end() -> None:
    leases = view()
    beat(leases, 0)

    for voter in VOTERS:
        leases.answered(BEAT, voter, BEAT, 1, answer(voter), False)

    assert leases.end_us == LEASE


def test_a_silent_peer_expires_a_whole_lease_after_its_last_renewal() -> None:
    leases = view()
    for step in range(9):
        beat(leases, step * BEAT, peer=(step if step < 5 else 4, 0 if step < 5 else (step - 4) * BEAT))

    assert leases.expired(8 * BEAT, "peer")
    assert leases.expires_us("peer") == 4 * BEAT + LEASE


def test_a_peer_that_renews_is_not_expired_whatever_the_voters_clock_says() -> None:
    leases = view()
    for step in range(12):
        # The voter's clock jumped by an hour: the age is held between two polls of this node.
        beat(leases, step * BEAT, peer=(step, 3_600_000_000))

    assert not leases.expired(11 * BEAT, "peer")


def test_nobody_is_judged_after_a_common_stall_until_a_whole_lease_has_passed() -> None:
    leases = view()
    for step in range(6):
        beat(leases, step * BEAT, peer=(step, 0))
    for voter in VOTERS:
        leases.failed(voter)
    wake = 6 * BEAT + 5 * LEASE

    beat(leases, wake, peer=(5, 5 * LEASE))

    assert not leases.expired(wake, "peer")


def test_a_voter_that_was_restarted_is_no_witness_for_a_whole_lease() -> None:
    leases = view()
    for step in range(9):
        beat(leases, step * BEAT, voters=("v1",), peer=(4, step * BEAT))
        for voter in ("v2", "v3"):
            leases.answered(step * BEAT, voter, step * BEAT, step, answer(voter, peer=(4, step * BEAT)), True)

    assert not leases.expired(8 * BEAT, "peer")


def test_only_who_has_held_its_own_lease_for_a_whole_lease_may_judge() -> None:
    leases = view()
    beat(leases, 0)
    early = leases.may_judge(BEAT)
    for step in range(1, 5):
        beat(leases, step * BEAT)

    assert not early
    assert leases.may_judge(4 * BEAT)


def test_the_lease_of_an_older_set_runs_to_its_end_and_is_not_mixed_with_the_new_one() -> None:
    leases = view()
    beat(leases, 0)
    newer = VoterSet(version=2, members={"v1": "i", "v2": "i", "v4": "i"})

    after = LeaseView(voter_set=newer, lease_us=LEASE, before=leases)
    after.answered(BEAT, "v1", BEAT, 1, answer("v1"), True)
    mixed = after.end_us
    after.answered(BEAT, "v4", BEAT, 1, answer("v4"), True)

    assert mixed == LEASE
    assert after.end_us == BEAT + LEASE


def test_a_change_of_the_set_makes_nobody_blind_for_others() -> None:
    leases = view()
    for step in range(6):
        beat(leases, step * BEAT, peer=(min(step, 2), max(0, step - 2) * BEAT))

    after = LeaseView(
        voter_set=VoterSet(version=2, members={"v1": "i", "v2": "i"}), lease_us=LEASE, before=leases
    )
    for step in range(6, 9):
        beat(after, step * BEAT, voters=("v1", "v2"), peer=(2, (step - 2) * BEAT))

    assert after.expired(8 * BEAT, "peer")


def test_a_first_renewal_that_brings_the_end_nearer_is_told() -> None:
    leases = view()
    beat(leases, 0, peer=(5, 200_000))
    never_seen_to_renew, before = leases.expires_us("peer"), leases.breaks

    beat(leases, 500_000, peer=(6, 100_000))

    assert leases.expires_us("peer") < never_seen_to_renew  # type: ignore[operator]
    assert leases.breaks > before


def test_a_session_that_has_just_become_known_gets_its_time_to_be_heard_of() -> None:
    leases = view()
    for step in range(20):
        beat(leases, step * BEAT, old=(step, 0))
    joined = 19 * BEAT

    assert leases.expired(joined, "never announced")
    leases.expect(joined, ["old", "new"])

    assert not leases.expired(joined + 1, "new")
    expires = leases.expires_us("new")
    assert expires == joined + 3 * LEASE
    for step in range(20, 33):
        beat(leases, step * BEAT, old=(step, 0))
        assert leases.expired(step * BEAT, "new") == (step * BEAT >= expires)
    leases.expect(32 * BEAT, ["old", "new"])
    assert leases.expired(32 * BEAT, "new")
