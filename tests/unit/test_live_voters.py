"""The way to the voters: no round of the database delays or breaks a renewal."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from harness.database.protocol import Address, Beat, BeatAnswer, Read
from harness.live.voters import RedisVoters, VoterUnanswered

TO = Address(rig="r", voter="node1", incarnation="life-1", set_version=1)
BEAT = Beat(to=TO, session="node1@a/1", since=0, seen=0, interest="-")
ROUND = Read(to=TO, key="group/web", seen=0)
ANSWERED = ["beat", "r", "node1", "life-1", "1", "node1@a/1", "7", "0", "", "5"]


class StuckVoter:
    """A server that answers renewals, and no round at all. `connections` counts those that were made to it."""

    def __init__(self) -> None:
        self.connections = 0
        self.holds_a_round = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while words := await _command(reader):
            if words[0] != "EVALSHA":
                writer.write(b"+OK\r\n")
            elif "beat" in words:
                flat = "".join(f"${len(word)}\r\n{word}\r\n" for word in ANSWERED)
                writer.write(f"*{len(ANSWERED) + 2}\r\n{flat}*0\r\n*0\r\n".encode())
            else:
                self.holds_a_round.set()
        writer.close()


async def _command(reader: asyncio.StreamReader) -> list[str]:
    head = await reader.readline()
    if not head:
        return []
    words = []
    for _ in range(int(head[1:])):
        length = int((await reader.readline())[1:])
        words.append((await reader.readexactly(length + 2))[:-2].decode())
    return words


def with_voter(trial: Callable[[RedisVoters, StuckVoter], Awaitable[None]]) -> None:
    async def run() -> None:
        voter = StuckVoter()
        server = await asyncio.start_server(voter.serve, "127.0.0.1", 0)
        voters = RedisVoters({"node1": "127.0.0.1"}, password="", port=server.sockets[0].getsockname()[1])
        try:
            await trial(voters, voter)
        finally:
            await voters.close()
            server.close()
            await asyncio.sleep(0.01)  # the loop closes the sockets in its next turns

    asyncio.run(run())


def test_renewal_waits_behind_no_round() -> None:
    async def trial(voters: RedisVoters, voter: StuckVoter) -> None:
        rounds = [asyncio.ensure_future(voters.call("node1", ROUND, limit_us=5_000_000)) for _ in range(30)]
        await voter.holds_a_round.wait()

        reply, _ = await voters.call("node1", BEAT, limit_us=1_000_000)

        assert isinstance(reply, BeatAnswer)
        assert not any(task.done() for task in rounds)
        for task in rounds:
            task.cancel()
        await asyncio.gather(*rounds, return_exceptions=True)

    with_voter(trial)


def test_round_that_runs_into_its_limit_breaks_no_renewal() -> None:
    """A witness counts only while its connection is unbroken, so a broken one would blind the node for a lease."""

    async def trial(voters: RedisVoters, voter: StuckVoter) -> None:
        _, before = await voters.call("node1", BEAT, limit_us=1_000_000)
        for _ in range(3):
            with pytest.raises(VoterUnanswered):
                await voters.call("node1", ROUND, limit_us=20_000)

        _, after = await voters.call("node1", BEAT, limit_us=1_000_000)

        assert before == after
        assert voter.connections == 4, "one for renewals, and a new one for each round after one that failed"

    with_voter(trial)
