"""The last look at a rig, before the checkers rule: wanted resources are online, then everything is read once.

It reads and judges nothing: an unanswered look leaves its record out, and the checkers say what follows from that.
"""

from dataclasses import replace

from chaos.arena.interrupt import Interrupt
from chaos.arena.port import Arena, wait_until
from chaos.history.records import ClusterSeen, Moment
from chaos.run.terminal import Terminal
from harness.errors import BlackstartError

__all__ = ["record_end_state"]

SETTLE_LIMIT_US = 60_000_000
"""How long wanted resources may take to be online at the end: a node boots, joins and starts in some five seconds."""

SETTLE_INTERVAL_US = 500_000


async def record_end_state(arena: Arena, terminal: Terminal, interrupt: Interrupt, *, settle: bool) -> None:
    """Append the last snapshot of the cluster, the engine's list and the guests' journals to the history.

    With `settle` it first waits until everything wanted is online; a request to stop ends that wait.
    """

    async def missing() -> str:
        if interrupt.signal is not None:
            return ""
        try:
            seen: ClusterSeen = await arena.cluster()
        except BlackstartError as error:
            return str(error)
        names = [
            resource.name
            for group in seen.groups
            for resource in group.resources
            if resource.wanted and resource.state != "Online"
        ]
        return f"not online: {', '.join(names)}" if names else ""

    if settle and interrupt.signal is None:
        terminal.waiting("waiting until everything wanted is online")
        await wait_until(arena, missing, limit_us=SETTLE_LIMIT_US, interval_us=SETTLE_INTERVAL_US)
    try:
        seen = await arena.cluster()
        arena.history.append(replace(seen, moment=Moment.END))
    except BlackstartError as error:
        terminal.note(f"the cluster does not answer: {error}")
    terminal.waiting("reading the engine's list and the VMs' journals")
    for container in await arena.containers():
        arena.history.append(container)
    await arena.settle()
    terminal.rest()
