"""Stands between a node and the engine and passes bytes on: a container of its own, so that it can be frozen.

    engine_proxy.py ENGINE-SOCKET OWN-SOCKET

Present only where the topology says `engine-proxy: true`. It understands nothing of what it passes on. Frozen it takes
connections and bytes and answers nothing, as a hung engine does; thawed it passes them on, late. Standard library only.
"""

import asyncio
import contextlib
import os
import sys

VMMS_UID = 902
"""The one process of a node that may talk to the engine (docs/design/0001-seams.md)."""
CHUNK = 1 << 16
BACKLOG = 128
"""Connections that wait while it is frozen: VMMS opens eight at most, and gives each call up after seconds."""


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes of one direction until their end, which is passed on, too."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def serve(engine: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection of the node, until both directions have ended."""
    try:
        engine_reader, engine_writer = await asyncio.open_unix_connection(engine)
    except OSError as error:
        print(f"engine proxy: {engine}: {error}", file=sys.stderr, flush=True)
        writer.close()
        return
    try:
        outward = asyncio.ensure_future(pump(reader, engine_writer))
        # The engine has the last word: once it has closed, nothing that the node still says will be answered.
        await pump(engine_reader, writer)
        outward.cancel()
    finally:
        for end in (writer, engine_writer):
            end.close()


async def run(engine: str, own: str) -> None:
    """Listens until killed. Only VMMS of the node may connect."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(own)
    server = await asyncio.start_unix_server(lambda r, w: serve(engine, r, w), own, backlog=BACKLOG)
    os.chmod(own, 0o600)
    os.chown(own, VMMS_UID, VMMS_UID)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2]))
