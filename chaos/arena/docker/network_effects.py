"""Cutting a node off with firewall rules in its network namespace, and looking at what they do.

All rules of a cut come into force at once, by one iptables-restore. They stand in chains of their own, so that a cut is
recognised and taken away whatever else is in the table. The namespace ends with each life of a node and the rules with
it: `Cuts` remembers which nodes are cut off, and whoever hears of a new life has it lay them again.
"""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import docker

from chaos.arena.docker.in_node import ping
from chaos.arena.port import Direction, IsolateNode, NetworkSeen
from harness.errors import EngineError, HarnessError, UsageError, WaitTimeout
from harness.live.node_api_endpoints import API_PORT
from harness.model.object_names import node_container
from harness.model.topology import Topology
from harness.rig.engine.exec import Finished, run_inside

__all__ = ["Cuts", "rules_of_cut"]

LIMIT_S = 5.0
"""One small command in a node took 0.1 s."""
LAY_ATTEMPTS = 5
LAY_INTERVAL_S = 0.1
CHAIN_IN, CHAIN_OUT = "BLACKSTART-CUT-IN", "BLACKSTART-CUT-OUT"

LAY = f"""
for tool in iptables-nft iptables-legacy; do
    $tool -w 2 -nL {CHAIN_IN} >/dev/null 2>&1 && date +%s%N && exit 0
    at=$(date +%s%N)
    printf '%s' "$1" | $tool-restore -w 2 --noflush && echo $at && exit 0
done
exit 1
"""
LIFT = f"""
for tool in iptables-nft iptables-legacy; do
    $tool -w 2 -nL {CHAIN_IN} >/dev/null 2>&1 || continue
    printf '%s' "$1" | $tool-restore -w 2 --noflush || exit 1
done
exit 0
"""
COUNT = f"""
for tool in iptables-nft iptables-legacy; do
    $tool -w 2 -nL {CHAIN_IN} >/dev/null 2>&1 && echo cut
    for chain in {CHAIN_IN} {CHAIN_OUT}; do $tool -w 2 -nvxL $chain 2>/dev/null | grep -w DROP; done
done
exit 0
"""
RULES_OF_LIFT = f"""*filter
-D INPUT -j {CHAIN_IN}
-D OUTPUT -j {CHAIN_OUT}
-F {CHAIN_IN}
-F {CHAIN_OUT}
-X {CHAIN_IN}
-X {CHAIN_OUT}
COMMIT
"""


def rules_of_cut(*, peers: Sequence[str], direction: Direction) -> str:
    """What iptables-restore is to be told. `peers` are addresses; without any, everybody is cut off."""
    lines = [
        "*filter",
        f":{CHAIN_IN} - [0:0]",
        f":{CHAIN_OUT} - [0:0]",
        f"-A {CHAIN_IN} -i lo -j RETURN",
        f"-A {CHAIN_OUT} -o lo -j RETURN",
        # A fault must never cut the harness off from what it asks.
        f"-A {CHAIN_IN} -p tcp --dport {API_PORT} -j RETURN",
        f"-A {CHAIN_OUT} -p tcp --sport {API_PORT} -j RETURN",
    ]
    if direction is not Direction.OUT:
        lines += [f"-A {CHAIN_IN} -s {peer} -j DROP" for peer in peers] or [f"-A {CHAIN_IN} -j DROP"]
    if direction is not Direction.IN:
        lines += [f"-A {CHAIN_OUT} -d {peer} -j DROP" for peer in peers] or [f"-A {CHAIN_OUT} -j DROP"]
    return "\n".join([*lines, f"-I INPUT 1 -j {CHAIN_IN}", f"-I OUTPUT 1 -j {CHAIN_OUT}", "COMMIT", ""])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    peers: tuple[str, ...]
    rules: str


class Cuts:
    """The cuts of one rig. Its calls may come from several threads.

    Invariant: a node in `nodes` is cut off in its present life, or will be as soon as `lay_again` is called for it.
    """

    def __init__(self, client: docker.DockerClient, topology: Topology) -> None:
        self._client = client
        self._rig = topology.rig
        self._addresses = {node.name: node.address for node in topology.nodes}
        self._peers = {spec.name: spec.address for spec in topology.everybody}
        # Two who lay the same rules at once would lay them twice.
        self._locks = {node.name: threading.Lock() for node in topology.nodes}
        self._cuts: dict[str, _Cut] = {}

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that are to be cut off in every life."""
        return frozenset(self._cuts)

    def isolate(self, effect: IsolateNode) -> int:
        """Cuts a node off; the answer is when, in Unix nanoseconds. Raises UsageError, EngineError, HarnessError."""
        unknown = [node for node in (effect.node,) if node not in self._addresses]
        unknown += [peer for peer in effect.peers if peer not in self._peers]
        if unknown:
            raise UsageError(f"rig {self._rig} has no node {', '.join(unknown)}")
        addresses = [self._peers[peer] for peer in effect.peers]
        with self._locks[effect.node]:
            cut = _Cut(peers=effect.peers, rules=rules_of_cut(peers=addresses, direction=effect.direction))
            # Remembered first: the node may begin a new life while the rules are laid.
            self._cuts[effect.node] = cut
            return self._lay(effect.node, cut)

    def lay_again(self, node: str) -> None:
        """Cuts the node's new life off, if the node is to be. Raises HarnessError when that life is not cut off."""
        with self._locks[node]:
            cut = self._cuts.get(node)
            if cut is not None:
                self._lay(node, cut)

    def join(self, node: str) -> int:
        """Takes a cut away, and forgets it. Raises HarnessError when that failed again and again."""
        with self._locks[node]:
            self._cuts.pop(node, None)
            at_ns = time.time_ns()
            command = ["sh", "-c", LIFT, "lift", RULES_OF_LIFT]
            self._carry_out(node, command, "the cut of {node} could not be taken away")
        return at_ns

    def look(self, node: str) -> NetworkSeen:
        """The node's network now. Raises nothing for a node that does not run: that one is not cut."""
        cut = self._cuts.get(node)
        prober, reached = self._ask_from_outside(node, cut)
        try:
            told = self._inside(node, ["sh", "-c", COUNT]).stdout.splitlines()
        except (EngineError, WaitTimeout):
            return NetworkSeen(cut=False, kept=cut is not None)
        dropped = sum(int(line.split()[0]) for line in told if "DROP" in line)
        return NetworkSeen(
            cut="cut" in told, kept=cut is not None, dropped=dropped, reached=reached, prober=prober
        )

    def _lay(self, node: str, cut: _Cut) -> int:
        told = self._carry_out(node, ["sh", "-c", LAY, "lay", cut.rules], "{node} could not be cut off")
        return int(told.split()[-1]) if told is not None else time.time_ns()

    def _carry_out(self, node: str, command: list[str], failing: str) -> str | None:
        """What the command said inside the node; None when the node does not run, and has no rules then."""
        said = ""
        for _ in range(LAY_ATTEMPTS):
            try:
                finished = self._inside(node, command)
            except EngineError as error:
                if not self._runs(node):
                    return None  # killed just now: its next life is told of, too
                said = str(error)
            else:
                if finished.exit_code == 0:
                    return finished.stdout
                # The node's first process ends what is not its own when a lease ends, and this is not.
                said = finished.stderr.strip() or f"status {finished.exit_code}"
            time.sleep(LAY_INTERVAL_S)
        raise HarnessError(f"{failing.format(node=node)} in {LAY_ATTEMPTS} attempts: {said[-500:]}")

    def _ask_from_outside(self, node: str, cut: _Cut | None) -> tuple[str, bool | None]:
        """Who asked, and whether the node answered. A node that is cut off itself is no witness."""
        others = cut.peers if cut is not None and cut.peers else tuple(self._addresses)
        source = Path(ping.__file__).read_text(encoding="utf-8")
        address = self._addresses.get(node, "")
        for prober in others:
            if prober == node or prober in self._cuts or prober not in self._addresses:
                continue
            try:
                finished = self._inside(prober, ["python3", "-I", "-c", source, address])
                return prober, bool(json.loads(finished.stdout)[address])
            except (EngineError, WaitTimeout, ValueError, KeyError):
                continue  # it is off, frozen, or dies just now: the next one
        return "", None

    def _runs(self, node: str) -> bool:
        filters = {"name": [f"^/{node_container(self._rig, node)}$"], "status": ["running"]}
        return bool(self._client.api.containers(filters=filters))

    def _inside(self, node: str, command: list[str]) -> Finished:
        return run_inside(self._client, node_container(self._rig, node), command, user="0", limit_s=LIMIT_S)
