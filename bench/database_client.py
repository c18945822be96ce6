"""A client of the cluster database, run inside a node: changes one register through the live proposer and times it.

It is piped into `python3 -I -` in a node's container as the service's user, so that no image has to hold it:

    latency ROUNDS CALLS    in turn, so many of each: a fsynced SET on the nearest voter, changes in one and two trips
    write SECONDS           changes without a pause; then every gap between two acknowledged ones that counts

The register is that of a group that nobody starts or changes. Times are microseconds of CLOCK_BOOTTIME, which all
containers of a VM share. Prints one JSON object a line.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from redis.asyncio.connection import Connection

from harness.database.proposer import PHASE_LIMIT_US, Proposer, Result, Send, Settlement
from harness.database.protocol import Hello, HelloAnswer, VoterSet
from harness.database.register import JsonCodec
from harness.live.node_environment import NodeEnvironment, read_environment
from harness.live.runtime import boot_time_us
from harness.live.voters import RedisVoters, VoterUnanswered, voter_connection
from harness.model.changes import Record, Refusal
from harness.model.records import GroupRecord

KEY = "group/ledger"
PASSWORD_FILE = Path("/run/secrets/voter-password")
LIMIT_US = 4_000_000
GAPS_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """Writes a number where no manager looks as long as the group stays where it is."""

    number: int

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused when the rig has no such group."""
        if not isinstance(record, GroupRecord):
            return Refusal(f"there is no register {KEY}")
        return replace(record, failovers=(self.number,))


class Client:
    """One proposer and its way to the voters, driven as the cluster service drives it: a task for each call, each
    answer handled when it comes.
    """

    def __init__(self, voters: RedisVoters, voter_set: VoterSet, rig: str) -> None:
        self.rounds = 0
        self._voters = voters
        self._numbers = itertools.count(1)
        self._proposer = Proposer(
            identity=f"bench.{os.urandom(8).hex()}",
            rig=rig,
            voter_set=voter_set,
            codec=JsonCodec(),
            jitter=random.SystemRandom().random,
            numbers=lambda: next(self._numbers),
        )
        self._calls: set[asyncio.Task[None]] = set()
        self._wake: asyncio.TimerHandle | None = None
        self._settled: asyncio.Future[Settlement] | None = None

    async def read(self) -> Settlement:
        """A linearizable read."""
        return await self._run(lambda: self._proposer.read(boot_time_us(), operation=0, key=KEY, limit_us=LIMIT_US))

    async def change(self, number: int) -> Settlement:
        """One change; `rounds` is then how many round trips it took."""
        change = Touch(number=number)
        return await self._run(
            lambda: self._proposer.change(
                boot_time_us(), operation=number, key=KEY, change=change, limit_us=LIMIT_US
            )
        )

    async def drain(self) -> None:
        """Wait until no call is under way: what comes next shall not pay for the slowest voter of what was before."""
        while self._calls:
            await asyncio.wait(self._calls)

    async def _run(self, begin: Any) -> Settlement:
        self.rounds = 0
        self._settled = asyncio.get_running_loop().create_future()
        begin()
        self._pump()
        return await self._settled

    def _pump(self) -> None:
        sends, self._proposer.sends = self._proposer.sends, []
        if sends:
            self.rounds += 1
        for send in sends:
            self._spawn(self._call(send))
        if self._wake is not None:
            self._wake.cancel()
        wake = self._proposer.next_wake()
        if wake is not None:
            delay = max(wake - boot_time_us(), 1_000) / 1e6
            self._wake = asyncio.get_running_loop().call_later(delay, self._tick)
        if self._proposer.settlements and self._settled is not None:
            self._settled.set_result(self._proposer.settlements.pop(0))

    def _tick(self) -> None:
        self._proposer.tick(boot_time_us())
        self._pump()

    def _spawn(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _call(self, send: Send) -> None:
        try:
            reply, _ = await self._voters.call(send.voter, send.call, limit_us=PHASE_LIMIT_US)
        except VoterUnanswered:
            self._proposer.failed(boot_time_us(), send.number, send.voter)
        else:
            self._proposer.answered(boot_time_us(), send.number, reply)
        self._pump()


async def latency(node: NodeEnvironment, password: str, rounds: int, calls: int) -> None:
    """Prints, for each round, the times of SET, of one and of two round trips, and how many changes took more."""
    voters = RedisVoters(node.voters, password=password)
    voter_set = await _voter_set(voters, node)
    found = await Client(voters, voter_set, node.rig).read()
    if found.stored is None:
        raise SystemExit(f"there is no register {KEY}")
    value = JsonCodec().encode(found.stored)
    nearest = voter_connection(node.node, node.voters[node.node], password=password)
    await nearest.connect()  # type: ignore[no-untyped-call]
    numbers = itertools.count(1)
    for _ in range(rounds):
        sets = [await _timed(_command(nearest, "SET", "bench", value)) for _ in range(calls)]
        times: dict[int, list[int]] = {1: [], 2: []}
        others = 0
        for wanted in (1, 2):
            client = Client(voters, voter_set, node.rig)
            for call in range(calls + 1):
                if wanted == 2 or call == 0:
                    # A proposer that takes a register over: it has read it, and needs a promise first.
                    client = Client(voters, voter_set, node.rig)
                    await client.read()
                    await client.drain()
                taken = await _timed(_changed(client, next(numbers)))
                await client.drain()
                if client.rounds == wanted:
                    times[wanted].append(taken)
                elif call > 0:
                    others += 1
        told = {"set_us": sets, "one_us": times[1], "two_us": times[2], "others": others, "bytes": len(value)}
        print(json.dumps(told), flush=True)
    await _command(nearest, "DEL", "bench")
    await nearest.disconnect()


async def write(node: NodeEnvironment, password: str, seconds: float) -> None:
    """Prints {"writing": true} once it writes, and at the end the longest gaps: when each began, how long it was."""
    voters = RedisVoters(node.voters, password=password)
    client = Client(voters, await _voter_set(voters, node), node.rig)
    await _changed(client, 0)
    print(json.dumps({"writing": True}), flush=True)
    last = begun = boot_time_us()
    gaps = []
    for number in itertools.count(1):
        await _changed(client, number)
        now = boot_time_us()
        gaps.append((now - last, last, client.rounds))
        last = now
        if now - begun >= seconds * 1e6:
            break
    longest = sorted(gaps, reverse=True)[:GAPS_TOLD]
    told = [{"gap_us": gap, "began_us": at - begun, "round_trips": trips} for gap, at, trips in longest]
    print(json.dumps({"changes": len(gaps), "gaps": told}))


async def _changed(client: Client, number: int) -> str:
    settlement = await client.change(number)
    if settlement.result not in (Result.DONE, Result.UNKNOWN):
        raise SystemExit(f"change {number} ended {settlement.result}: {settlement.reason}")
    return str(settlement.result)


async def _timed(work: Coroutine[Any, Any, object]) -> int:
    begun = boot_time_us()
    await work
    return boot_time_us() - begun


async def _voter_set(voters: RedisVoters, node: NodeEnvironment) -> VoterSet:
    for name in node.voters:
        with contextlib.suppress(VoterUnanswered):
            reply, _ = await voters.call(name, Hello(rig=node.rig, voter=name), limit_us=PHASE_LIMIT_US)
            if isinstance(reply, HelloAnswer) and reply.voter_set is not None:
                return reply.voter_set
    raise SystemExit("no voter answers")


async def _command(connection: Connection, *words: str) -> Any:
    await connection.send_command(*words)
    return await connection.read_response()


def main(arguments: list[str]) -> None:
    """Do what the first argument says."""
    node, password = read_environment(os.environ), PASSWORD_FILE.read_text().strip()
    if arguments[0] == "latency":
        asyncio.run(latency(node, password, int(arguments[1]), int(arguments[2])))
    else:
        asyncio.run(write(node, password, float(arguments[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
