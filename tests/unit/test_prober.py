"""What the resource host sees at an address of its node: a port, a path, VMs that answer badly or not at all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from harness.live.reach import NodeReach
from harness.model.workload import Endpoint

LIMIT_US = 500_000
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def vm(serve: Serve) -> AsyncIterator[int]:
    """Its port."""
    serving: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served = asyncio.current_task()
        assert served is not None
        serving.add(served)
        try:
            await serve(reader, writer)
        except OSError:
            pass  # the other side has gone
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)  # until the transports have closed


def says(text: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()

    return serve


async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del writer
    await reader.read()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


def ask(serve: Serve, path: str = "/health") -> str:
    async def scenario() -> str:
        async with vm(serve) as port:
            return await NodeReach().ask("127.0.0.1", Endpoint(port=port, path=path), limit_us=LIMIT_US)

    return asyncio.run(scenario())


@pytest.mark.parametrize("status", [200, 204, 302])
def test_good_status_is_a_good_answer(status: int) -> None:
    assert ask(says(f"HTTP/1.1 {status} Whatever\r\n\r\n".encode())) == ""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"HTTP/1.1 503 Busy\r\n\r\n", "answered 503"),
        (b"SSH-2.0-OpenSSH\r\n", "no HTTP"),
        (b"HTTP/1.1 abc\r\n", "no HTTP"),
        (b"\n", "no HTTP"),
        (b"", "0 bytes read"),
    ],
)
def test_anything_else_is_told(said: bytes, told: str) -> None:
    assert told in ask(says(said))


def test_connection_is_enough_for_a_port() -> None:
    assert ask(nothing, path="") == ""


def test_vm_that_says_nothing_is_given_up() -> None:
    assert "did not answer within 0.5 s" in ask(nothing)


def test_vm_that_never_stops_talking_is_cut_short() -> None:
    assert "limit" in ask(endless)


def test_closed_port_is_told() -> None:
    async def scenario() -> str:
        async with vm(nothing) as port:
            pass
        return await NodeReach().ask("127.0.0.1", Endpoint(port=port), limit_us=LIMIT_US)

    assert "refused" in asyncio.run(scenario()).lower()
