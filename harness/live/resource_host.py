"""The resource host's process of a node: `harness.resource_host` with the installed drivers, connected to the
cluster service.

Started by PID 1 as `python3 -I -m harness.live.resource_host`. It reaches VMs through VMMS only. When the
service's connection breaks everything runs on and keeps its state; the next service gets it with the hello. A
defect, or an entry point that never returns, ends the process, and PID 1 starts the next: no VM stops by that.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from harness.drivers.registry import installed_drivers
from harness.errors import BlackstartError
from harness.live.addresses import LinuxAddresses
from harness.live.cluster_log import ClusterLog
from harness.live.framed_socket import FramedConnection, connect_frames
from harness.live.node_environment import NodeEnvironment, read_environment
from harness.live.reach import NodeReach
from harness.live.runtime import AsyncioRuntime
from harness.live.storage import SharedVolume
from harness.live.vmms_client import VmmsClient
from harness.model.host_messages import HostReport, HostRequest
from harness.model.serialization import from_json_value, to_json_value
from harness.resource_host.host import ResourceHost

__all__ = ["main"]

SERVICE_SOCKET = Path("/run/blackstart/service.sock")
RECONNECT_FIRST_S = 0.02
MAX_RECONNECT_PAUSE_S = 0.25
"""The service is back within a fraction of a second after a kill; nobody restarts a crashed VM meanwhile."""


class DeadlockError(Exception):
    """A driver's entry point did not return within its resource's deadlock-timeout."""


class ServiceLink:
    """The connection to the service: one at a time, made again for ever. What is reported without one is in the next
    hello.
    """

    def __init__(self) -> None:
        self.host: ResourceHost | None = None
        self._connection: FramedConnection | None = None

    def report(self, report: HostReport) -> None:
        """Send a report, if there is a service."""
        if self._connection is not None:
            self._connection.send({"report": to_json_value(report)})

    async def serve(self) -> None:
        """Connect, say hello, take requests; for ever."""
        assert self.host is not None
        while True:
            connection = await self._connect()
            connection.send({"hello": [to_json_value(report) for report in self.host.hello()]})
            self._connection = connection
            try:
                async for message in connection:
                    if "request" in message:
                        self.host.take(from_json_value(HostRequest, message["request"]))
                    elif "ask" in message:
                        # Answered here and not in a task: a main loop that does not come to this hangs.
                        connection.send({"alive": True})
            finally:
                self._connection = None
                connection.close()
            # A service that closes every connection at once must not be asked without a pause.
            await asyncio.sleep(RECONNECT_FIRST_S)

    @staticmethod
    async def _connect() -> FramedConnection:
        wait = wait_exponential(multiplier=RECONNECT_FIRST_S, max=MAX_RECONNECT_PAUSE_S)
        async for attempt in AsyncRetrying(wait=wait, retry=retry_if_exception_type(OSError)):
            with attempt:
                return await connect_frames(SERVICE_SOCKET)
        raise AssertionError("it tries for ever")


async def _run(environment: NodeEnvironment) -> None:
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(task: str, error: BaseException) -> None:
        error.add_note(f"in the task {task!r} of the resource host")
        if not failed.done():
            failed.set_exception(error)

    log = ClusterLog(environment.node, "resource-host")
    runtime = AsyncioRuntime(on_failure=fail)
    link = ServiceLink()
    try:
        async with VmmsClient() as hypervisor:
            link.host = ResourceHost(
                runtime=runtime,
                hypervisor=hypervisor,
                addresses=LinuxAddresses(),
                storage=SharedVolume(),
                reach=NodeReach(),
                drivers=installed_drivers(),
                report=link.report,
                log=log,
                on_deadlock=lambda resource: fail(resource, DeadlockError(f"{resource}: an entry point hangs")),
            )
            runtime.spawn(link.host.run(), name="resource host")
            runtime.spawn(link.serve(), name="service link")
            log("resource-host-started", f"resource host of {environment.node}")
            await failed
    finally:
        log.writer.flush()


def main() -> int:
    """Run until killed. Returns 1 with a sentence on standard error when the node's set-up is wrong."""
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(_run(read_environment(os.environ)))
        except (BlackstartError, DeadlockError) as error:
            print(f"resource host: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
