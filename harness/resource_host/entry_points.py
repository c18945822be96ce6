"""Carrying one request out: the driver's call with its two deadlines, and what its outcome means for the state.

The pending-timeout is the longest silence of a driver while its resource is pending: then the resource is terminated,
and is Failed from OnlinePending, Offline from OfflinePending. The deadlock-timeout is for a call that does not return
at all: then the process itself is no longer trusted.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from harness.model.host_messages import EntryPoint, HostRequest
from harness.model.states import ResourceState
from harness.model.vm import Proof
from harness.ports import Log, OrderRefused, Runtime
from harness.resource_host.context import make_context
from harness.resource_host.driver import DriverStatus
from harness.resource_host.resource import HostedResource
from harness.resource_host.unsolicited_reports import hear, hear_what_was_kept

__all__ = ["EntryPoints"]

TERMINATE_ATTEMPTS = 3
TERMINATE_PAUSE_US = 200_000
DEADLOCKED_EVENT = 1230


class _Lacking(Exception):
    """The driver has no such entry point."""


class _Overtaken(Exception):
    """TERMINATE came while the call was under way."""


class _Silent(Exception):
    """The pending-timeout has passed."""


class _Deadlocked(Exception):
    """The deadlock-timeout has passed."""


class EntryPoints:
    """The five requests, one method each."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        log: Log,
        siblings: Callable[[str], dict[str, ResourceState]],
        on_deadlock: Callable[[str], None],
    ) -> None:
        self._runtime = runtime
        self._log = log
        self._siblings = siblings
        self._on_deadlock = on_deadlock

    async def carry_out(self, resource: HostedResource, request: HostRequest) -> None:
        """Everything but TERMINATE. Settles the request with one report."""
        if request.epoch < resource.request.epoch and request.entry_point is not EntryPoint.OPEN:
            reason = f"{request.entry_point} of epoch {request.epoch} came after epoch {resource.request.epoch}"
            self._log("request-refused", reason, resource=resource.name)
            resource.tell(number=request.number, error=reason)
            return
        steps = {
            EntryPoint.OPEN: self._open,
            EntryPoint.CLOSE: self._close,
            EntryPoint.ONLINE: self._online,
            EntryPoint.OFFLINE: self._offline,
        }
        life = resource.online_life
        try:
            await steps[request.entry_point](resource, request)
        except _Lacking:
            self._discard(resource, request)
        except _Overtaken:
            resource.tell(number=request.number, error="overtaken by TERMINATE")
        except _Deadlocked:
            self._deadlocked(resource, request)
        if resource.state is ResourceState.ONLINE and resource.online_life != life:
            resource.when_online(resource)
        hear_what_was_kept(resource)

    async def terminate(self, resource: HostedResource, request: HostRequest) -> None:
        """End the resource at once. Settles the request: with proof, or with an error that says why there is none."""
        try:
            proof: Proof = await self._enter(resource, request, "terminate", silence=False)
        except _Lacking:
            self._discard(resource, request)
        except _Deadlocked:
            self._deadlocked(resource, request)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is an answer
            if resource.state.pending:
                resource.become(replace(_bare(resource.status), state=ResourceState.FAILED))
            resource.tell(number=request.number, error=f"terminate of {resource.name}: {error}")
        else:
            resource.become(replace(_bare(resource.status), state=ResourceState.OFFLINE))
            resource.tell(number=request.number, proof=proof)
        if resource.terminations <= 1:
            resource.heard_while_busy = None

    # The four others.

    async def _open(self, resource: HostedResource, request: HostRequest) -> None:
        if request.epoch >= resource.request.epoch:
            resource.request = request
        if request.spec is not None:
            resource.spec = request.spec
        try:
            status: DriverStatus = await self._enter(resource, request, "open", silence=False)
        except (_Lacking, _Overtaken, _Deadlocked):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is an answer
            self._failed(resource, request, f"open of {resource.name}: {error}")
            return
        if resource.state.pending:
            resource.become(DriverStatus(state=ResourceState.INITIALIZING))
        resource.become(status)
        resource.tell(number=request.number)

    async def _close(self, resource: HostedResource, request: HostRequest) -> None:
        entry = "close" if hasattr(resource.driver, "close") else "terminate"
        try:
            proof: Proof = await self._enter(resource, request, entry, silence=False)
        except (_Lacking, _Overtaken, _Deadlocked):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is an answer
            resource.tell(number=request.number, error=f"close of {resource.name}: {error}")
            return
        resource.become(replace(_bare(resource.status), state=ResourceState.OFFLINE))
        resource.closed = True
        resource.tell(number=request.number, proof=proof)

    async def _online(self, resource: HostedResource, request: HostRequest) -> None:
        now = self._runtime.now()
        if now > request.not_after_us:
            late_us = now - request.not_after_us
            self._log("request-late", f"ONLINE of {resource.name} came {late_us} us too late", resource=resource.name)
            resource.tell(number=request.number, error="the order's time has passed; nothing was started")
            return
        if resource.state is ResourceState.ONLINE:
            resource.tell(number=request.number)
            return
        _require(resource, "online")
        before = resource.status
        resource.request = request
        resource.become(DriverStatus(state=ResourceState.ONLINE_PENDING))
        resource.tell()
        error = ""
        try:
            status = await self._to_the_end(resource, request, "online")
            if status.state is ResourceState.ONLINE:
                resource.become(status)
                resource.tell(number=request.number)
                return
            error = status.evidence or f"online ended {status.state}"
        except (_Overtaken, _Deadlocked):
            raise
        except OrderRefused as refusal:
            # It certainly was not started: nothing to terminate, nothing failed.
            resource.become(_bare(before))
            resource.tell(number=request.number, error=str(refusal))
            return
        except _Silent:
            error = f"nothing heard from online for {resource.spec.policy.pending_timeout_us / 1e6:g} s"
        except Exception as failure:  # noqa: BLE001 - whatever a driver raises is an answer
            error = f"online of {resource.name}: {failure}"
        await self._terminate_after(resource, request)
        self._failed(resource, request, error)

    async def _offline(self, resource: HostedResource, request: HostRequest) -> None:
        if resource.state is ResourceState.OFFLINE:
            resource.tell(number=request.number)
            return
        _require(resource, "offline")
        resource.become(replace(_bare(resource.status), state=ResourceState.OFFLINE_PENDING))
        resource.tell()
        error = ""
        proof: Proof | None = None
        try:
            status = await self._to_the_end(resource, request, "offline")
            proof = status.proof
            if status.state is not ResourceState.OFFLINE:
                error = status.evidence or f"offline ended {status.state}"
        except (_Overtaken, _Deadlocked):
            raise
        except _Silent:
            error = "its pending-timeout"
        except Exception as failure:  # noqa: BLE001 - whatever a driver raises is an answer
            error = str(failure)
        if error:
            self._log("offline-failed", f"offline of {resource.name}: {error}; terminating it", resource=resource.name)
            proof = await self._terminate_after(resource, request)
            if proof is None:
                self._failed(resource, request, f"offline of {resource.name}: {error}; terminate failed as well")
                return
        resource.become(replace(_bare(resource.status), state=ResourceState.OFFLINE))
        resource.tell(number=request.number, proof=proof)

    async def _terminate_after(self, resource: HostedResource, request: HostRequest) -> Proof | None:
        """Terminate after another entry point went wrong; None without proof: then the service asks again."""
        for attempt in range(TERMINATE_ATTEMPTS):
            if attempt:
                await self._runtime.sleep(TERMINATE_PAUSE_US)
            try:
                proof: Proof = await self._enter(resource, request, "terminate", silence=False)
            except (_Lacking, _Deadlocked):
                return None
            except Exception as error:  # noqa: BLE001 - whatever a driver raises is an answer
                self._log("terminate-failed", f"terminate of {resource.name}: {error}", resource=resource.name)
            else:
                return proof
        return None

    # One call.

    async def _to_the_end(self, resource: HostedResource, request: HostRequest, entry: str) -> DriverStatus:
        """Call, and if the driver returned pending, wait for what it reports."""
        turn = resource.turn
        resource.heard_while_busy = None
        status: DriverStatus = await self._enter(resource, request, entry, silence=True)
        if not status.state.pending:
            return status
        resource.entered = entry
        try:
            while True:
                ended = resource.take_heard()
                if ended is not None:
                    return ended
                if resource.turn != turn or resource.queue:
                    raise _Overtaken
                left_us = resource.heard_us + resource.spec.policy.pending_timeout_us - self._runtime.now()
                if left_us <= 0:
                    raise _Silent
                await resource.changed.wait_until(
                    lambda: resource.heard_while_busy is not None or resource.turn != turn or bool(resource.queue),
                    limit_us=left_us,
                )
        finally:
            resource.entered = None

    async def _enter(self, resource: HostedResource, request: HostRequest, entry: str, *, silence: bool) -> Any:
        """The driver's function with both deadlines; `silence`: the pending-timeout counts, and TERMINATE overtakes."""
        function: Callable[..., Awaitable[Any]] | None = getattr(resource.driver, entry, None)
        if function is None:
            raise _Lacking
        call = _Call(function, make_context(resource, request, siblings=self._siblings, report=hear), resource)
        turn, began_us = resource.turn, self._runtime.now()
        resource.heard_us = began_us
        nested = entry == "terminate"
        if not nested:
            resource.entered = entry
        task = self._runtime.spawn(call.run(), name=f"{entry} of {resource.name}")
        try:
            while not call.ended:
                if silence and resource.turn != turn:
                    raise _Overtaken
                left_us = self._time_left(resource, began_us, silence=silence)
                await resource.changed.wait_until(
                    lambda: call.ended or (silence and resource.turn != turn), limit_us=left_us
                )
        finally:
            if not call.ended:
                task.cancel()
            if not nested:
                resource.entered = None
        if call.error is not None:
            raise call.error
        return call.value

    def _time_left(self, resource: HostedResource, began_us: int, *, silence: bool) -> int:
        policy, now = resource.spec.policy, self._runtime.now()
        left_us = began_us + policy.deadlock_timeout_us - now
        if left_us <= 0:
            raise _Deadlocked
        if silence:
            quiet_us = resource.heard_us + policy.pending_timeout_us - now
            if quiet_us <= 0:
                raise _Silent
            left_us = min(left_us, quiet_us)
        return left_us

    def _discard(self, resource: HostedResource, request: HostRequest) -> None:
        message = f"the driver of {resource.name} has no entry point {request.entry_point}; the request is discarded"
        self._log("request-discarded", message, resource=resource.name)
        if resource.state is ResourceState.INITIALIZING:
            resource.become(DriverStatus(state=ResourceState.OFFLINE))
        resource.tell(number=request.number)

    def _failed(self, resource: HostedResource, request: HostRequest, error: str) -> None:
        resource.become(replace(_bare(resource.status), state=ResourceState.FAILED, evidence=error))
        resource.tell(number=request.number, error=error)

    def _deadlocked(self, resource: HostedResource, request: HostRequest) -> None:
        limit_s = resource.spec.policy.deadlock_timeout_us / 1e6
        error = f"{request.entry_point} of {resource.name} did not return within {limit_s:g} s"
        self._log(
            "entry-point-deadlocked", error, number=DEADLOCKED_EVENT, resource=resource.name, group=resource.group
        )
        self._failed(resource, request, error)
        self._on_deadlock(resource.name)


class _Call:
    """One call of a driver's function and how it ended."""

    def __init__(self, function: Callable[..., Awaitable[Any]], context: object, resource: HostedResource) -> None:
        self.ended = False
        self.value: Any = None
        self.error: Exception | None = None
        self._function = function
        self._context = context
        self._resource = resource

    async def run(self) -> None:
        """The root of the call's task."""
        try:
            self.value = await self._function(self._context)
        except Exception as error:  # noqa: BLE001 - the root of a task: the error is the call's outcome
            self.error = error
        self.ended = True
        self._resource.changed.notify()


def _require(resource: HostedResource, entry: str) -> None:
    if not hasattr(resource.driver, entry):
        raise _Lacking


def _bare(status: DriverStatus) -> DriverStatus:
    """The state and run without the story of an earlier change."""
    return DriverStatus(state=status.state, run=status.run)
