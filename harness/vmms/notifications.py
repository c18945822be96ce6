"""Who wants to know when a VM changes."""

from collections import deque
from collections.abc import Iterable

from harness.errors import EngineUnanswered
from harness.model.vm import VmNotice
from harness.ports import Pending, Runtime

__all__ = ["Notifications", "Subscription"]

QUEUE_LIMIT = 10_000
"""More than one notice for each VM of the largest rig: a reader so far behind is hung, and reads the views anew.
"""


class Notifications:
    """Hands every notice to every subscription."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._subscriptions: list[Subscription] = []

    def publish(self, notice: VmNotice) -> None:
        """Never waits; a subscription that is hopelessly behind is ended."""
        for subscription in list(self._subscriptions):
            if not subscription.put(notice):
                self._subscriptions.remove(subscription)

    def subscribe(self, first: Iterable[VmNotice]) -> "Subscription":
        """From now on, after the notices in `first`."""
        subscription = Subscription(self._runtime, first)
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: "Subscription") -> None:
        """Its reader is gone."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)


class Subscription:
    """An endless iterator of notices; ends with EngineUnanswered when its reader fell too far behind."""

    def __init__(self, runtime: Runtime, first: Iterable[VmNotice]) -> None:
        self._runtime = runtime
        self._queue: deque[VmNotice] = deque(first)
        self._overrun = False
        self._arrived: Pending[None] = runtime.pending()

    def put(self, notice: VmNotice) -> bool:
        """False when the queue is full."""
        if len(self._queue) >= QUEUE_LIMIT:
            self._overrun = True
        else:
            self._queue.append(notice)
        if not self._arrived.done():
            self._arrived.set_result(None)
        return not self._overrun

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> VmNotice:
        while not self._queue:
            if self._overrun:
                raise EngineUnanswered(f"notices of VMs: the reader was {QUEUE_LIMIT} behind; subscribe again")
            if self._arrived.done():
                self._arrived = self._runtime.pending()
            await self._arrived
        return self._queue.popleft()
