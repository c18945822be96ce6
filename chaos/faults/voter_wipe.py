"""`voter.wipe`: a node's voter loses its files and its life at once, so that it comes back empty.

An empty voter has forgotten what it promised and accepted, so it must not vote before it has been admitted again as a
new one. The majority of the others goes on. There is nothing to undo: the files are gone.
"""

from chaos.arena.port import Arena, Effect, wait_until
from chaos.arena.process_effects import NodeProgram, WipeVoter
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt
from chaos.faults.kinds import TargetKind
from chaos.faults.program import look_at, running_program, unless_died
from chaos.history.records import FaultMoment

__all__ = ["VoterWipe"]

SAME_TIME_NS = 100_000_000
"""A file's time comes from a coarser clock than ours: some milliseconds behind it."""


class VoterWipe:
    """A voter is killed and its files are removed at once: it comes back empty."""

    name = "voter.wipe"
    target = TargetKind.NODE
    effect: type[Effect] = WipeVoter
    undo = ""
    heals: frozenset[str] = frozenset()

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The node must be on and not frozen, a voter must run in it, and not be stopped."""
        seen = await running_program(arena, target, NodeProgram.VOTER)
        if seen.hangs:
            raise FaultRefused(f"the voter of {target} is stopped (process {seen.pid}): voter.thaw first")
        return Plan(target=target, effect=WipeVoter(node=target, pid=seen.pid, started=seen.started))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when another process is the voter, it answers, and no file of its disk is older than the wipe."""
        assert isinstance(plan.effect, WipeVoter)
        old, node = plan.effect, plan.target

        async def look() -> str:
            inside = await look_at(arena, node, NodeProgram.VOTER)
            if isinstance(inside, str):
                return inside
            seen, disk = inside.programs.get(NodeProgram.VOTER), inside.disk
            if seen is None or (seen.pid, seen.started) == (old.pid, old.started):
                return f"the voter of {node} has not come back"
            if disk is None or (disk.files and disk.oldest_ns < at_ns - SAME_TIME_NS):
                return f"the disk of the voter of {node} has a file from before the wipe"
            return "" if inside.answers.get(NodeProgram.VOTER) else f"the voter of {node} does not answer"

        is_empty, problem = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if is_empty:
            after_ms = (arena.unix_ns() - at_ns) / 1e6
            seen = f"the voter of {node} is back without any earlier file, {after_ms:.0f} ms after the wipe"
            return Receipt(outcome=FaultMoment.CONFIRMED, seen=seen)
        return unless_died(arena, node, problem, since_ns=at_ns)
