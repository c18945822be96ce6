"""A guard on the names that go into the engine's API paths.

The SDK quotes a name and leaves its slashes: the engine would clean `/images/../containers/x/json`, and answer about
another object than the one that was asked for. All paths of a client are made in one method, and are checked there.
"""

from typing import Any

import docker

from harness.errors import EngineError

__all__ = ["guard_paths"]

_WITH_SLASHES = ("/images/", "/distribution/")
"""Paths whose names have slashes of their own."""


def guard_paths(client: docker.APIClient) -> None:
    """From now on `client` raises EngineError, and sends nothing, for a name that would change its path."""
    make = client._url  # type: ignore[attr-defined]

    def checked(path: str, *names: Any, **options: Any) -> Any:
        for name in names:
            if isinstance(name, str) and not _stays_inside(name, path):
                raise EngineError(f"the name {name!r} is refused: it would change the engine's path {path}; not sent")
        return make(path, *names, **options)

    client._url = checked  # type: ignore[attr-defined]


def _stays_inside(name: str, path: str) -> bool:
    segments = name.split("/") if path.startswith(_WITH_SLASHES) else [name]
    return all(segment not in ("", ".", "..") and "/" not in segment for segment in segments)
