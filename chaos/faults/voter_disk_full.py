"""`voter.disk-full`: the disk of a node's voter is full, to the last byte.

It writes every change before it acknowledges it, so it ends at its next write; PID 1 starts it again and again, and
each time it loads its file and dies at the first write. The majority of the others goes on. Needs voters with disks of
a size of their own (`settings: {voter-disk: 64MiB}`), because a full one must fill nothing else; an experiment that
uses this fault has them without asking.
"""

from chaos.arena.port import Arena, Effect, wait_until
from chaos.arena.process_effects import FillVoterDisk, NodeProgram
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt
from chaos.faults.kinds import TargetKind
from chaos.faults.program import look_at, running_program, unless_died
from chaos.history.records import FaultMoment

__all__ = ["VoterDiskFull"]


class VoterDiskFull:
    """A file takes all that is free on a voter's disk: the voter dies at its next write, again and again."""

    name = "voter.disk-full"
    target = TargetKind.NODE
    effect: type[Effect] = FillVoterDisk
    undo = "voter.free-disk"
    heals: frozenset[str] = frozenset()

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The node must be on and not frozen, a voter must run in it, and its disk must have a size of its own."""
        seen = await running_program(arena, target, NodeProgram.VOTER)
        disk = (await arena.inside(target)).disk
        if disk is None or not disk.limited:
            raise FaultRefused(
                f"the voter's disk of {target} has no size of its own, so filling it would fill the engine's; "
                "a rig with settings: {voter-disk: 64MiB} has one"
            )
        if not disk.free:
            raise FaultRefused(f"the voter's disk of {target} is full already")
        return Plan(target=target, effect=FillVoterDisk(node=target, pid=seen.pid, started=seen.started))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when not a byte is free on the disk and the process that was the voter has died of it."""
        assert isinstance(plan.effect, FillVoterDisk)
        old, node = plan.effect, plan.target

        async def look() -> str:
            inside = await look_at(arena, node)
            if isinstance(inside, str):
                return inside
            if inside.disk is None or inside.disk.free:
                return f"the voter's disk of {node} has {inside.disk.free if inside.disk else 'no'} bytes free"
            seen = inside.programs.get(NodeProgram.VOTER)
            still = seen is not None and (seen.pid, seen.started) == (old.pid, old.started)
            return f"the voter of {node} lives on with a full disk (process {old.pid})" if still else ""

        is_full, problem = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if is_full:
            after_ms = (arena.unix_ns() - at_ns) / 1e6
            seen = f"the voter's disk of {node} is full, and process {old.pid} died of it within {after_ms:.0f} ms"
            return Receipt(outcome=FaultMoment.CONFIRMED, seen=seen)
        return unless_died(arena, node, problem, since_ns=at_ns)
