"""The cluster service's process on a node: feeds the managers from Redis, the resource host and VMMS, and carries
their actions out.

Started by PID 1 as `python3 -I -m harness.live.service --pet-fd N --restart-fd M --api-fd L`. It decides nothing.
Everything runs on one asyncio loop: a fact is handled to its end before the next one is looked at, so the order of
actions is the managers' order.
"""

import argparse
import asyncio
import contextlib
import os
import random
import socket
import struct
import sys
import time
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from harness.cluster_service.core.event_log import EventLogProcessor
from harness.cluster_service.core.messages import (
    Action,
    AnswerCode,
    CallHost,
    CallVoter,
    Event,
    FenceEnded,
    FenceNode,
    HostConnected,
    HostLost,
    HostReported,
    Log,
    PetWatchdog,
    PingProgram,
    PowerOnEnded,
    PowerOnNode,
    ProgramAnswered,
    RequestAnswered,
    RequestReceived,
    ResetNode,
    RestartProgram,
    Tick,
    VoterAnswered,
    VoterFailed,
    WatchedProgram,
)
from harness.cluster_service.service import ClusterService, ServiceConfiguration
from harness.database.register import JsonCodec
from harness.errors import BlackstartError, EngineError, EngineUnanswered
from harness.live.cluster_log import LineWriter
from harness.live.framed_socket import FramedConnection, serve_frames
from harness.live.lease_deadline_file import LeaseNote
from harness.live.loop_delay import Lateness, LoopWatch
from harness.live.node_api import NodeApi
from harness.live.node_environment import NodeEnvironment, read_environment
from harness.live.runtime import boot_time_us
from harness.live.vmms_client import VmmsClient
from harness.live.voters import RedisVoters, VoterUnanswered
from harness.model.host_messages import HostReport
from harness.model.serialization import from_json_value, to_json_value
from harness.model.session import Session
from harness.ports import Hypervisor

__all__ = ["ServiceProcess", "main"]

SOCKET = Path("/run/blackstart/service.sock")
PASSWORD_FILE = Path("/run/secrets/voter-password")
TOKEN_FILE = Path("/run/secrets/api-token")
PET = struct.Struct("<qq")
MIN_WAKE_US = 1_000
JOIN_RETRY_S = 0.1
ANSWER_LIMIT_S = 15.0
"""The managers answer every request within ten seconds; a loop that is this late has other troubles."""
API = "node-api"


class ServiceProcess:
    """One run of the service."""

    def __init__(
        self,
        environment: NodeEnvironment,
        *,
        voters: RedisVoters,
        hypervisor: Hypervisor,
        pet_fd: int,
        restart_fd: int,
        api_listener: socket.socket,
    ) -> None:
        """`pet_fd`, `restart_fd` and `api_listener` are PID 1's: its two pipes, and the node API's listening socket."""
        self._environment = environment
        self._voters = voters
        self._hypervisor = hypervisor
        self._pet_fd = pet_fd
        self._restart_fd = restart_fd
        self._api_listener = api_listener
        self._log = EventLogProcessor(node=environment.node)
        self._lines = LineWriter(node=environment.node)
        self._core: ClusterService | None = None
        self._host: FramedConnection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake: asyncio.TimerHandle | None = None
        self._wake_due_us: int | None = None
        self._loop_watch = LoopWatch(report=self._loop_was_late)
        self._failed: asyncio.Future[None] | None = None
        self._lease_note = LeaseNote()
        self._session: Session | None = None
        self._requests = 0
        self._answers: dict[int, asyncio.Future[RequestAnswered]] = {}

    async def run(self) -> None:
        """Until something that must not fail fails: then the process ends, and PID 1 starts the next."""
        self._failed = asyncio.get_running_loop().create_future()
        self._open_api()
        session = self._session = await self._learn_session()
        self._core = ClusterService(
            configuration=ServiceConfiguration(
                rig=self._environment.rig,
                session=session,
                voters=tuple(self._environment.voters),
                settings=self._environment.settings,
                process=f"{session.node}.{os.urandom(8).hex()}",
                guests_end_us=self._lease_note.read(session),
                hour_of_day=lambda: time.localtime().tm_hour,
            ),
            codec=JsonCodec(),
            jitter=random.SystemRandom().random,
        )
        self._say("cluster-service", "service-started", f"cluster service of {session}", session=str(session))
        server = await serve_frames(SOCKET, self._connected)
        self._deliver(HostLost())
        try:
            await self._failed
        finally:
            # Not `async with`: from Python 3.12 on that waits for every connection to end, and they end with us.
            server.close()
            self._lines.flush()

    async def _learn_session(self) -> Session:
        """The session, once everything that earlier sessions of this node left is removed: before any register is
        read.
        """
        told = ""
        while True:
            try:
                session = await self._hypervisor.identity()
                removed = await self._hypervisor.clear_earlier_sessions()
            except EngineError as error:
                if str(error) != told:
                    told = str(error)
                    self._say("cluster-service", "waiting-for-vmms", f"cannot join yet: {error}")
                await asyncio.sleep(JOIN_RETRY_S)
                continue
            if removed:
                message = f"removed {removed} VM containers of earlier sessions"
                self._say("cluster-service", "earlier-sessions-cleared", message, removed=removed)
            return session

    # The node API.

    def _open_api(self) -> None:
        token = _read_token()
        if not token:
            message = f"the node API stays closed: {TOKEN_FILE} holds no token; compose/README.md says how to make one"
            self._say(API, "api-closed", message)
            return
        api = NodeApi(service=self, token=token, say=partial(self._say, API))
        self._spawn(api.serve(self._api_listener))

    def snapshot(self) -> dict[str, Any] | None:
        """What this node believes; None until the service has learned its session."""
        return None if self._core is None else self._core.snapshot(boot_time_us())

    # Facts in, actions out.

    def _deliver(self, event: Event) -> None:
        assert self._core is not None
        now = boot_time_us()
        # Not in the timer's callback: after a stall the sockets' callbacks come first, and replace the timer.
        self._loop_watch.ran(now, self._wake_due_us)
        for action in self._core.handle(now, event):
            self._carry_out(action)
        wake = self._core.next_wake()
        if self._wake is not None:
            self._wake.cancel()
            self._wake = self._wake_due_us = None
        if wake is not None:
            handled = boot_time_us()
            left_us = max(wake - handled, MIN_WAKE_US)
            self._wake_due_us = handled + left_us
            self._wake = asyncio.get_running_loop().call_later(left_us / 1e6, self._guarded, Tick())

    def _guarded(self, event: Event) -> None:
        """A defect of the managers ends the process; the watchdog's deadline runs on meanwhile."""
        try:
            self._deliver(event)
        except Exception as error:  # noqa: BLE001 - the root of every fact: handed to `run`, which raises it
            if self._failed is not None and not self._failed.done():
                self._failed.set_exception(error)

    def _carry_out(self, action: Action) -> None:
        match action:
            case CallVoter():
                self._spawn(self._call_voter(action))
            case CallHost(request):
                if self._host is not None:
                    self._host.send({"request": to_json_value(request)})
            case PetWatchdog(guests_end_us=guests_end_us, node_ends_us=node_ends_us):
                self._pet(guests_end_us, node_ends_us)
                if guests_end_us and self._session is not None:
                    self._lease_note.write(self._session, guests_end_us)
            case FenceNode():
                self._spawn(self._fence(action))
            case PowerOnNode(node):
                self._spawn(self._power_on(node))
            case RequestAnswered():
                asker = self._answers.pop(action.id, None)
                if asker is not None and not asker.done():
                    asker.set_result(action)
            case PingProgram(WatchedProgram.RESOURCE_HOST):
                if self._host is not None:
                    self._host.send({"ask": "alive"})
            case PingProgram(WatchedProgram.VMMS):
                self._spawn(self._ask_vmms())
            case RestartProgram():
                self._restart(action)
            case Log():
                self._print(action)
            case ResetNode(reason):
                self._say("membership-manager", "node-reset", f"resetting this node: {reason}")
                self._pet(1, 1)
            case _:
                raise AssertionError(f"the managers let {action!r} out")

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call_voter(self, wish: CallVoter) -> None:
        try:
            reply, connection = await self._voters.call(wish.voter, wish.call, limit_us=wish.limit_us)
        except VoterUnanswered as error:
            self._guarded(VoterFailed(number=wish.number, voter=wish.voter, reason=str(error)))
        else:
            answered = VoterAnswered(number=wish.number, voter=wish.voter, reply=reply, connection=connection)
            self._guarded(answered)

    async def _fence(self, wish: FenceNode) -> None:
        error: str | None = None
        try:
            await self._hypervisor.fence(wish.session, not_after_us=wish.not_after_us)
        except EngineError as failure:
            error = str(failure)
        self._guarded(FenceEnded(session=wish.session, error=error))

    async def _power_on(self, node: str) -> None:
        try:
            ended = PowerOnEnded(node=node, held=not await self._hypervisor.power_on(node))
        except EngineError as failure:
            ended = PowerOnEnded(node=node, error=str(failure))
        self._guarded(ended)

    async def _ask_vmms(self) -> None:
        try:
            await self._hypervisor.alive()
        except EngineUnanswered:
            return
        except EngineError:
            pass  # a refusal is an answer
        self._guarded(ProgramAnswered(WatchedProgram.VMMS))

    def _restart(self, wish: RestartProgram) -> None:
        # A full pipe means that PID 1 does not read; the silence goes on, and so this is asked again.
        with contextlib.suppress(BlockingIOError):
            os.write(self._restart_fd, f"{wish.program} {wish.silent_since_us * 1000}\n".encode())

    def _pet(self, guests_end_us: int, node_ends_us: int) -> None:
        # A full pipe means that PID 1 does not read: it is frozen, and will look at the clock first.
        with contextlib.suppress(BlockingIOError):
            os.write(self._pet_fd, PET.pack(guests_end_us * 1000, node_ends_us * 1000))

    # Administrators' requests.

    async def request(self, call: str, arguments: Mapping[str, str | bool]) -> RequestAnswered:
        """Send a request to the managers; its calls: `harness.cluster_service.administration.administration.CALLS`.

        Never raises for a request that is wrong: the answer, which comes within seconds, says so.
        """
        self._requests += 1
        number = self._requests
        if self._core is None:
            return RequestAnswered(
                id=number, code=AnswerCode.NO_QUORUM, message="the cluster service is still starting"
            )
        asker: asyncio.Future[RequestAnswered] = asyncio.get_running_loop().create_future()
        self._answers[number] = asker
        self._guarded(RequestReceived(id=number, call=call, arguments=arguments))
        try:
            return await asyncio.wait_for(asker, ANSWER_LIMIT_S)
        except TimeoutError:
            return RequestAnswered(id=number, code=AnswerCode.UNKNOWN, message=f"no answer within {ANSWER_LIMIT_S:g} s")
        finally:
            self._answers.pop(number, None)

    async def _answer(self, connection: FramedConnection, number: Any, asked: Any) -> None:
        call, arguments = (asked.get("call"), asked.get("arguments", {})) if isinstance(asked, dict) else (None, None)
        if (
            not isinstance(call, str)
            or not isinstance(arguments, dict)
            or not all(isinstance(value, str | bool) for value in arguments.values())
        ):
            form = '{"call": "NAME", "arguments": {"NAME": "text" or true or false}}'
            connection.send({"id": number, "error": f"a request is {form}"})
            return
        answer = await self.request(call, arguments)
        told = {"code": answer.code.value, "message": answer.message, "result": to_json_value(dict(answer.result))}
        connection.send({"id": number, "result": told})

    # The resource host and administrators, over one socket.

    async def _connected(self, connection: FramedConnection) -> None:
        try:
            async for message in connection:
                self._heard(connection, message)
        finally:
            if self._host is connection:
                self._host = None
                self._guarded(HostLost())

    def _heard(self, connection: FramedConnection, message: dict[str, Any]) -> None:
        if "hello" in message:
            self._host = connection
            self._guarded(HostConnected())
        elif "report" in message and self._host is connection:
            self._guarded(HostReported(from_json_value(HostReport, message["report"])))
        elif "alive" in message and self._host is connection:
            self._guarded(ProgramAnswered(WatchedProgram.RESOURCE_HOST))
        elif message.get("call") == "snapshot":
            connection.send({"id": message.get("id"), "result": self.snapshot()})
        elif message.get("call") == "request":
            self._spawn(self._answer(connection, message.get("id"), message.get("request")))
        elif "id" in message:
            connection.send({"id": message["id"], "error": f"no such call: {message.get('call')!r}"})

    # The cluster log.

    def _loop_was_late(self, lateness: Lateness) -> None:
        fields = {"late_us": lateness.late_us, "waited_us": lateness.waited_us, "window_us": lateness.window_us}
        self._say("cluster-service", "loop-late", str(lateness), **fields, load=lateness.load)

    def _say(self, component: str, event: str, message: str, **fields: Any) -> None:
        self._print(Log(component=component, event=event, message=message, fields=fields))

    def _print(self, log: Log) -> None:
        line = self._log.line(boot_time_us(), time.time(), log)
        if line is not None:
            self._lines.put(line)


def _read_token() -> str:
    try:
        return TOKEN_FILE.read_text().strip()
    except OSError:
        return ""


async def _run(environment: NodeEnvironment, *, pet_fd: int, restart_fd: int, api_fd: int) -> None:
    for descriptor in (pet_fd, restart_fd):
        os.set_blocking(descriptor, False)
    api_listener = socket.socket(fileno=api_fd)
    api_listener.setblocking(False)
    voters = RedisVoters(environment.voters, password=PASSWORD_FILE.read_text().strip())
    async with VmmsClient() as hypervisor:
        process = ServiceProcess(
            environment,
            voters=voters,
            hypervisor=hypervisor,
            pet_fd=pet_fd,
            restart_fd=restart_fd,
            api_listener=api_listener,
        )
        await process.run()


def main(arguments: list[str] | None = None) -> int:
    """Run until killed. Returns 1 with a sentence on standard error when the node's set-up is wrong."""
    parser = argparse.ArgumentParser(prog="service", description="the cluster service of a Blackstart node")
    parser.add_argument("--pet-fd", type=int, required=True, help="where to write the watchdog's deadlines")
    parser.add_argument("--restart-fd", type=int, required=True, help="where to write which program hangs")
    parser.add_argument("--api-fd", type=int, required=True, help="the listening socket of the node API")
    options = parser.parse_args(arguments)
    try:
        environment = read_environment(os.environ)
        asyncio.run(
            _run(environment, pet_fd=options.pet_fd, restart_fd=options.restart_fd, api_fd=options.api_fd)
        )
    except BlackstartError as error:
        print(f"cluster service: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
