"""Taking a rig away: everything that carries its label, and nothing else, whoever started it and in whatever state.

Containers go first, killed and removed in parallel: a paused machine keeps its node from dying until it is killed
itself. Calling it twice is harmless; it needs no topology and no file.
"""

import contextlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import docker

from harness.errors import CleanupError, EngineError, HarnessError, NoSuchContainer
from harness.model import labels
from harness.rig.compose_tool import rendered_file
from harness.rig.engine import engine_call, in_parallel
from harness.rig.rig_lock import GUARDS, look_at_lock, release_rig

__all__ = ["left_behind", "remove_rig", "rig_names"]

Say = Callable[[str], None]

LIMIT_S = 90.0
"""Two rounds take two seconds; a start that was under way in a slow engine may need some more."""
ROUND_INTERVAL_S = 0.3


def rig_names(client: docker.DockerClient, *, with_locks: bool = False) -> list[str]:
    """Every rig of which this engine has a container, a network or a volume; `with_locks` also those of which it has
    a lock alone.
    """
    names: set[str] = set()
    with engine_call("list the rigs of the engine"):
        containers = client.api.containers(all=True, filters={"label": labels.RIG})
        networks = client.api.networks(filters={"label": labels.RIG})
        volumes = client.api.volumes(filters={"label": labels.RIG}).get("Volumes") or []
    if not with_locks:
        containers = [found for found in containers if not _is_guard(found)]
    for found in (*containers, *networks, *volumes):
        names.add(found["Labels"][labels.RIG])
    return sorted(names)


def remove_rig(client: docker.DockerClient, name: str, *, say: Say, spare_lock: bool = False) -> int:
    """Removes every object of rig `name` and says what it removed; the answer is how many objects those were.

    The rig's lock comes last, so that no other process makes a rig of that name meanwhile; `spare_lock` leaves it to
    its holder, who calls this.

    Raises CleanupError, naming what is left and how to remove it, when something withstood until the limit.
    """
    deadline = time.monotonic() + LIMIT_S
    removed: dict[str, int] = {}
    refusals: dict[str, str] = {}
    while True:
        found = _Objects.of(client, name)
        if not found:
            break
        if time.monotonic() > deadline:
            raise CleanupError(_left(name, found, refusals))
        refusals = found.remove(removed)
        if refusals:
            time.sleep(ROUND_INTERVAL_S)  # what refused is in use by something that is just going
    lock = None if spare_lock else look_at_lock(client, name)
    if lock is not None:
        release_rig(client, str(lock["Id"]))
        removed[_container_kind(lock["Config"])] = 1
    with contextlib.suppress(HarnessError):  # an installed package has no checkout, and left no file there
        shutil.rmtree(rendered_file(name).parent, ignore_errors=True)
    if removed:
        parts = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in removed.items()]
        say(f"removed rig {name}: {', '.join(parts)}")
    return sum(removed.values())


def left_behind(client: docker.DockerClient, name: str) -> list[str]:
    """The names of all objects of rig `name` but its lock, with their kinds: empty when nothing is left."""
    return _Objects.of(client, name).shown()


class _Objects:
    """The objects of one rig at one look, without its lock."""

    def __init__(
        self, client: docker.DockerClient, containers: list[Any], networks: list[Any], volumes: list[Any]
    ) -> None:
        self._client = client
        self.containers = containers
        self.networks = networks
        self.volumes = volumes

    @classmethod
    def of(cls, client: docker.DockerClient, rig: str) -> "_Objects":
        filters = {"label": f"{labels.RIG}={rig}"}
        with engine_call(f"list the objects of rig {rig}"):
            containers = client.api.containers(all=True, filters=filters)
            return cls(
                client,
                [found for found in containers if not _is_guard(found)],
                client.api.networks(filters=filters),
                client.api.volumes(filters=filters).get("Volumes") or [],
            )

    def __bool__(self) -> bool:
        return bool(self.containers or self.networks or self.volumes)

    def shown(self) -> list[str]:
        return [
            *(f"container {_container_name(found)}" for found in self.containers),
            *(f"network {found['Name']}" for found in self.networks),
            *(f"volume {found['Name']}" for found in self.volumes),
        ]

    def remove(self, removed: dict[str, int]) -> dict[str, str]:
        """One round; counts what went and answers why what stayed did."""
        refusals = self._round(self.containers, self._remove_container, _container_kind, removed)
        if not refusals:
            refusals |= self._round(self.networks, self._remove_network, lambda _: "network", removed)
            refusals |= self._round(self.volumes, self._remove_volume, _volume_kind, removed)
        return refusals

    def _round(
        self,
        found: list[Any],
        remove: Callable[[Any], None],
        kind: Callable[[Any], str],
        removed: dict[str, int],
    ) -> dict[str, str]:
        def attempt(item: Any) -> str:
            try:
                remove(item)
            except NoSuchContainer:
                return ""
            except EngineError as error:
                return str(error)
            return ""

        refusals = {}
        for item, refusal in zip(found, in_parallel(attempt, found), strict=True):
            if refusal:
                refusals[item.get("Name") or _container_name(item)] = refusal
            else:
                removed[kind(item)] = removed.get(kind(item), 0) + 1
        return refusals

    def _remove_container(self, found: Any) -> None:
        name = _container_name(found)
        if found["State"] in ("running", "paused", "restarting"):
            # Refused when it has just died by itself: what counts is the removal.
            with contextlib.suppress(EngineError), engine_call(f"kill {name}"):
                self._client.api.kill(found["Id"])
        with engine_call(f"remove {name}"):
            self._client.api.remove_container(found["Id"], force=True, v=True)

    def _remove_network(self, found: Any) -> None:
        try:
            with engine_call(f"remove network {found['Name']}"):
                self._client.api.remove_network(found["Id"])
        except NoSuchContainer:
            raise
        except EngineError as error:
            raise EngineError(f"{error} (in use by {self._users(found['Id'])})") from error

    def _users(self, network: str) -> str:
        """The containers on a network: whatever is not the rig's own is not ours to remove."""
        with engine_call("look who uses the network"):
            users = self._client.api.inspect_network(network).get("Containers") or {}
        return ", ".join(str(user["Name"]) for user in users.values()) or "nobody any more"

    def _remove_volume(self, found: Any) -> None:
        with engine_call(f"remove volume {found['Name']}"):
            self._client.api.remove_volume(found["Name"])


def _is_guard(found: Any) -> bool:
    return found["Labels"].get(labels.ROLE) in GUARDS


def _container_name(found: Any) -> str:
    return str(found["Names"][0]).lstrip("/") if found.get("Names") else str(found["Id"])[:12]


def _container_kind(found: Any) -> str:
    return str(found["Labels"].get(labels.ROLE, "container"))


def _volume_kind(found: Any) -> str:
    held = found["Labels"].get(labels.ROLE) == labels.Role.HOLD
    return "hold mark" if held else "volume"


def _left(name: str, found: _Objects, refusals: dict[str, str]) -> str:
    why = "; ".join(refusals.values()) or "it comes back after each removal"
    return (
        f"rig {name} could not be removed within {LIMIT_S:g} s; left: {', '.join(found.shown())}. "
        f"The engine says: {why}. `blackstart down --name {name}` tries again"
    )
