"""A file of a container, read through the engine's archive call.

That works for a container that is off or hung, sees its volumes, and runs nothing inside it.
"""

import io
import tarfile
from collections.abc import Iterable

import docker

from harness.errors import EngineError
from harness.rig.engine import engine_call

__all__ = ["read_file"]


def read_file(client: docker.DockerClient, containers: Iterable[str], path: str, *, limit_bytes: int) -> str:
    """The file as text, from the first container that has it to give. Raises EngineError of the last one."""
    last: EngineError | None = None
    for container in containers:
        try:
            with engine_call(f"read {path} through {container[:32]}"):
                parts, _ = client.api.get_archive(container, path)
                data = _joined(parts, path, limit_bytes)
        except EngineError as error:
            last = error
            continue
        return _only_file(data, path)
    raise last or EngineError(f"read {path}: there is no node to read it through")


def _joined(parts: Iterable[bytes], path: str, limit_bytes: int) -> bytes:
    """Given up as soon as it is too much: a machine can make a file as large as it likes, also without writing."""
    data = bytearray()
    for part in parts:
        data += part
        if len(data) > limit_bytes:
            raise EngineError(f"{path} holds more than {limit_bytes} bytes, which is all that is read of one")
    return bytes(data)


def _only_file(archive: bytes, path: str) -> str:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                return file.read().decode(errors="replace")
    raise EngineError(f"{path} is no file")
