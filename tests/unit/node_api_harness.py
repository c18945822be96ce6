"""The node API's server on a real loopback socket, in front of a fake cluster service, and clients that send bytes."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

from harness.live.node_api import Limits, NodeApi, open_listener

__all__ = ["AUTHORIZED", "LIMIT_S", "SNAPSHOT", "TOKEN", "Bench", "answer", "serve"]

TOKEN = "correct-horse-battery-staple"
AUTHORIZED = f"Host: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
SNAPSHOT = {
    "rig": "mine",
    "node": "node1",
    "session": "node1@abc/1",
    "quorum": True,
    "nodes": [{"name": "node1", "state": "Up"}],
    "groups": [{"name": "web", "owner": "node1", "resources": [{"name": "web-vm", "state": "Online"}]}],
}
LIMIT_S = 10.0
DEFAULT = Limits()


def answer(code: str = "done", message: str = "so be it", **result: Any) -> SimpleNamespace:
    return SimpleNamespace(code=code, message=message, result=result)


class FakeService:
    """Answers what it is told to answer, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answer: Any = answer()
        self.snapshot_now: Mapping[str, Any] | None = SNAPSHOT
        self.gate = asyncio.Event()
        self.gate.set()

    def snapshot(self) -> Mapping[str, Any] | None:
        return self.snapshot_now

    async def request(self, call: str, arguments: Mapping[str, str | bool]) -> Any:
        self.asked.append((call, dict(arguments)))
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Reply:
    """One answer as the client read it."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.json: Any = json.loads(body) if body else None


class Client:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode("latin-1") if isinstance(text, str) else text)

    async def reply(self, *, without_body: bool = False) -> Reply:
        async with asyncio.timeout(LIMIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = 0 if without_body else int(headers["content-length"])
            return Reply(int(first.split()[1]), headers, await self.reader.readexactly(length))

    async def ended(self) -> bool:
        """Waits for the server to close the connection."""
        async with asyncio.timeout(LIMIT_S):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


class Bench:
    """A server that runs, and clients of it."""

    def __init__(self, limits: Limits) -> None:
        self.service = FakeService()
        self.said: list[tuple[str, str]] = []
        self.api = NodeApi(
            service=self.service,
            token=TOKEN,
            say=lambda event, message, **_fields: self.said.append((event, message)),
            limits=limits,
        )
        self.listener = open_listener("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.clients: list[Client] = []

    async def client(self) -> Client:
        made = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(made)
        return made

    async def ask(self, text: str | bytes) -> Reply:
        client = await self.client()
        client.send(text)
        return await client.reply()

    async def get(self, path: str) -> Reply:
        return await self.ask(f"GET {path} HTTP/1.1\r\n{AUTHORIZED}\r\n")

    async def post(self, path: str, body: str = "", *, headers: str = "Content-Type: application/json\r\n") -> Reply:
        return await self.ask(
            f"POST {path} HTTP/1.1\r\n{AUTHORIZED}{headers}Content-Length: {len(body)}\r\n\r\n{body}"
        )


def serve(scenario: Callable[[Bench], Awaitable[None]], limits: Limits = DEFAULT) -> None:
    async def run() -> None:
        bench = Bench(limits)
        server = asyncio.create_task(bench.api.serve(bench.listener))
        try:
            await scenario(bench)
        finally:
            server.cancel()
            for client in bench.clients:
                client.writer.close()
            bench.listener.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    asyncio.run(run())
