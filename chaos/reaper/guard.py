"""A run's side of its reaper: starts it, renews its lease, and has it keep the ledger.

The reaper's container is the lock of the rig as well. It is started before the rig's first object, so that a runner
that dies at any later moment leaves nothing. The lease is renewed from the runner's own loop: a loop that stands still
is as good as gone.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import docker
from docker.types import LogConfig

from chaos.arena.reader_thread import ReaderThread
from chaos.reaper.lease import BEAT_INTERVAL_S
from chaos.reaper.ledger import read_open
from chaos.reaper.ledger_file import LEDGER
from chaos.reaper.orders import DEFAULT_TIMES, Orders, ReaperTimes
from chaos.reaper.sources import CODE, UNPACKED_IN, packed_sources
from harness.errors import EngineError, HarnessError, NoSuchContainer, UsageError
from harness.model import labels
from harness.rig.engine.archive_file import read_file
from harness.rig.engine.connection import ENGINE_ID_VARIABLE, engine_call
from harness.rig.engine.engine_socket import socket_on_engine
from harness.rig.engine.framed_stream import STDOUT, FramedStream
from harness.rig.lifecycle.rig_lock import Holder, RigHeld, claim_rig, lock_name, release_rig

__all__ = ["Guard", "ledger_of"]

KEEP_LIMIT_S = 10.0
"""A line took 2 ms; a loaded host's disk is much slower, and a fault must not wait for ever."""
MEMORY_BYTES = 128 << 20
PROCESSES = 64
MAX_LEDGER_BYTES = 16 << 20
"""Of 200 bytes an entry: more faults than any run injects."""

_PROGRAM = f"import sys; sys.path.insert(0, '{CODE}'); from chaos.repair.reaper_program import main; main()"


def ledger_of(client: docker.DockerClient, lock: dict[str, Any]) -> str:
    """The ledger of the run that the lock of a rig belongs to; empty for one that has none. Raises EngineError."""
    if lock["Config"]["Labels"].get(labels.ROLE) != labels.Role.REAPER:
        return ""
    return _ledger(client, str(lock["Id"]))


def _ledger(client: docker.DockerClient, container: str) -> str:
    try:
        return read_file(client, [container], LEDGER, limit_bytes=MAX_LEDGER_BYTES)
    except NoSuchContainer:
        return ""  # it has just been removed, or has kept no line yet


class Guard:
    """The reaper of one run. Made on the loop's thread. Invariant: once `lost` has a sentence, it keeps it."""

    def __init__(
        self,
        client: docker.DockerClient,
        *,
        rig: str,
        command: str,
        keep_rig: bool,
        times: ReaperTimes = DEFAULT_TIMES,
    ) -> None:
        """`command` names this run in the refusal of another one. With `keep_rig` the reaper heals faults and removes
        nothing else.
        """
        self._client = client
        self._rig = rig
        self._command = command
        self._orders = Orders(rig=rig, keep_rig=keep_rig, lease_s=times.lease_s, grace_s=times.grace_s)
        self._loop = asyncio.get_running_loop()
        self._container = ""
        self._stream: FramedStream | None = None
        self._reading: ReaderThread | None = None
        self._number = 0
        self._awaited: dict[int | str, asyncio.Future[str]] = {}
        self._ending = False
        self.lost = ""

    def start(self, *, image: str) -> None:
        """Take the rig's lock with a running reaper. Blocks.

        Raises UsageError when another process holds the rig, with its open faults; EngineError.
        """
        socket = socket_on_engine(self._client, rig=self._rig, image=image)
        api = self._client.api
        host = api.create_host_config(
            binds=[f"{socket.path}:/var/run/docker.sock"],
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=MEMORY_BYTES,
            memswap_limit=MEMORY_BYTES,
            pids_limit=PROCESSES,
            # It is to outlive a restart of the engine; nothing but its own last step or a person ends it.
            restart_policy={"Name": "unless-stopped"},
            log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m", "max-file": "1"}),
        )
        options = {
            "entrypoint": ["python3", "-I", "-B", "-c", _PROGRAM],
            "command": [self._orders.text()],
            "user": "0:0",
            "stdin_open": True,
            "environment": {ENGINE_ID_VARIABLE: socket.engine_id},
            "host_config": host,
        }
        try:
            self._container = claim_rig(
                self._client,
                self._rig,
                holder=Holder.here(self._command),
                image=image,
                role=labels.Role.REAPER,
                options=options,
            )
        except RigHeld as held:
            raise UsageError(_refusal(self._client, self._rig, held)) from held
        with engine_call(f"put the code of the reaper into {lock_name(self._rig)}"):
            api.put_archive(self._container, UNPACKED_IN, packed_sources())
        with engine_call(f"start {lock_name(self._rig)}"):
            api.start(self._container)

    def attach(self) -> None:
        """Connect to the reaper. Blocks. Raises EngineError."""
        with engine_call(f"attach to {lock_name(self._rig)}"):
            parameters = {"stdin": 1, "stdout": 1, "stream": 1}
            self._stream = FramedStream(self._client.api.attach_socket(self._container, params=parameters))
        self._reading = ReaderThread(self._read, name="answers of the reaper")
        self._reading.begin()

    async def renew(self) -> None:
        """Renew the lease for as long as the run lasts: the root of a task."""
        while not self.lost and not self._ending:
            self._send({})
            await asyncio.sleep(BEAT_INTERVAL_S)

    async def keep(self, line: str) -> None:
        """Have the reaper keep a line. Returns when it is on its disk; raises HarnessError when that is not certain."""
        self._number += 1
        answer = await self._asked(self._number, {"keep": line, "number": self._number})
        if answer:
            raise HarnessError(f"the reaper of rig {self._rig} did not keep a line of the ledger: {answer}")

    async def confirm(self) -> str:
        """Ask the reaper whether the lease has held until now. Empty when it has, else a sentence."""
        try:
            await self.keep(json.dumps({"entry": "clean-up"}))
        except HarnessError as error:
            return self.lost or str(error)
        return ""

    def open_faults(self) -> list[str]:
        """The faults that the reaper knows to be open, as sentences. Blocks. Raises EngineError."""
        if not self._container:
            return []
        return [str(entry) for entry in read_open(_ledger(self._client, self._container))]

    async def hand_over(self) -> None:
        """Have the reaper go on alone, at once: this run leaves something for it to heal or to remove."""
        self._ending = True
        with contextlib.suppress(HarnessError):  # then its lease lapses by itself
            await self._asked("handed_over", {"hand_over": True})
        self._disconnect()

    def end(self) -> None:
        """Remove the reaper and give the rig's lock back. Blocks. Safe before `start`. Raises EngineError."""
        self._disconnect()
        if self._container:
            release_rig(self._client, self._rig, self._container)
            self._container = ""

    def _disconnect(self) -> None:
        self._ending = True
        if self._stream is not None:
            self._stream.shut()
        if self._reading is not None:
            self._reading.end()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    async def _asked(self, key: int | str, message: dict[str, Any]) -> str:
        """Send a message and await its answer: empty for done, else the error that it names. Raises HarnessError."""
        if self.lost:
            raise HarnessError(self.lost)
        answer: asyncio.Future[str] = self._loop.create_future()
        self._awaited[key] = answer
        try:
            self._send(message)
            async with asyncio.timeout(KEEP_LIMIT_S):
                return await answer
        except TimeoutError as error:
            raise HarnessError(
                f"the reaper of rig {self._rig} did not answer within {KEEP_LIMIT_S:g} s; without it no fault is "
                "injected"
            ) from error
        finally:
            self._awaited.pop(key, None)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            if self._stream is not None:
                self._stream.write(json.dumps(message).encode() + b"\n")
        except OSError as error:
            self._lose(self._unguarded(str(error)))

    def _read(self) -> None:
        """The thread that hears the reaper, until its stream ends."""
        rest = b""
        stream = self._stream
        reason = "it ended"
        try:
            while stream is not None and (frames := stream.read(None)) is not None:
                for kind, data in frames:
                    if kind == STDOUT:
                        *lines, rest = (rest + data).split(b"\n")
                        for line in lines:
                            self._from_thread(self._heard, line)
        except (OSError, ValueError) as error:
            reason = str(error)
        self._from_thread(self._lose, self._unguarded(reason))

    def _unguarded(self, reason: str) -> str:
        return f"the reaper of rig {self._rig} does not guard this run any more: {reason}"

    def _from_thread(self, call: Callable[[Any], None], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: the run is over
            self._loop.call_soon_threadsafe(call, argument)

    def _heard(self, line: bytes) -> None:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(answer, dict):
            return
        if answer.get("lapsed"):
            self._lose(
                f"this run was silent for more than {self._orders.lease_s:g} s, and its reaper took rig {self._rig} "
                "over: it heals every fault, so what was seen since then proves nothing"
            )
            return
        waiting = self._awaited.get("handed_over" if "handed_over" in answer else answer.get("kept", ""))
        if waiting is not None and not waiting.done():
            waiting.set_result(str(answer.get("error", "")))

    def _lose(self, reason: str) -> None:
        if self._ending or self.lost:
            return
        self.lost = reason
        for waiting in self._awaited.values():
            if not waiting.done():
                waiting.set_exception(HarnessError(reason))


def _refusal(client: docker.DockerClient, rig: str, held: RigHeld) -> str:
    try:
        faults = [str(entry) for entry in read_open(ledger_of(client, held.lock))]
    except EngineError as error:
        return f"{held}. Its ledger cannot be read: {error}"
    injected = f"; still injected: {', '.join(faults)}" if faults else ""
    return (
        f"{held}{injected}. Wait for its end, take another rig with --name, or, when its process has ended, "
        f"`blackstart repair --name {rig}` heals and removes at once what it left"
    )
