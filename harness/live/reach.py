"""The `Reach` port on this node's network: a connection of its own for each question.

The answer of a VM is not trusted: no more of it is read than its first line needs, and nothing of it but the
status is believed.
"""

import asyncio
import os

from harness.model.workload import Endpoint

__all__ = ["NodeReach"]

MAX_STATUS_LINE = 1024
GOOD = range(200, 400)


class NodeReach:
    """Asks from the node's own network namespace, where its VMs' addresses are."""

    async def ask(self, address: str, endpoint: Endpoint, *, limit_us: int) -> str:
        """Empty when it answers well within `limit_us` microseconds, else what was seen instead."""
        where = f"{address}:{endpoint.port}{endpoint.path}"
        try:
            async with asyncio.timeout(limit_us / 1e6):
                return await self._ask(address, endpoint)
        except TimeoutError:
            return f"{where} did not answer within {limit_us / 1e6:g} s"
        except OSError as error:
            return f"{where}: {os.strerror(error.errno) if error.errno else error}"
        except (asyncio.LimitOverrunError, asyncio.IncompleteReadError) as error:
            return f"{where}: {error}"

    @staticmethod
    async def _ask(address: str, endpoint: Endpoint) -> str:
        reader, writer = await asyncio.open_connection(address, endpoint.port, limit=MAX_STATUS_LINE)
        try:
            if not endpoint.path:
                return ""
            head = f"GET {endpoint.path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            line = (await reader.readuntil(b"\n")).split()
            status = int(line[1]) if len(line) > 1 and line[0].startswith(b"HTTP/") and line[1].isdigit() else 0
            if status in GOOD:
                return ""
            return f"{endpoint.path} answered {status or 'something that is no HTTP'}"
        finally:
            writer.close()
