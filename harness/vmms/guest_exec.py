"""Commands inside VMs: begun, looked after until they end or the caller has waited enough.

The engine can begin a command and not end one, and the stream of its output can hang for ever when its VM is
killed. So the status is asked for again and again, and a command that has not ended is joined by the next caller: a
check that hangs must not fill its VM with checks.
"""

from dataclasses import dataclass

from harness.errors import NoSuchContainer
from harness.model.topology import SECOND_US
from harness.ports import Engine, Runtime

__all__ = ["GuestExec"]

FIRST_PAUSE_US = 20_000
MAX_PAUSE_US = 200_000
JOINED_US = 60 * SECOND_US
"""After so long nobody waits for it any more: the engine may have lost sight of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    name: str
    at_us: int


class GuestExec:
    """The commands under way, by container and words."""

    def __init__(self, *, runtime: Runtime, engine: Engine) -> None:
        self._runtime = runtime
        self._engine = engine
        self._under_way: dict[tuple[str, tuple[str, ...]], _Begun] = {}

    async def run(self, container: str, command: tuple[str, ...], *, limit_us: int) -> int | None:
        """Its status, or None after `limit_us` microseconds. Raises EngineError when it cannot be begun or is lost."""
        now = self._runtime.now()
        ends_us = now + limit_us
        self._under_way = {key: begun for key, begun in self._under_way.items() if now - begun.at_us < JOINED_US}
        key = (container, command)
        begun = self._under_way.get(key)
        if begun is None:
            name = await self._engine.begin_inside(container, command)
            begun = self._under_way[key] = _Begun(name=name, at_us=now)
        pause_us = FIRST_PAUSE_US
        while True:
            try:
                status = await self._engine.ended_inside(begun.name)
            except NoSuchContainer:
                self._forget(key, begun)
                raise
            if status is not None:
                self._forget(key, begun)
                return status
            left_us = ends_us - self._runtime.now()
            if left_us <= 0:
                return None
            await self._runtime.sleep(min(pause_us, left_us))
            pause_us = min(2 * pause_us, MAX_PAUSE_US)

    def _forget(self, key: tuple[str, tuple[str, ...]], begun: _Begun) -> None:
        if self._under_way.get(key) is begun:
            del self._under_way[key]
