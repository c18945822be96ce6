"""The socket between VMMS and its callers, simulated: either end may be killed at any point.

A call runs in VMMS's process and its answer travels back; when VMMS dies, is not there or takes longer than the caller
waits, the caller gets EngineUnanswered, and what it asked for may have happened. When the caller dies, VMMS goes on
with what it was asked for. Calls and answers travel as they are, or as the bytes of the live socket.
"""

import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from harness.errors import EngineUnanswered
from harness.model.vm import VmNotice
from harness.ports import Pending
from harness.simulation.kernel.fifo_channel import Frames
from harness.simulation.kernel.runtime import Clock, SimulatedRuntime, Timer, Unfinished
from harness.vmms.notifications import Subscription
from harness.vmms.remote import (
    NOTICES_CALL,
    RemoteHypervisor,
    call_message,
    carry_out,
    notice_in,
    notice_message,
    refusal,
    result_in,
)
from harness.vmms.vmms import Vmms
from harness.wire import FrameError

__all__ = ["CallFault", "DriverBroke", "FramedVmmsLink", "VmmsLink", "VmmsProcess"]

T = TypeVar("T")

HOP_US = 150


class VmmsProcess:
    """The place of a node's VMMS process: empty while it is down."""

    def __init__(self) -> None:
        self.runtime: SimulatedRuntime | None = None
        self.vmms: Vmms | None = None
        self._unanswered = Unfinished[Pending[Any]]()

    def started(self, runtime: SimulatedRuntime, vmms: Vmms) -> None:
        """A new process is there."""
        self.runtime, self.vmms = runtime, vmms

    def ended(self) -> None:
        """The process is gone; everybody who waits for an answer learns that there will be none."""
        self.runtime = self.vmms = None
        for pending in self._unanswered.take():
            if not pending.done():
                pending.set_exception(EngineUnanswered("VMMS is gone; what it was asked for may have happened"))

    def wait_for_answer(self, pending: Pending[Any]) -> None:
        """To be told when the process ends."""
        self._unanswered.add(pending)


class DriverBroke(RuntimeError):
    """An error that no driver expects."""


class CallFault:
    """What befalls the next calls of drivers: each entry one of them, which hangs for so many microseconds; None: it
    breaks with an error that nobody expects.
    """

    def __init__(self) -> None:
        self.next: deque[int | None] = deque()

    async def befall(self, runtime: SimulatedRuntime) -> None:
        """Take the next one, if there is one."""
        if not self.next:
            return
        hangs_us = self.next.popleft()
        if hangs_us is None:
            raise DriverBroke("the driver broke")
        await runtime.sleep(hangs_us)


class VmmsLink(RemoteHypervisor):
    """The `Hypervisor` port as one caller on the node has it, whose patience ends as it does on a node."""

    def __init__(
        self, clock: Clock, process: VmmsProcess, caller: SimulatedRuntime, trouble: CallFault | None = None
    ) -> None:
        self._clock = clock
        self._process = process
        self._caller = caller
        self._trouble = trouble

    async def _call(self, call: str, arguments: dict[str, Any], limit_us: int) -> Any:
        if self._trouble is not None:
            await self._trouble.befall(self._caller)
        return await self._exchange(call, arguments, limit_us)

    async def _exchange(self, call: str, arguments: dict[str, Any], limit_us: int) -> Any:
        return await self._ask(call, lambda vmms: getattr(vmms, call)(**arguments), limit_us=limit_us)

    async def notices(self) -> AsyncIterator[VmNotice]:
        """Notices of the process that is there; ends when that process ends."""
        vmms, subscription = self._subscribe()
        while True:
            yield await self._ask(NOTICES_CALL, lambda _: anext(subscription), of=vmms)

    def _subscribe(self) -> tuple[Vmms, Subscription]:
        vmms = self._process.vmms
        if vmms is None:
            raise EngineUnanswered("VMMS is not there")
        return vmms, vmms.notices()

    async def _ask(
        self,
        name: str,
        call: Callable[[Vmms], Coroutine[Any, Any, T]],
        *,
        limit_us: int | None = None,
        of: Vmms | None = None,
    ) -> T:
        answer: Pending[T] = self._caller.pending()

        def settle(value: T) -> None:
            if not answer.done():
                answer.set_result(value)

        def fail(error: Exception) -> None:
            if not answer.done():
                answer.set_exception(error)

        async def run(vmms: Vmms) -> None:
            try:
                value = await call(vmms)
            except StopAsyncIteration:
                self._clock.after(HOP_US, lambda: fail(EngineUnanswered("the stream of notices ended")))
            except Exception as error:  # noqa: BLE001 - every answer travels, errors too
                failure = error
                self._clock.after(HOP_US, lambda: fail(failure))
            else:
                self._clock.after(HOP_US, lambda: settle(value))

        def begin(vmms: Vmms, runtime: SimulatedRuntime) -> None:
            runtime.spawn(run(vmms), name="call of VMMS")

        def arrive() -> None:
            vmms, runtime = self._process.vmms, self._process.runtime
            if vmms is None or runtime is None or (of is not None and vmms is not of):
                fail(EngineUnanswered("VMMS is not there"))
            else:
                self._process.wait_for_answer(answer)
                runtime.when_running(partial(begin, vmms, runtime))

        self._clock.after(HOP_US, arrive)
        if limit_us is None:
            return await answer
        limit = Timer(
            lambda: fail(EngineUnanswered(f"{name}: VMMS has not answered within {limit_us / 1e6:g} s"))
        )
        self._clock.after(limit_us, limit)
        try:
            return await answer
        finally:
            limit.call_off()


class FramedVmmsLink(VmmsLink):
    """The same with frames on the way: what the live socket's two ends do to calls, answers, errors and notices."""

    def __init__(
        self,
        clock: Clock,
        process: VmmsProcess,
        caller: SimulatedRuntime,
        trouble: CallFault | None = None,
        *,
        frames: Frames,
    ) -> None:
        super().__init__(clock, process, caller, trouble)
        self._frames = frames
        self._numbers = itertools.count(1)

    async def _exchange(self, call: str, arguments: dict[str, Any], limit_us: int) -> Any:
        asked = self._frames.encode(call_message(next(self._numbers), call, arguments))
        answer = await self._ask(call, lambda vmms: self._answer(vmms, asked), limit_us=limit_us)
        return result_in(call, self._frames.decode(answer))

    async def _answer(self, vmms: Vmms, asked: bytes) -> bytes:
        message = self._frames.decode(asked)
        answer = await carry_out(vmms, message)
        try:
            return self._frames.encode(answer)
        except FrameError as error:
            return self._frames.encode(refusal(message, f"the answer is too large: {error}"))

    async def notices(self) -> AsyncIterator[VmNotice]:
        """See `VmmsLink`."""
        vmms, subscription = self._subscribe()
        while True:
            told = await self._ask(NOTICES_CALL, lambda _: self._told(subscription), of=vmms)
            yield notice_in(self._frames.decode(told))

    async def _told(self, subscription: Subscription) -> bytes:
        return self._frames.encode(notice_message(await anext(subscription)))
