"""The `Engine` port on Docker: the SDK's low-level client, its blocking calls on a few threads, its errors as ours.

It judges nothing: what a failed start or kill means is its callers' business. A call is given up after five seconds,
and the engine may carry it out all the same; a call that waits in vain for a free thread is never sent, so that no
order leaves this process long after it was given.
"""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

import docker
import docker.errors
import docker.types
import requests
import urllib3.exceptions

from harness.errors import EngineError, EngineTooLate, EngineUnanswered, NoSuchContainer
from harness.live.docker_events import EventStream
from harness.live.engine_paths import guard_paths
from harness.live.node_environment import ENGINE_SOCKET
from harness.live.runtime import boot_time_us
from harness.model import labels as label
from harness.model.disk import OWN_DISK, disk_volume
from harness.model.labels import Role
from harness.model.session import Session
from harness.model.vm import VmSpec
from harness.model.workload import VM_PORT
from harness.ports import Container

__all__ = ["DockerEngine", "parse_time_ns"]

API_VERSION = "1.41"
"""Of Docker Engine 20.10, the oldest that will do."""
CALL_LIMIT_S = 5
"""For each answer of the engine. A kill answers when the container is dead: a second for a node with thirty guests."""
THREADS = 8
"""The engine gains nothing from more than four calls at once; the others are for calls that only wait, such as a kill
of a frozen node.
"""
BULK_THREADS = 6
"""Of these at most so many look and remove, so that a start never waits behind a large listing or fence."""
VM_CPU_SHARES = 256
"""A quarter of a container's usual weight: where processors are short, VMs wait and their node does not."""
VM_OOM_SCORE = 500
"""Where the memory of the engine's host runs out, VMs are killed before any process of a node."""
LOG_OPTIONS = {"max-size": "1m", "max-file": "2"}
TEMPORARY_FILES = {"/tmp": "size=16m,nr_inodes=4096,mode=1777,nosuid,nodev"}
"""A VM's /tmp: gone when it ends, and part of its memory."""

T = TypeVar("T")

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_TOO_OLD = re.compile(r"is too old\. Minimum supported API version is (\d+\.\d+)")
_NEVER = "0001-01-01T00:00:00Z"


class DockerEngine:
    """Made on a running loop and used on it only. `close` when done."""

    def __init__(self, *, socket: str = ENGINE_SOCKET) -> None:
        """`socket` is the path of the engine's. Talks to nobody yet."""
        self._socket = socket
        self._client = docker.APIClient(
            base_url=f"unix://{socket}", version=API_VERSION, timeout=CALL_LIMIT_S, max_pool_size=THREADS
        )
        guard_paths(self._client)
        # Neither proxies nor credentials of an environment have to do with a local socket, and looking for them costs a
        # millisecond a call.
        self._client.trust_env = False
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="engine")
        self._free = asyncio.Semaphore(THREADS)
        self._bulk = asyncio.Semaphore(BULK_THREADS)
        self._answered = 0

    def close(self) -> None:
        """Does not wait for calls under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def engine_id(self) -> str:
        """The ID of the engine that the socket leads to. Raises EngineError."""
        return str((await self._call("ask the engine for its ID", self._client.info)).get("ID") or "")

    async def containers(self, *, labels: Mapping[str, str]) -> list[Container]:
        """All containers, running or not, that carry these labels. The engine's listing lacks StartedAt: what ever ran
        is inspected.
        """
        filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
        listed = await self._call("list containers", lambda: self._client.containers(all=True, filters=filters))
        looks = [self._look(entry) for entry in listed]
        return [found for found in await asyncio.gather(*looks) if found is not None]

    async def inspect(self, container: str) -> Container | None:
        """One container, by id or a prefix of it; None when it does not exist."""
        try:
            found = await self._call(
                f"inspect {container[:12]}", lambda: self._client.inspect_container(container), container=True
            )
        except NoSuchContainer:
            return None
        return _inspected(found)

    async def create_vm(self, spec: VmSpec, *, session: Session, labels: Mapping[str, str]) -> str:
        """Create a VM's container in the namespaces of the session's node; returns its id.

        It belongs to one session: no restart policy, the user forced, no capability, limits on processes, memory and
        processors, nothing of the shared volume but its own disks, and, but for those and a small /tmp, no place to
        write to: everything else would be on the engine's disk, without a limit.
        """
        rig = labels[label.RIG]
        disks = {
            disk_volume(rig, spec.name, OWN_DISK): "/disk",
            **{disk_volume(rig, spec.name, volume): path for volume, path in spec.volumes.items()},
        }
        # What a VM writes on its disks is counted as its memory, because the disks live there.
        memory = spec.memory_bytes + len(disks) * spec.disk_bytes
        name = f"{rig}-{session.node}-{spec.name}-{os.urandom(3).hex()}"
        node = f"container:{session.container}"
        host_config = self._client.create_host_config(
            network_mode=node,
            pid_mode=node,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=spec.processes,
            nano_cpus=spec.processors_milli * 1_000_000,
            cpu_shares=VM_CPU_SHARES,
            oom_score_adj=VM_OOM_SCORE,
            init=False,
            restart_policy={"Name": "no"},
            read_only=not spec.writable_root,
            tmpfs=TEMPORARY_FILES,
            ulimits=[docker.types.Ulimit(name="core", soft=0, hard=0)],
            mounts=[
                # Without a copy: the image's files at that path would fill the disk, and its owner become the disk's.
                docker.types.Mount(target=path, source=volume, type="volume", no_copy=True)
                for volume, path in disks.items()
            ],
            log_config=docker.types.LogConfig(type="json-file", config=LOG_OPTIONS),
        )

        def create() -> Any:
            for volume in disks:
                # The engine would make a missing one, without a limit.
                self._client.inspect_volume(volume)
            return self._client.create_container(
                image=spec.image,
                command=list(spec.command) or None,
                name=name,
                user=f"{spec.user}:{spec.user}",
                environment=_environment(spec, session),
                labels=dict(labels),
                host_config=host_config,
                # How a run ended is judged by this: no other signal can be the beginning of a stop.
                stop_signal="SIGTERM",
                healthcheck={"test": ["NONE"]},
                tty=False,
                stdin_open=False,
                detach=True,
            )

        made = await self._call(f"create VM {spec.name}", create)
        return str(made["Id"])

    async def start(self, container: str, *, not_after_us: int | None = None) -> None:
        """Start by id. Harmless when it runs. Not sent after that time of the boot-time clock."""
        await self._call(
            f"start {container[:12]}",
            lambda: self._client.start(container),
            container=True,
            not_after_us=not_after_us,
        )

    async def kill(self, container: str, *, signal: int = 9) -> None:
        """Send a signal; SIGKILL waits for the end."""
        await self._call(
            f"kill {container[:12]} with signal {signal}", lambda: self._client.kill(container, signal), container=True
        )

    async def remove(self, container: str) -> None:
        """Kill and remove by id, with its anonymous volumes."""
        async with self._bulk:
            await self._call(
                f"remove {container[:12]}",
                lambda: self._client.remove_container(container, v=True, force=True),
                container=True,
            )

    async def begin_inside(self, container: str, command: tuple[str, ...]) -> str:
        """Begin a command in a running container, with its user and none of its output."""
        what = f"begin {command[0]} in {container[:12]}"

        def begin() -> str:
            begun = self._client.exec_create(container, list(command), stdout=False, stderr=False)["Id"]
            # Not followed: the stream of a command can hang for ever when its container is killed.
            self._client.exec_start(begun, detach=True)
            return str(begun)

        return await self._call(what, begin, container=True)

    async def ended_inside(self, begun: str) -> int | None:
        """The status with which it ended; None while it runs. NoSuchContainer when its container is gone."""
        found = await self._call(
            f"look at command {begun[:12]}", lambda: self._client.exec_inspect(begun), container=True
        )
        return None if found["Running"] or found["ExitCode"] is None else int(found["ExitCode"])

    async def holds(self, rig: str) -> frozenset[str]:
        """The nodes of the rig that are held off."""
        filters = {"label": [f"{label.RIG}={rig}", f"{label.ROLE}={Role.HOLD.value}"]}
        answer = await self._call("list holds", lambda: self._client.volumes(filters=filters))
        marks = [mark.get("Labels") or {} for mark in answer.get("Volumes") or []]
        return frozenset(mark[label.NODE] for mark in marks if label.NODE in mark)

    def events(self, *, labels: Mapping[str, str]) -> EventStream:
        """Events from now on of containers that carry these labels."""
        return EventStream(self._socket, labels=labels)

    async def _look(self, entry: Mapping[str, Any]) -> Container | None:
        if entry["State"] == "created":
            return _listed(entry)
        async with self._bulk:
            return await self.inspect(entry["Id"])

    # How a call travels.

    async def _call(
        self, what: str, call: Callable[[], T], *, container: bool = False, not_after_us: int | None = None
    ) -> T:
        """`call` on a thread. `container`: a 404 is about the container that was named, and not about something that
        it needs. What has waited for a thread until after `not_after_us`, of the boot-time clock, is not sent.
        """
        began = time.monotonic()
        await self._take_thread(what)
        try:
            if not_after_us is not None and boot_time_us() > not_after_us:
                raise EngineTooLate(f"{what}: not sent: its time has passed")
            work = self._threads.submit(self._spoken, call)
        except BaseException:
            self._free.release()
            raise
        work.add_done_callback(self._give_back)
        try:
            # The SDK's own limit is for each read: an answer that trickles in would have none.
            async with asyncio.timeout(2 * CALL_LIMIT_S):
                return await asyncio.wrap_future(work)
        except docker.errors.NotFound as error:
            kind = NoSuchContainer if container else EngineError
            raise kind(f"{what}: {error.explanation or error}") from error
        except docker.errors.APIError as error:
            raise EngineError(f"{what}: the engine refused: {error.explanation or error}") from error
        except (
            docker.errors.DockerException,
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
        ) as error:
            took_s = time.monotonic() - began
            raise EngineUnanswered(
                f"{what}: no answer after {took_s:.1f} s: {error or type(error).__name__}"
            ) from error

    async def _take_thread(self, what: str) -> None:
        """Wait for a thread, in line; raises EngineUnanswered when meanwhile no call at all is answered for as long as
        one may take.
        """
        if not self._free.locked():
            await self._free.acquire()
            return
        taken = asyncio.ensure_future(self._free.acquire())
        try:
            while not taken.done():
                answered = self._answered
                await asyncio.wait((taken,), timeout=CALL_LIMIT_S)
                if not taken.done() and self._answered == answered:
                    raise EngineUnanswered(
                        f"{what}: not sent: {THREADS} earlier calls wait, and none was answered for {CALL_LIMIT_S} s"
                    )
        except BaseException:
            if not taken.cancel():
                self._free.release()
            raise

    def _spoken(self, call: Callable[[], T]) -> T:
        """`call`, in a version of the engine's language that it still speaks. Called on a thread.

        An engine that is too new refuses before it does anything, and says which version is its oldest.
        """
        try:
            return call()
        except docker.errors.APIError as error:
            oldest = _TOO_OLD.search(str(error.explanation or error))
            if oldest is None or oldest[1] == self._client.api_version:
                raise
            # The SDK has no public way; asking beforehand would cost each node a call that only few engines need.
            self._client._version = oldest[1]  # type: ignore[attr-defined]
            return call()

    def _give_back(self, work: Future[Any]) -> None:
        """The thread is free again, however its caller fared. Called on that thread."""
        answered = not work.cancelled() and isinstance(work.exception(), docker.errors.APIError | None)
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the process with it
            self._loop.call_soon_threadsafe(self._take_back, answered)

    def _take_back(self, answered: bool) -> None:
        self._answered += answered
        self._free.release()


def parse_time_ns(text: str) -> int:
    """Unix nanoseconds of a time as the engine writes it. Raises ValueError on anything else."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time of the engine: {text!r}")
    seconds, fraction, zone = match.groups()
    moment = datetime.fromisoformat(seconds + ("+00:00" if zone == "Z" else zone))
    return int(moment.timestamp()) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def _environment(spec: VmSpec, session: Session) -> dict[str, str]:
    return {
        "BLACKSTART_PORT": str(VM_PORT),
        **spec.environment,
        "BLACKSTART_VM": spec.name,
        "BLACKSTART_NODE": session.node,
        "BLACKSTART_ADDRESS": spec.address or "",
        "BLACKSTART_DISK": "/disk",
    }


def _listed(entry: Mapping[str, Any]) -> Container:
    """Of a container that never ran."""
    names = entry.get("Names") or [""]
    return Container(
        id=str(entry["Id"]), name=str(names[0]).lstrip("/"), running=False, labels=dict(entry.get("Labels") or {})
    )


def _inspected(found: Mapping[str, Any]) -> Container:
    state = found["State"]
    started = str(state["StartedAt"])
    ran = not started.startswith(_NEVER[:-1])
    return Container(
        id=str(found["Id"]),
        name=str(found["Name"]).lstrip("/"),
        running=bool(state["Running"]) and not state["Restarting"],
        paused=bool(state["Paused"]),
        started=started if ran else "",
        started_ns=parse_time_ns(started) if ran else 0,
        exit_code=int(state["ExitCode"]),
        labels=dict(found["Config"].get("Labels") or {}),
    )
