"""What the faults on a node's programs share: kill, hang, thaw, each of one program and one file.

A program is one of the four that PID 1 keeps: cluster service, resource host, VMMS, voter. It is signalled from inside
the node by a command of root's, past the engine and past PID 1, and what came of it is read from /proc and from the
program's own socket. A node that is off or frozen cannot be looked into.
"""

from chaos.arena.port import Arena, Effect, wait_until
from chaos.arena.process_effects import NodeInside, NodeProgram, ProgramSeen, ProgramSignal, SignalProgram
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused, Plan, Receipt, node_container, node_events, vms_on
from chaos.faults.kinds import TargetKind
from chaos.history.records import FaultMoment
from harness.errors import BlackstartError, HarnessError

__all__ = ["WORDS", "ProgramHang", "ProgramKill", "ProgramThaw", "look_at", "running_program", "unless_died"]

WORDS = {
    NodeProgram.SERVICE: "cluster service",
    NodeProgram.RESOURCE_HOST: "resource host",
    NodeProgram.VMMS: "VMMS",
    NodeProgram.VOTER: "voter",
}


class ProgramKill:
    """SIGKILL to a program; PID 1 starts it again."""

    name: str
    program: NodeProgram
    target = TargetKind.NODE
    effect: type[Effect] = SignalProgram
    undo = ""
    heals: frozenset[str] = frozenset()

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The node must be on and not frozen, and a process of the program must run in it."""
        seen = await running_program(arena, target, self.program)
        return Plan(target=target, effect=_signal(target, self.program, seen, ProgramSignal.KILL))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when /proc shows no such process any more, or another one in its place."""
        assert isinstance(plan.effect, SignalProgram)
        old, word, node = plan.effect, WORDS[self.program], plan.target
        successor: list[ProgramSeen | None] = []

        async def look() -> str:
            inside = await look_at(arena, node)
            if isinstance(inside, str):
                return inside
            seen = inside.programs.get(self.program)
            if seen is not None and (seen.pid, seen.started) == (old.pid, old.started):
                return f"the {word} of {node} is still process {old.pid}"
            successor[:] = [seen]
            return ""

        is_gone, problem = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if not is_gone:
            return _unseen(arena, node, at_ns, problem)
        after_ms = (arena.unix_ns() - at_ns) / 1e6
        now = f"process {successor[0].pid} runs" if successor[0] is not None else "none runs yet"
        seen = f"process {old.pid}, the {word} of {node}, is gone; {now} {after_ms:.0f} ms after the kill"
        return Receipt(outcome=FaultMoment.CONFIRMED, seen=seen)


class ProgramHang:
    """SIGSTOP to a program and its children."""

    name: str
    program: NodeProgram
    target = TargetKind.NODE
    effect: type[Effect] = SignalProgram
    undo: str
    heals: frozenset[str] = frozenset()
    ends_node = False
    """Whether the node's VMs end by it when it lasts."""

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The node must be on and not frozen, and a process of the program must run in it, not stopped already. It must
        answer: else it would prove nothing that it does not answer afterwards.
        """
        seen = await running_program(arena, target, self.program)
        if seen.hangs:
            raise FaultRefused(f"the {WORDS[self.program]} of {target} is stopped already (process {seen.pid})")
        if self.program.answers:
            inside = await arena.inside(target, ask=(self.program,))
            if not inside.answers.get(self.program):
                raise FaultRefused(f"the {WORDS[self.program]} of {target} does not answer as it is")
        vms: tuple[str, ...] = ()
        if self.ends_node:
            vms = tuple(found.vm for found in vms_on(await arena.containers(), target))
        effect = _signal(target, self.program, seen, ProgramSignal.STOP)
        return Plan(target=target, effect=effect, affected=vms)

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when /proc shows the process in state T and it does not answer on its socket, if it has one; for
        the cluster service also when the node has been reset meanwhile.
        """
        assert isinstance(plan.effect, SignalProgram)
        old, word, node = plan.effect, WORDS[self.program], plan.target
        ask = (self.program,) if self.program.answers else ()

        async def look() -> str:
            if self.ends_node and node_events(arena, node, "die", since_ns=at_ns):
                return ""
            inside = await look_at(arena, node, *ask)
            if isinstance(inside, str):
                return inside
            seen = inside.programs.get(self.program)
            if seen is None or (seen.pid, seen.started) != (old.pid, old.started):
                return f"process {old.pid}, the {word} of {node}, is gone"
            if not seen.hangs:
                return f"the {word} of {node} is in state {seen.state}"
            return f"the {word} of {node} answers" if inside.answers.get(self.program) else ""

        hangs, problem = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if not hangs:
            return _unseen(arena, node, at_ns, problem)
        deaths = node_events(arena, node, "die", since_ns=at_ns)
        if self.ends_node and deaths:
            after_ms = (deaths[0].at_ns - at_ns) / 1e6
            seen = f"{node} was reset {after_ms:.0f} ms after its {word} was stopped, before anybody could look"
        else:
            silent = " and does not answer" if ask else ""
            seen = f"the {word} of {node} is stopped (process {old.pid}, state T){silent}"
        return Receipt(outcome=FaultMoment.CONFIRMED, seen=seen)


class ProgramThaw:
    """SIGCONT to a program that was stopped, and to its children."""

    name: str
    program: NodeProgram
    target = TargetKind.NODE
    effect: type[Effect] = SignalProgram
    undo = ""
    heals: frozenset[str]

    async def plan(self, arena: Arena, target: str) -> Plan:
        """The program must be stopped: nothing is left to thaw where the node or PID 1 has put another in its place.

        Raises HarnessError for a frozen node: its program stays stopped, and cannot be reached before node.thaw.
        """
        if node_container(await arena.containers(), target).paused:
            raise HarnessError(f"the {WORDS[self.program]} of {target} cannot be reached: the node is frozen")
        seen = await running_program(arena, target, self.program)
        if not seen.hangs:
            raise FaultRefused(f"the {WORDS[self.program]} of {target} does not hang (process {seen.pid} runs)")
        return Plan(target=target, effect=_signal(target, self.program, seen, ProgramSignal.CONTINUE))

    async def receipt(self, arena: Arena, plan: Plan, *, at_ns: int) -> Receipt:
        """Confirmed when /proc shows the process in another state than T and it answers on its socket, if it has one;
        or when another process is in its place, or its node has been reset.
        """
        assert isinstance(plan.effect, SignalProgram)
        old, word, node = plan.effect, WORDS[self.program], plan.target
        ask = (self.program,) if self.program.answers else ()
        now: list[str] = []

        async def look() -> str:
            if node_events(arena, node, "die", since_ns=at_ns):
                now[:] = [f"{node} was reset meanwhile, and nothing in it is stopped any more"]
                return ""
            inside = await look_at(arena, node, *ask)
            if isinstance(inside, str):
                return inside
            seen = inside.programs.get(self.program)
            if seen is None or (seen.pid, seen.started) != (old.pid, old.started):
                now[:] = [f"process {old.pid}, the {word} of {node}, has ended and is not stopped any more"]
                return ""
            if seen.hangs:
                return f"the {word} of {node} is stopped (process {old.pid})"
            now[:] = [f"the {word} of {node} runs{' and answers' if ask else ''} (process {old.pid})"]
            return "" if not ask or inside.answers.get(self.program) else f"the {word} of {node} does not answer"

        goes_on, problem = await wait_until(arena, look, limit_us=RECEIPT_LIMIT_US)
        if not goes_on:
            return _unseen(arena, node, at_ns, problem)
        after_ms = (arena.unix_ns() - at_ns) / 1e6
        return Receipt(outcome=FaultMoment.CONFIRMED, seen=f"{now[0]}, {after_ms:.0f} ms after the call")


async def running_program(arena: Arena, node: str, program: NodeProgram) -> ProgramSeen:
    """The main process of a program. Raises FaultRefused when it does not run, or the node cannot be looked into."""
    seen = node_container(await arena.containers(), node)
    if not seen.running or seen.paused:
        raise FaultRefused(f"node {node} is {'frozen' if seen.running else 'off'}: nothing can be done in it")
    found = (await arena.inside(node)).programs.get(program)
    if found is None:
        raise FaultRefused(f"no {WORDS[program]} runs on {node}")
    return found


async def look_at(arena: Arena, node: str, *ask: NodeProgram) -> NodeInside | str:
    """What a look inside shows, or a sentence that says why nobody could look."""
    try:
        return await arena.inside(node, ask=ask)
    except BlackstartError as error:
        return f"nobody could look into {node}: {error}"


def unless_died(arena: Arena, node: str, problem: str, *, since_ns: int) -> Receipt:
    """What was not seen on a node did not happen, unless the node is not the one any more that it was to happen in."""
    if node_events(arena, node, "die", since_ns=since_ns):
        return Receipt(outcome=FaultMoment.INCONCLUSIVE, seen=f"{problem}; {node} died meanwhile")
    return Receipt(outcome=FaultMoment.MISMATCH, seen=problem)


def _signal(node: str, program: NodeProgram, seen: ProgramSeen, signal: ProgramSignal) -> SignalProgram:
    return SignalProgram(node=node, program=program, signal=signal, pid=seen.pid, started=seen.started)


def _unseen(arena: Arena, node: str, at_ns: int, problem: str) -> Receipt:
    """What was not seen did not happen, unless the node is not the one any more that it was to happen in."""
    if node_events(arena, node, "die", since_ns=at_ns) or problem.startswith("nobody could look"):
        return Receipt(outcome=FaultMoment.INCONCLUSIVE, seen=f"{problem}; {node} died meanwhile, or does not answer")
    return Receipt(outcome=FaultMoment.MISMATCH, seen=f"after {RECEIPT_LIMIT_US / 1e6:g} s {problem}")
