"""`node.isolate`: a node is cut off from the network, while it and its VMs run on.

All packets to and from everybody else are dropped, in both directions, but for its own loopback and the port of the
node API. The cut stays through the node's lives (it is fenced and powered on again while it is cut) until
`node.join-network`. With `from` only the named nodes are cut off from it, with `direction` only one way: then each
side may hold the other for dead while it is itself heard.
"""

from collections.abc import Mapping
from typing import Any

from chaos.arena.port import Arena, Direction, Effect, IsolateNode, NetworkSeen, wait_until
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt, node_container, vms_on
from chaos.faults.kinds import FaultArgument, TargetKind
from chaos.history.records import FaultMoment

__all__ = ["NodeIsolate"]


class NodeIsolate:
    """The fault. Immutable."""

    name = "node.isolate"
    target = TargetKind.NODE
    effect: type[Effect] = IsolateNode
    undo = "node.join-network"
    heals: frozenset[str] = frozenset()
    arguments: Mapping[str, FaultArgument] = {"from": FaultArgument.NODES, "direction": FaultArgument.DIRECTION}

    def __init__(self, *, peers: tuple[str, ...] = (), direction: Direction = Direction.BOTH) -> None:
        self._peers = peers
        self._direction = direction

    def adjusted(self, arguments: Mapping[str, Any]) -> "NodeIsolate":
        """With `from`, the names of nodes, and `direction`."""
        return NodeIsolate(
            peers=tuple(arguments.get("from", ())),
            direction=Direction(arguments.get("direction", Direction.BOTH)),
        )

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The node must run, not be frozen and not be cut off."""
        containers = await arena.containers()
        seen = node_container(containers, target)
        if not seen.running or seen.paused:
            raise FaultRefused(f"node {target} is {'frozen' if seen.paused else 'off'}: no rule can be laid in it")
        if target in self._peers:
            raise FaultRefused(f"node {target} cannot be cut off from itself")
        network = await arena.network(target)
        if network.cut or network.kept:
            raise FaultRefused(f"node {target} is cut off already: node.join-network first")
        vms = tuple(found.vm for found in vms_on(containers, target))
        effect = IsolateNode(node=target, peers=self._peers, direction=self._direction)
        # A partial cut may leave the node its majority, and its VMs with it.
        whole = not self._peers and self._direction is Direction.BOTH
        return Plan(target=target, effect=effect, affected=vms if whole else ())

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when the rules have dropped packets, and what another node sends it is not answered."""
        node = plan.target
        last: list[NetworkSeen] = []

        async def look() -> str:
            last[:] = [await arena.network(node)]
            seen = last[0]
            if not seen.cut:
                return f"no rule drops packets in {node}"
            if seen.reached:
                return f"{node} answers {seen.prober}"
            return "" if seen.dropped else f"the rules in {node} have dropped nothing"

        is_cut, problem = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if not is_cut:
            return Receipt(outcome=FaultMoment.MISMATCH, seen=f"after {RECEIPT_LIMIT_US / 1e6:g} s {problem}")
        probe = f"does not answer {last[0].prober}" if last[0].prober else "no other node was there to ask it"
        after_ms = (arena.unix_ns() - at_ns) / 1e6
        return Receipt(
            outcome=FaultMoment.CONFIRMED,
            seen=f"node {node} has dropped {last[0].dropped} packets after {after_ms:.0f} ms; {probe}",
        )
