"""Leases, as seen by one node: when its own ends, and which others have run out.

The own lease: each counted renewal is worth its send time; the end is the q-th newest of them plus the lease, q a
majority of the voter set. Counting from before the send and on the node's own boot-time clock makes it independent
of every voter's clock.

The others': each voter tells how long ago a session renewed, by its own clock. That clock may step, so the time is held
between the two polls of this node that it must lie between. Only voters that have answered this node without a break
for a whole lease are believed: after a common stall everybody looks expired to whoever wakes first (safety review,
finding 7).
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from harness.database.protocol import BeatAnswer
from harness.model.voter_set import VoterSet

__all__ = ["LeaseView"]


@dataclass(slots=True)
class _PeerAtVoter:
    renewals: int
    renewed_us: int


@dataclass(slots=True)
class _Voter:
    unbroken_since_us: int | None = None
    connection: int = -1
    counted_us: int | None = None
    polled_us: int = 0
    peers: dict[str, _PeerAtVoter] = field(default_factory=dict)


class LeaseView:
    """The leases of one voter set. Times in microseconds of the node's boot-time clock.

    A session that was never seen to renew, since this view was made and since it is known to be Up, gets two leases
    more: after a common cold start it is a node that still boots, and fencing it would only make it boot again.

    `before` is the view of the set before. A lease is counted over the set of the version that it was renewed under:
    its end stays, and renewals under two sets never make one together. What the voters that stay have told of others
    stays too.
    """

    def __init__(self, *, voter_set: VoterSet, lease_us: int, before: "LeaseView | None" = None) -> None:
        self.lease_us = lease_us
        self.breaks = 0
        """How often a lease may have come to end earlier: other witnesses, or a first renewal."""
        self._patience_us = 2 * lease_us
        self._majority = voter_set.majority
        self._lives = dict(voter_set.members)
        self._voters = {name: _Voter() for name in voter_set.members}
        self._expected_us: dict[str, int] = {}
        self._live_since_us: int | None = None
        self.end_us: int | None = None
        """When the own lease ends; None while a majority has not counted a renewal yet."""
        if before is not None:
            self._live_since_us, self.end_us = before._live_since_us, before.end_us
            self._expected_us = before._expected_us
            for name, incarnation in voter_set.members.items():
                if before._lives.get(name) == incarnation:
                    self._voters[name] = replace(before._voters[name], counted_us=None)

    def answered(self, now: int, voter: str, sent_us: int, connection: int, answer: BeatAnswer, counts: bool) -> None:
        """A voter answered the beat sent at `sent_us`. `counts` says whether it showed no newer cluster register."""
        seen = self._voters[voter]
        if seen.connection != connection or seen.unbroken_since_us is None:
            seen.connection = connection
            seen.unbroken_since_us = sent_us
            self.breaks += 1
        if counts and (seen.counted_us is None or sent_us > seen.counted_us):
            seen.counted_us = sent_us
            end = self._reckon_end()
            if end is not None and (self.end_us is None or end > self.end_us):
                self.end_us = end
                if self._live_since_us is None:
                    self._live_since_us = now
        self._see_peers(now, seen, answer)
        seen.polled_us = sent_us

    def _reckon_end(self) -> int | None:
        """The q-th newest counted send time, q a majority, and the lease after it."""
        counted = [voter.counted_us for voter in self._voters.values() if voter.counted_us is not None]
        counted.sort(reverse=True)
        return counted[self._majority - 1] + self.lease_us if len(counted) >= self._majority else None

    def _see_peers(self, now: int, seen: _Voter, answer: BeatAnswer) -> None:
        peers, leases = seen.peers, answer.leases
        polled_us, shift_us = seen.polled_us, now - answer.clock_us
        for session, renewals, at_us in leases:
            peer = peers.get(session)
            if peer is None:
                peers[session] = _PeerAtVoter(renewals, now + self._patience_us)
            elif peer.renewals != renewals:
                peer.renewals = renewals
                renewed_us = at_us + shift_us
                if renewed_us < polled_us:
                    renewed_us = polled_us
                if renewed_us > now:
                    renewed_us = now
                if renewed_us < peer.renewed_us:
                    self.breaks += 1  # what was never seen to renew had more time than what was
                peer.renewed_us = renewed_us
        if len(peers) > len(leases):
            listed = {lease.session for lease in leases}
            seen.peers = {session: peer for session, peer in peers.items() if session in listed}

    def failed(self, voter: str) -> None:
        """A voter did not answer a beat: what it says counts for nothing until it has answered for a whole lease
        again.
        """
        if voter in self._voters:
            self._voters[voter].unbroken_since_us = None
            self.breaks += 1

    def expect(self, now: int, sessions: Collection[str]) -> None:
        """These are the others that are Up; those that were not before begin to renew."""
        self._expected_us = {session: self._expected_us.get(session, now) for session in sessions}

    def _heard_us(self, voter: _Voter, session: str) -> int:
        """When a voter that is an unbroken witness saw that session renew last. One of which it never heard, since it
        is watched and since the session is known, counts from there, and gets its time to begin.
        """
        peer = voter.peers.get(session)
        if peer is not None:
            return peer.renewed_us
        assert voter.unbroken_since_us is not None
        return max(voter.unbroken_since_us, self._expected_us.get(session, 0)) + self._patience_us

    def may_judge(self, now: int) -> bool:
        """Whether this node may call others lost: its own lease is live and has been for a whole lease."""
        end = self.end_us
        return (
            end is not None
            and now < end
            and self._live_since_us is not None
            and now - self._live_since_us >= self.lease_us
        )

    def expired(self, now: int, session: str) -> bool:
        """Whether a majority of the set, all of them unbroken witnesses, has seen no renewal for a whole lease."""
        saying = 0
        for voter in self._voters.values():
            if voter.unbroken_since_us is None or now - voter.unbroken_since_us < self.lease_us:
                continue
            saying += voter.polled_us - self._heard_us(voter, session) >= self.lease_us
        return saying >= self._majority

    def expires_us(self, session: str) -> int | None:
        """When a poll could first show that session expired, if it never renews again. None without witnesses."""
        times = []
        for voter in self._voters.values():
            if voter.unbroken_since_us is None:
                continue
            times.append(max(self._heard_us(voter, session), voter.unbroken_since_us))
        if len(times) < self._majority:
            return None
        times.sort()
        return times[self._majority - 1] + self.lease_us
