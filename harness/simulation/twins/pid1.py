"""PID 1 of a simulated node: the twin of the image's init, with its two deadlines and its habit of looking at the clock
before it listens.
"""

from collections.abc import Callable

from harness.simulation.kernel.runtime import Clock

__all__ = ["SimulatedInit"]

BOOT_GRACE_US = 60_000_000


class SimulatedInit:
    """PID 1's deadlines. The first ends the guests, the second the node; both are looked at before any pet is read."""

    def __init__(self, clock: Clock, *, kill_guests: Callable[[], None], reset: Callable[[], None]) -> None:
        self._clock = clock
        self._kill_guests = kill_guests
        self._reset = reset
        self._guests_end_us = 0
        self._node_ends_us = clock.now_us + BOOT_GRACE_US
        self._held = False
        self._over = False
        self._guests_ended = False
        self._armed_us = 0
        self._arm()

    def pet(self, guests_end_us: int, node_ends_us: int) -> None:
        """The service writes to the pipe; read only after the deadlines were looked at."""
        if self._over or self._held:
            return
        self._look()
        if self._over or (guests_end_us == 0 and self._guests_end_us):
            return
        self._guests_end_us, self._node_ends_us = guests_end_us, node_ends_us
        self._guests_ended = False
        self._arm()

    def hold(self) -> None:
        """Frozen with the node."""
        self._held = True

    def release(self) -> None:
        """Thawed: the clock first."""
        self._held = False
        self._wake()

    def end(self) -> None:
        """The node is gone."""
        self._over = True

    def _arm(self) -> None:
        """Look at the next deadline. Nearly all are put off: then the look at the old one arms the new one."""
        due_us = self._node_ends_us
        if 0 < self._guests_end_us < due_us and not self._guests_ended:
            due_us = self._guests_end_us
        if not self._clock.now_us < self._armed_us <= due_us:
            self._armed_us = due_us
            self._clock.at(due_us, self._wake)

    def _wake(self) -> None:
        self._look()
        if not self._over and not self._held:
            self._arm()

    def _look(self) -> None:
        if self._over or self._held:
            return
        now = self._clock.now_us
        if now >= self._node_ends_us:
            self._over = True
            self._reset()
        elif 0 < self._guests_end_us <= now and not self._guests_ended:
            self._guests_ended = True
            self._kill_guests()
