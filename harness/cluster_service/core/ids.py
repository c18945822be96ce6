"""Numbers for changes, requests and calls: counters, never random, so that a run can be repeated."""

__all__ = ["Ids"]


class Ids:
    """Unique within one process of the service; whoever needs more puts a name of the process before it."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """The next unused number."""
        self._last += 1
        return self._last
