"""Those who have asked a simulated node's service something and wait for its answer."""

import random
from collections.abc import Callable

from harness.cluster_service.core.messages import RequestAnswered
from harness.simulation.kernel.runtime import Clock

__all__ = ["Askers"]

WAY_BACK_US = (80, 300)


class Askers:
    """Each is told once, or never when the service dies first."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._requests = 0
        self._waiting: dict[int, Callable[[RequestAnswered], None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, answered: Callable[[RequestAnswered], None]) -> int:
        """The number of the request to which the answer belongs."""
        self._requests += 1
        self._waiting[self._requests] = answered
        return self._requests

    def answer(self, answer: RequestAnswered) -> None:
        """The service has answered."""
        asker = self._waiting.pop(answer.id)
        self._clock.after(self._rng.randint(*WAY_BACK_US), lambda: asker(answer))

    def forget(self) -> None:
        """The service is gone."""
        self._waiting.clear()
