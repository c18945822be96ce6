"""`voter.free-disk`: the disk of a node's voter has room again. It heals `voter.disk-full`.

PID 1 starts the voter again within the five seconds of its longest pause.
"""

from chaos.arena.port import Arena, Effect, wait_until
from chaos.arena.process_effects import FreeVoterDisk, NodeProgram
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt, node_container
from chaos.faults.kinds import TargetKind
from chaos.faults.program import look_at, unless_died
from chaos.history.records import FaultMoment
from harness.errors import HarnessError

__all__ = ["VoterFreeDisk"]


class VoterFreeDisk:
    """The file that filled a voter's disk goes: the voter lives and answers again."""

    name = "voter.free-disk"
    target = TargetKind.NODE
    effect: type[Effect] = FreeVoterDisk
    undo = ""
    heals = frozenset({"voter.disk-full"})

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The node must be on and not frozen, and its voter's disk be full.

        Raises HarnessError for a node that is off or frozen: its disk stays full, and cannot be reached.
        """
        seen = node_container(await arena.containers(), target)
        if not seen.running or seen.paused:
            state = "frozen" if seen.running else "off"
            raise HarnessError(f"the voter's disk of {target} cannot be reached: the node is {state}")
        disk = (await arena.inside(target)).disk
        if disk is None or not disk.limited or disk.free:
            free = disk.free if disk is not None else "no"
            raise FaultRefused(f"the voter's disk of {target} is not full: {free} bytes are free")
        return Plan(target=target, effect=FreeVoterDisk(node=target))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when the disk has room and the voter answers."""
        node = plan.target

        async def look() -> str:
            inside = await look_at(arena, node, NodeProgram.VOTER)
            if isinstance(inside, str):
                return inside
            if inside.disk is None or not inside.disk.free:
                return f"the voter's disk of {node} is still full"
            return "" if inside.answers.get(NodeProgram.VOTER) else f"the voter of {node} does not answer"

        is_free, problem = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if is_free:
            after_ms = (arena.unix_ns() - at_ns) / 1e6
            seen = f"the voter of {node} answers, and its disk has room, after {after_ms:.0f} ms"
            return Receipt(outcome=FaultMoment.CONFIRMED, seen=seen)
        return unless_died(arena, node, problem, since_ns=at_ns)
