"""A file of a container, read through the engine's archive call.

The call works for a container that is off or hung, sees its volumes, and runs nothing inside it. A guest may own the
file, so type and size are checked before the content is read, the read has limits, and the stream is closed on every
path: an open stream would block the engine's other calls to that container.
"""

import base64
import contextlib
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import docker

from harness.errors import EngineError
from harness.rig.engine.connection import engine_call

__all__ = ["READ_LIMIT_S", "read_file"]

READ_LIMIT_S = 10.0
"""For the whole file. 32 MiB through the archive call took 0.2 s."""
ARCHIVE_EXTRA_BYTES = 65536
"""An archive of one file holds its header, padding and end beside the content."""
PART_BYTES = 65536
STAT_HEADER = "X-Docker-Container-Path-Stat"
MAX_STAT_BYTES = 65536
_NOT_REGULAR = {
    1 << 31: "a directory",
    1 << 27: "a symbolic link",
    1 << 26: "a device",
    1 << 25: "a FIFO",
    1 << 24: "a socket",
    1 << 21: "a device",
    1 << 19: "an irregular file",
}
"""The engine's mode bits (those of Go's os.FileMode) for every file that is not a regular one."""


def read_file(
    client: docker.DockerClient,
    containers: Iterable[str],
    path: str,
    *,
    limit_bytes: int,
    limit_s: float = READ_LIMIT_S,
    check: Callable[[], None] = lambda: None,
) -> str:
    """Return the file's text, read through the first of the `containers` that has it.

    `check` is called between the parts, and may raise to end the read. Raises EngineError: that of the last container,
    or, from the first container that has the path, because it is no regular file or exceeds a limit.
    """
    last: EngineError | None = None
    for container in containers:
        try:
            with engine_call(f"read {path} through {container[:32]}"), _archive(client, container, path) as response:
                refusal = _refusal(response.headers.get(STAT_HEADER, ""), limit_bytes)
                data = b"" if refusal else _read(response, limit_bytes, limit_s, check)
        except EngineError as error:
            last = error
            continue
        if refusal or len(data) > limit_bytes + ARCHIVE_EXTRA_BYTES:
            raise EngineError(f"cannot read {path}: {refusal or f'it holds more than {limit_bytes} bytes'}")
        return _only_file(data, path)
    raise last or EngineError(f"cannot read {path}: there is no container to read it through")


@contextlib.contextmanager
def _archive(client: docker.DockerClient, container: str, path: str) -> Iterator[Any]:
    """The response to the archive call, open; the SDK's own call returns a stream that cannot be closed."""
    api = client.api
    url = f"{api.base_url}/v{api.api_version}/containers/{container}/archive"
    response = api.get(url, params={"path": path}, stream=True, timeout=api.timeout)
    try:
        api._raise_for_status(response)  # type: ignore[attr-defined]  # the only way to the SDK's own errors
        yield response
    finally:
        response.close()


def _refusal(header: str, limit_bytes: int) -> str:
    """Why the path's content must not be read, by the engine's own look at it; empty if it may be read."""
    try:
        stat = json.loads(base64.b64decode(header[:MAX_STAT_BYTES]))
        mode, size = int(stat["mode"]), int(stat["size"])
    except (ValueError, KeyError, TypeError):
        return "the engine does not report its type and size"
    for bit, kind in _NOT_REGULAR.items():
        if mode & bit:
            return f"it is {kind}, not a regular file"
    return f"it holds {size} bytes, more than the {limit_bytes} that are read" if size > limit_bytes else ""


def _read(response: Any, limit_bytes: int, limit_s: float, check: Callable[[], None]) -> bytes:
    """The archive, and at most one part more than the limit: a guest may write while the file is read."""
    data = bytearray()
    deadline = time.monotonic() + limit_s
    for part in response.iter_content(PART_BYTES):
        check()
        data += part
        if len(data) > limit_bytes + ARCHIVE_EXTRA_BYTES:
            break
        if time.monotonic() > deadline:
            raise OSError(f"{len(data)} bytes in {limit_s:g} s, and no end")
    return bytes(data)


def _only_file(archive: bytes, path: str) -> str:
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                if file is not None:
                    return file.read().decode(errors="replace")
    except (tarfile.TarError, EOFError) as error:
        raise EngineError(f"cannot read {path}: the engine's archive of it is broken: {error}") from error
    raise EngineError(f"cannot read {path}: it is not a regular file")
