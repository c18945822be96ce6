"""The VMMS process of a node: `harness.vmms` on a real engine, served to the node's other processes.

Started by PID 1 as `python3 -I -m harness.live.vmms`. It is the only process of the node that talks to the engine.
Each call is a task of its own, and goes on when its caller is gone: an end that was begun is better finished. A
defect ends the process, and PID 1 starts the next.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from harness.errors import BlackstartError, EngineError, EngineUnanswered, UsageError
from harness.live.cluster_log import ClusterLog
from harness.live.docker_engine import DockerEngine
from harness.live.framed_socket import FramedConnection, serve_frames
from harness.live.node_environment import NodeEnvironment, read_environment
from harness.live.runtime import AsyncioRuntime
from harness.live.vmms_client import VMMS_SOCKET
from harness.ports import Log, Runtime
from harness.vmms.notifications import Subscription
from harness.vmms.remote import CALLS, NOTICES_CALL, carry_out, notice_message, refusal
from harness.vmms.vmms import Vmms
from harness.wire import FrameError

__all__ = ["VmmsServer", "main", "prove_engine"]

ENGINE_RETRY_US = 200_000
CALLS_LIMIT = 256
"""Calls under way for one connection: more VMs than a node runs, each with one call."""


class VmmsServer:
    """Turns messages into calls of a `Vmms`, and its results, errors and notices into messages."""

    def __init__(self, vmms: Vmms, runtime: Runtime) -> None:
        self._vmms = vmms
        self._runtime = runtime

    async def connected(self, connection: FramedConnection) -> None:
        """Serve one connection until it ends."""
        under_way: set[Any] = set()
        subscriptions: list[Subscription] = []
        try:
            async for message in connection:
                call = message.get("call")
                if call == NOTICES_CALL and not subscriptions:
                    subscriptions.append(self._subscribe(connection, message))
                elif call not in CALLS or "id" not in message:
                    connection.send(refusal(message, f"VMMS knows no call {call!r}"))
                elif len(under_way) >= CALLS_LIMIT:
                    connection.send(refusal(message, f"{CALLS_LIMIT} calls of this connection are under way"))
                else:
                    task = self._runtime.spawn(self._answer(connection, message), name=f"call {call}")
                    under_way = {kept for kept in under_way if not kept.done()} | {task}
        finally:
            for subscription in subscriptions:
                self._vmms.drop_notices(subscription)

    async def _answer(self, connection: FramedConnection, message: dict[str, Any]) -> None:
        answer = await carry_out(self._vmms, message)
        try:
            connection.send(answer)
        except FrameError as error:
            connection.send(refusal(message, f"the answer is too large: {error}"))

    def _subscribe(self, connection: FramedConnection, message: dict[str, Any]) -> Subscription:
        subscription = self._vmms.notices()
        connection.send({"id": message.get("id"), "result": None})
        self._runtime.spawn(_tell(connection, subscription), name="notices")
        return subscription


async def _tell(connection: FramedConnection, subscription: Subscription) -> None:
    try:
        async for notice in subscription:
            if connection.ended:
                return
            connection.send(notice_message(notice))
    except EngineUnanswered:
        connection.close()  # it is hopelessly behind; its reader subscribes anew


async def prove_engine(
    identity: Callable[[], Awaitable[str]], *, wanted: str, log: Log, sleep: Callable[[int], Awaitable[None]]
) -> None:
    """Returns once the engine has answered with the ID that is `wanted`; at once when none is.

    A node that acted on another engine would end the containers of that one. Raises UsageError for another engine.
    """
    found = wanted
    while True:
        try:
            if wanted:
                found = await identity()
            break
        except EngineError as error:
            log("engine-unanswered", f"cannot ask the engine for its ID, trying again: {error}")
            await sleep(ENGINE_RETRY_US)
    if found != wanted:
        refusal = f"the socket of this node leads to the engine {found}, and the rig was made on the engine {wanted}"
        log("wrong-engine", f"{refusal}: VMMS does nothing", engine=found, expected=wanted)
        raise UsageError(f"{refusal}; mount the socket of that one")


async def _run(environment: NodeEnvironment) -> None:
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(task: str, error: BaseException) -> None:
        error.add_note(f"in the task {task!r} of VMMS")
        if not failed.done():
            failed.set_exception(error)

    log = ClusterLog(environment.node, "vmms")
    runtime = AsyncioRuntime(on_failure=fail)
    engine = DockerEngine(socket=environment.engine_socket)
    # The engine names a container's host after its id.
    container = socket.gethostname()
    vmms = Vmms(
        runtime=runtime, engine=engine, rig=environment.rig, node=environment.node, log=log, container=container
    )
    # Not `async with`: from Python 3.12 on that waits for every connection to end, and they end with this process.
    server = await serve_frames(VMMS_SOCKET, VmmsServer(vmms, runtime).connected)
    try:
        await prove_engine(engine.engine_id, wanted=environment.engine_id, log=log, sleep=runtime.sleep)
        runtime.spawn(vmms.run(), name="vmms")
        log("vmms-started", f"VMMS of {environment.node} in container {container}", container=container)
        await failed
    finally:
        server.close()
        engine.close()
        log.writer.flush()


def main() -> int:
    """Run until killed. Returns 1 with a sentence on standard error when the node's set-up is wrong."""
    try:
        asyncio.run(_run(read_environment(os.environ)))
    except BlackstartError as error:
        print(f"vmms: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
