"""Forming a cluster while its voters are slow: asked again where that is harmless, else told with the reason."""

import asyncio
import socket

import pytest

from harness.database.acceptor import Acceptor
from harness.database.protocol import Address, Call, Form, Reply
from harness.live.form_cluster import FORM_ATTEMPTS, ProvisionError, form_voter
from harness.live.voters import RedisVoters, VoterUnanswered


def form(incarnation: str = "life-1") -> Form:
    to = Address(rig="r", voter="node1", incarnation=incarnation, set_version=1)
    return Form(to=to, members={"node1": incarnation})


class SlowVoter:
    """Carries every call out, and its answer to the first ones comes too late."""

    def __init__(self, late: int) -> None:
        self.acceptor = Acceptor()
        self.late = late
        self.calls = 0

    async def call(self, voter: str, call: Call, *, limit_us: int) -> tuple[Reply, int]:
        self.calls += 1
        reply = self.acceptor.handle(call, clock_us=0)
        if self.calls <= self.late:
            raise VoterUnanswered(f"voter {voter}: no answer within {limit_us} us")
        return reply, 1


def test_a_voter_whose_answer_came_too_late_is_asked_again_and_formed_once() -> None:
    voter = SlowVoter(late=3)

    asyncio.run(form_voter(voter, "node1", form()))

    assert voter.acceptor.incarnation == "life-1"
    assert voter.calls == 4


def test_a_voter_that_never_answers_ends_the_forming() -> None:
    voter = SlowVoter(late=FORM_ATTEMPTS)

    with pytest.raises(VoterUnanswered, match="voter node1: no answer"):
        asyncio.run(form_voter(voter, "node1", form()))

    assert voter.calls == FORM_ATTEMPTS


def test_a_voter_that_somebody_else_has_formed_is_told() -> None:
    voter = SlowVoter(late=0)
    voter.acceptor.handle(form("another-life"), clock_us=0)

    with pytest.raises(ProvisionError, match="voter node1 answered"):
        asyncio.run(form_voter(voter, "node1", form()))


def test_silence_of_a_voter_is_told_in_words() -> None:
    async def ask(port: int) -> None:
        voters = RedisVoters({"node1": "127.0.0.1"}, password="secret", port=port)
        try:
            await voters.call("node1", form(), limit_us=50_000)
        finally:
            await voters.close()
            await asyncio.sleep(0)  # the loop closes the socket in its next turn

    # Nobody takes the connection up: the kernel makes it, and no answer ever comes.
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(VoterUnanswered, match="voter node1: no answer in time"),
    ):
        asyncio.run(ask(silent.getsockname()[1]))
