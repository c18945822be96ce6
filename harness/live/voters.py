"""The way to the voters over Redis: one connection each, no retries, an answer or a failure for every call within
its limit.

A cancelled or timed-out call closes its connection: an answer that comes late must never be taken for the answer to
the next call (safety review, finding 11). Nothing is tried twice: a blind second try would run under another ballot's
assumptions.
"""

import asyncio
from collections.abc import Mapping

from harness.database.protocol import Call, Reply
from harness.database.script import arguments_of, reply_from, script_text
from harness.live.redis_connection import RedisConnection, RedisRefusal, open_redis

__all__ = ["VOTER_PORT", "RedisVoters", "VoterUnanswered"]

VOTER_PORT = 637


class VoterUnanswered(Exception):
    """No answer: what was asked for may have happened, or may still happen."""


class RedisVoters:
    """The voters by name. Safe for any number of concurrent calls; calls to one voter wait for each other."""

    def __init__(self, addresses: Mapping[str, str], *, password: str, port: int = VOTER_PORT) -> None:
        script = script_text()
        self._voters = {
            name: _Voter(name, address, port, password=password, script=script)
            for name, address in addresses.items()
        }

    async def call(self, voter: str, call: Call, *, limit_us: int) -> tuple[Reply, int]:
        """The reply and the number of the connection that it came over. Raises VoterUnanswered."""
        return await self._voters[voter].call(call, limit_us / 1e6)

    async def close(self) -> None:
        """Close every connection."""
        for voter in self._voters.values():
            voter.disconnect()


class _Voter:
    def __init__(self, name: str, host: str, port: int, *, password: str, script: str) -> None:
        self._name = name
        self._host = host
        self._port = port
        self._password = password
        self._script = script
        self._sha = ""
        self._number = 0
        self._turn = asyncio.Lock()
        self._connection: RedisConnection | None = None

    async def call(self, call: Call, limit_s: float) -> tuple[Reply, int]:
        try:
            async with asyncio.timeout(limit_s):
                async with self._turn:
                    return await self._exchange(call)
        except (RedisRefusal, OSError, TimeoutError, ValueError, IndexError) as error:
            raise VoterUnanswered(f"voter {self._name}: {error or type(error).__name__}") from error

    async def _exchange(self, call: Call) -> tuple[Reply, int]:
        answered = False
        try:
            if self._connection is None or not self._connection.is_open:
                self._connection = await self._connect()
            raw = await self._connection.command("EVALSHA", self._sha, "0", *arguments_of(call))
            if not isinstance(raw, list):
                raise ValueError(f"answered {raw!r}")
            reply = reply_from(call, raw)
            answered = True
            return reply, self._number
        finally:
            if not answered:
                self.disconnect()

    async def _connect(self) -> RedisConnection:
        connection = await open_redis(self._host, self._port)
        try:
            if self._password:
                await connection.command("AUTH", self._password)
            self._sha = str(await connection.command("SCRIPT", "LOAD", self._script))
        except BaseException:
            connection.close()
            raise
        self._number += 1
        return connection

    def disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
