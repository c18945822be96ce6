"""Watchers of what a node asks for in the name of its service, fed like those of `watch` with every event.

- Orders in time: nothing is started under an order whose time has passed by the clock of the node that gave it.
- What is settled stays: while a change of the service before this one may still be chosen, nothing of its group is
  started.
"""

from collections.abc import Callable

from harness.database.register import Stored
from harness.model.host_messages import EntryPoint, HostRequest
from harness.model.register_keys import group_key
from harness.simulation.invariants.starts import ChosenValueOracle
from harness.simulation.twins.container import SimulatedContainer

__all__ = ["OrdersInTime", "SettledBeforeItActs"]


class OrdersInTime:
    """Hook `asked` to every node's calls of its resource host, and `ordered` to every node's way to its engine. `now`
    tells what the clock of a node says.
    """

    def __init__(self, *, now: Callable[[str], int], told: Callable[[str], None]) -> None:
        self._now = now
        self._told = told
        self._not_after_us: dict[tuple[str, str], int] = {}

    def asked(self, node: str, request: HostRequest) -> None:
        """A service asks something of its resource host."""
        if request.entry_point is EntryPoint.ONLINE:
            order = node, request.resource
            self._not_after_us[order] = max(request.not_after_us, self._not_after_us.get(order, 0))

    def ordered(self, box: SimulatedContainer, now_us: int) -> None:
        """Somebody orders that container to start."""
        del now_us
        if box.is_node:
            return
        not_after_us = self._not_after_us.get((box.node, box.vm))
        if not_after_us is None:
            self._told(f"VM {box.vm} is ordered to start on {box.node}, and no service asked for it")
        elif self._now(box.node) > not_after_us:
            late_s = (self._now(box.node) - not_after_us) / 1e6
            self._told(f"VM {box.vm} is ordered to start on {box.node} {late_s:.6f} s after its order's time")


class SettledBeforeItActs:
    """Hook `asked` to every node's calls of its resource host, and `chose` to the chosen values. `since` tells when
    the service of a node was started last.
    """

    def __init__(
        self,
        *,
        chosen: ChosenValueOracle,
        since: Callable[[str], int],
        now: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._chosen = chosen
        self._since = since
        self._now = now
        self._told = told
        self._acted_us: dict[tuple[str, str], int] = {}

    def asked(self, node: str, request: HostRequest) -> None:
        """A service asks something of its resource host."""
        acts = request.entry_point is EntryPoint.ONLINE or (request.entry_point is EntryPoint.OPEN and request.adopt)
        about = node, group_key(request.group)
        if acts and self._acted_us.get(about, -1) < self._since(node):
            self._acted_us[about] = self._now()

    def chose(self, key: str, older: Stored, newer: Stored) -> None:
        """A register has a newer content."""
        del older, newer
        node, proposed_us = self._chosen.proposed_by, self._chosen.proposed_us
        acted_us = self._acted_us.get((node, key))
        if acted_us is not None and proposed_us < self._since(node) <= acted_us:
            self._told(
                f"register {key}: what an earlier service of {node} proposed at {proposed_us / 1e6:.6f} s is chosen,"
                f" although {node} has acted on the group at {acted_us / 1e6:.6f} s"
            )
