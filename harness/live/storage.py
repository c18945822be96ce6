"""The `Storage` port on the node's mount of the cluster shared volume.

A volume that hangs must not hang its caller: each look runs on a thread of its own and is given up after two seconds.
A thread that hangs in the kernel cannot be ended, so there are only a few of them at any time.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Collection
from pathlib import Path

__all__ = ["SharedVolume"]

SHARED_VOLUME = Path("/csv")
FILES = ("config.json", "disk")
LOOK_LIMIT_S = 2.0
LOOKS_LIMIT = 8


class SharedVolume:
    """Knows where a VM's configuration file and virtual disk are."""

    def __init__(self, root: Path = SHARED_VOLUME) -> None:
        self._root = root
        self._under_way = 0

    async def missing(self, vm: str, *, volumes: Collection[str] = ()) -> tuple[str, ...]:
        """The VM's files and `volumes` that are not there. Raises OSError when the volume does not answer."""
        if self._under_way >= LOOKS_LIMIT:
            raise OSError(f"{self._root} does not answer: {LOOKS_LIMIT} earlier looks still wait")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[str, ...]] = loop.create_future()

        def settle(found: tuple[str, ...] | OSError) -> None:
            self._under_way -= 1
            if answer.done():
                return
            if isinstance(found, OSError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def look() -> None:
            found: tuple[str, ...] | OSError
            try:
                found = self._missing(vm, volumes)
            except OSError as error:
                found = error
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the process with it
                loop.call_soon_threadsafe(settle, found)

        self._under_way += 1
        threading.Thread(target=look, name=f"files of {vm}", daemon=True).start()
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                return await answer
        except TimeoutError as error:
            raise OSError(f"{self._root} did not answer within {LOOK_LIMIT_S:g} s, asked for {vm}") from error

    def _missing(self, vm: str, volumes: Collection[str]) -> tuple[str, ...]:
        os.stat(self._root)  # its own absence is not the VM's
        names = (*FILES, *(f"volumes/{name}" for name in volumes))
        return tuple(name for name in names if not _exists(self._root / vm / name))


def _exists(path: Path) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
