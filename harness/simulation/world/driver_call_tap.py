"""What resource hosts call of their drivers, told to whoever watches.

The drivers stay as they are: what a host gets in their place hands every call on. Polls are not told.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from harness.model.host_messages import EntryPoint
from harness.resource_host.driver import DriverContext, DriverFactory, DriverServices

__all__ = ["DriverCall", "DriverCalls"]

_TOLD = frozenset(str(entry) for entry in EntryPoint)


@dataclass(slots=True, eq=False)
class DriverCall:
    """One call. `driver` is another one in every resource host."""

    node: str
    driver: object
    resource: str
    entry_point: EntryPoint


class DriverCalls:
    """`on_begun` hears of every call; `on_ended` of its end, with what it returned or raised: None when it was ended
    from outside.
    """

    def __init__(self) -> None:
        self.on_begun: list[Callable[[DriverCall], None]] = []
        self.on_ended: list[Callable[[DriverCall, object], None]] = []

    def told(self, drivers: Mapping[str, DriverFactory]) -> dict[str, DriverFactory]:
        """The same drivers, whose calls are told."""
        return {name: partial(self._made, make) for name, make in drivers.items()}

    def _made(self, make: DriverFactory, services: DriverServices) -> "_ObservedDriver":
        return _ObservedDriver(make(services), self)


class _ObservedDriver:
    """Has the entry points that its driver has."""

    def __init__(self, driver: object, calls: DriverCalls) -> None:
        self._driver = driver
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._driver, name)
        told = self.__dict__[name] = partial(self._call, EntryPoint(name), function) if name in _TOLD else function
        return told

    async def _call(
        self, entry_point: EntryPoint, function: Callable[[DriverContext], Awaitable[Any]], context: DriverContext
    ) -> Any:
        call = DriverCall(context.session.node, self._driver, context.resource, entry_point)
        outcome: object = None
        for begun in self._calls.on_begun:
            begun(call)
        try:
            outcome = await function(context)
        except Exception as error:
            outcome = error
            raise
        finally:
            for ended in self._calls.on_ended:
                ended(call, outcome)
        return outcome
