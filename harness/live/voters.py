"""The way to the voters over Redis: two connections each, no retries, an answer or a failure for every call within
its limit.

One connection is for renewals of the lease alone. Calls to a voter are sent one after the other, so on a connection of
all calls a renewal would wait behind the rounds of a storm of claims, and a round that runs into its limit, which
closes the connection, would take the renewals with it: the lease would lapse for want of neither voters nor network.

A cancelled or timed-out call closes its connection: an answer that comes late must never be taken for the answer to
the next call (safety review, finding 11). The client library's own retries are off: a blind second try would run
under another ballot's assumptions.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import hiredis
import redis.asyncio.connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from harness.database.lua_codec import arguments_of, reply_from, script_text
from harness.database.protocol import Beat, Call, Reply

__all__ = ["VOTER_PORT", "RedisVoters", "VoterUnanswered", "voter_connection"]

VOTER_PORT = 637


class VoterUnanswered(Exception):
    """No answer: what was asked for may have happened, or may still happen."""


def voter_connection(
    voter: str, host: str, *, port: int = VOTER_PORT, password: str
) -> redis.asyncio.connection.Connection:
    """A connection, not yet made, without any of the library's own retries. Another voter at that address refuses it:
    each knows only the user of its own name.
    """
    return redis.asyncio.connection.Connection(
        host=host,
        port=port,
        username=voter if password else None,
        password=password,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        socket_keepalive=True,
        health_check_interval=0,
        # The library's own limits would cost a task for each call: every call has one here, and so has a connect.
        socket_timeout=None,
        socket_connect_timeout=None,
    )


class RedisVoters:
    """The voters by name. Safe for any number of concurrent calls; calls to one voter wait for each other, renewals for
    renewals only.
    """

    def __init__(self, addresses: Mapping[str, str], *, password: str, port: int = VOTER_PORT) -> None:
        script = script_text()

        def voters() -> dict[str, _Voter]:
            return {
                name: _Voter(name, address, port, password=password, script=script)
                for name, address in addresses.items()
            }

        self._for_renewals = voters()
        self._for_rounds = voters()

    async def call(self, voter: str, call: Call, *, limit_us: int) -> tuple[Reply, int]:
        """The reply and the number of the connection that it came over, among those for calls of its kind. Raises
        VoterUnanswered.
        """
        voters = self._for_renewals if isinstance(call, Beat) else self._for_rounds
        return await voters[voter].call(call, limit_us / 1e6)

    async def close(self) -> None:
        """Close every connection."""
        for voter in (*self._for_renewals.values(), *self._for_rounds.values()):
            await voter.disconnect()


class _Voter:
    def __init__(self, name: str, host: str, port: int, *, password: str, script: str) -> None:
        self._name = name
        self._script = script
        self._sha = ""
        self._number = 0
        self._turn = asyncio.Lock()
        self._connection = voter_connection(name, host, port=port, password=password)

    async def call(self, call: Call, limit_s: float) -> tuple[Reply, int]:
        try:
            async with asyncio.timeout(limit_s):
                async with self._turn:
                    return await self._exchange(call)
        except (RedisError, OSError, TimeoutError, ValueError, IndexError, EOFError) as error:
            raise VoterUnanswered(f"voter {self._name}: {str(error) or 'no answer in time'}") from error

    async def _exchange(self, call: Call) -> tuple[Reply, int]:
        answered = False
        try:
            if not self._connection.is_connected:
                await self._connect()
            words: tuple[Any, ...] = ("EVALSHA", self._sha, 0, *arguments_of(call))
            packed = hiredis.pack_command(words)
            await self._connection.send_packed_command(packed, check_health=False)
            raw = await self._connection.read_response()
            answered = True
            if not isinstance(raw, list):
                raise ValueError(f"answered {raw!r}")
            return reply_from(call, raw), self._number
        finally:
            if not answered:
                await self.disconnect()

    async def _connect(self) -> None:
        await self._connection.connect()  # type: ignore[no-untyped-call]
        self._number += 1
        await self._connection.send_command("SCRIPT", "LOAD", self._script)
        self._sha = str(await self._connection.read_response())

    async def disconnect(self) -> None:
        await self._connection.disconnect(nowait=True)
