"""Taking a rig away: every object that belongs to it, in whatever state, and nothing else (`ownership`).

Containers go first, killed and removed in parallel: a paused VM keeps its node from dying until it is killed
itself. Calling it twice is harmless; it needs no topology and no file.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import docker

from harness.errors import CleanupError, EngineError, HarnessError, NoSuchContainer, NotOwned
from harness.model import labels
from harness.model.name import check_rig_name
from harness.rig.engine.connection import engine_call, in_parallel
from harness.rig.engine.own_files import remove_rendered
from harness.rig.engine.ownership import (
    kill_container,
    name_of,
    own_containers,
    owner_of,
    remove_container,
    remove_network,
    remove_volume,
)
from harness.rig.images.build_context import find_project_root
from harness.rig.lifecycle.rig_lock import GUARDS, holder_of, look_at_lock, release_rig

__all__ = ["FoundRigs", "find_rigs", "left_behind", "remove_rig", "rig_names", "still_there"]

Say = Callable[[str], None]

LIMIT_S = 90.0
"""Two rounds take two seconds; a start that was under way in a slow engine may need some more."""
ROUND_INTERVAL_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRigs:
    """The rigs of an engine by name, and what carries a rig's label and belongs to none, as sentences."""

    names: tuple[str, ...]
    strangers: tuple[str, ...]


def find_rigs(client: docker.DockerClient, *, with_locks: bool = False) -> FoundRigs:
    """Every rig of which this engine has a container, a network or a volume; `with_locks` also those of which it has
    a lock alone. Raises EngineError.
    """
    found = _Objects.of(client, None, guards=True)
    counted = [*found.containers, *found.networks, *found.volumes]
    names = {owner_of(entry["Labels"]) for entry in counted if with_locks or not _is_guard(entry)}
    return FoundRigs(names=tuple(sorted(names)), strangers=tuple(found.strangers_shown()))


def rig_names(client: docker.DockerClient, *, with_locks: bool = False) -> list[str]:
    """The names that `find_rigs` finds."""
    return list(find_rigs(client, with_locks=with_locks).names)


def remove_rig(client: docker.DockerClient, name: str, *, say: Say, spare_lock: bool = False) -> int:
    """Removes every object of rig `name` and says what it removed; the answer is how many objects those were.

    What carries the rig's label and does not belong to it is left alone, and named. The rig's lock comes last, so that
    no other process makes a rig of that name meanwhile; `spare_lock` leaves it to its holder, who calls this.

    Raises UsageError, before anything is looked for, when no rig can have that name; CleanupError, naming what is left
    and how to remove it, when something withstood until the limit.
    """
    check_rig_name(name)
    lock = None if spare_lock else look_at_lock(client, name)
    holder = holder_of(lock) if lock is not None else None
    if holder is not None and holder.is_alive() is not False:
        say(f"rig {name} is in use by {holder}, which fails without it")
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
    for stranger in found.strangers_shown():
        say(f"left alone: {stranger}")
    # The lock that was seen at first: one that another process has taken since is not this call's to remove.
    if lock is not None:
        release_rig(client, name, str(lock["Id"]))
        removed[_container_kind(lock["Config"])] = 1
    with contextlib.suppress(HarnessError):  # an installed package has no checkout, and left no file there
        remove_rendered(find_project_root(), name)
    if removed:
        parts = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in removed.items()]
        say(f"removed rig {name}: {', '.join(parts)}")
    return sum(removed.values())


def still_there(client: docker.DockerClient, name: str) -> list[str]:
    """The names of all objects of rig `name` but its lock, with their kinds: empty when nothing is left."""
    check_rig_name(name)
    return _Objects.of(client, name).shown()


def left_behind(client: docker.DockerClient, name: str) -> list[str]:
    """As `still_there`, and also objects that carry the rig's label and do not belong to it."""
    check_rig_name(name)
    found = _Objects.of(client, name)
    return [*found.shown(), *(_shown(kind, entry) for kind, entry in found.strangers)]


class _Objects:
    """The objects of one rig, or of all rigs, at one look, without their locks. `strangers` carry a rig's label and
    belong to no rig.
    """

    def __init__(self, client: docker.DockerClient, rig: str) -> None:
        self._client = client
        self._rig = rig
        self.containers: list[Any] = []
        self.networks: list[Any] = []
        self.volumes: list[Any] = []
        self.strangers: list[tuple[str, Any]] = []

    @classmethod
    def of(cls, client: docker.DockerClient, rig: str | None, *, guards: bool = False) -> "_Objects":
        """`rig` None: of every rig. With `guards`, locks are among the containers."""
        filters = {"label": f"{labels.RIG}={rig}" if rig is not None else labels.RIG}
        found = cls(client, rig or "")
        with engine_call(f"list the objects of rig {rig}" if rig else "list the rigs of the engine"):
            containers = client.api.containers(all=True, filters=filters)
            networks = client.api.networks(filters=filters)
            volumes = client.api.volumes(filters=filters).get("Volumes") or []
        own = {entry["Id"] for entry in own_containers(client, containers)}
        found.containers = [entry for entry in containers if entry["Id"] in own and (guards or not _is_guard(entry))]
        found.networks = [entry for entry in networks if owner_of(entry["Labels"])]
        found.volumes = [entry for entry in volumes if owner_of(entry["Labels"])]
        found.strangers = [
            *(("container", entry) for entry in containers if entry["Id"] not in own),
            *(("network", entry) for entry in networks if not owner_of(entry["Labels"])),
            *(("volume", entry) for entry in volumes if not owner_of(entry["Labels"])),
        ]
        return found

    def __bool__(self) -> bool:
        return bool(self.containers or self.networks or self.volumes)

    def shown(self) -> list[str]:
        return [
            *(_shown("container", found) for found in self.containers),
            *(_shown("network", found) for found in self.networks),
            *(_shown("volume", found) for found in self.volumes),
        ]

    def strangers_shown(self) -> list[str]:
        """As sentences. Their labels may hold anything."""
        return [
            f"{_shown(kind, found)}: its labels name the rig {found['Labels'].get(labels.RIG)!r} and the role "
            f"{found['Labels'].get(labels.ROLE)!r}, and it is no object of a rig"
            for kind, found in self.strangers
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
            except (NoSuchContainer, NotOwned):
                return ""  # gone, or not what was listed: the next look finds out
            except EngineError as error:
                return str(error)
            return ""

        refusals = {}
        for item, refusal in zip(found, in_parallel(attempt, found), strict=True):
            if refusal:
                refusals[name_of(item)] = refusal
            else:
                removed[kind(item)] = removed.get(kind(item), 0) + 1
        return refusals

    def _remove_container(self, found: Any) -> None:
        if found["State"] in ("running", "paused", "restarting"):
            # Refused when it has just died by itself: what counts is the removal.
            with contextlib.suppress(EngineError):
                kill_container(self._client, found["Id"], rig=self._rig)
        remove_container(self._client, found["Id"], rig=self._rig)

    def _remove_network(self, found: Any) -> None:
        try:
            remove_network(self._client, found["Id"], rig=self._rig)
        except (NoSuchContainer, NotOwned):
            raise
        except EngineError as error:
            raise EngineError(f"{error} (in use by {self._users(found['Id'])})") from error

    def _users(self, network: str) -> str:
        """The containers on a network: whatever is not the rig's own is not ours to remove."""
        with engine_call("look who uses the network"):
            users = self._client.api.inspect_network(network).get("Containers") or {}
        return ", ".join(str(user["Name"]) for user in users.values()) or "nobody any more"

    def _remove_volume(self, found: Any) -> None:
        remove_volume(self._client, found["Name"], rig=self._rig)


def _is_guard(found: Any) -> bool:
    return found["Labels"].get(labels.ROLE) in GUARDS


def _shown(kind: str, found: Any) -> str:
    return f"{kind} {name_of(found)}"


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
