"""The VM that a fault is aimed at: which container it is now, and what the engine told of it since."""

from chaos.arena.port import Arena, wait_record
from chaos.faults.fault import RECEIPT_LIMIT_US, FaultRefused
from chaos.history.records import ContainerRole, ContainerSeen, EngineEventSeen

__all__ = ["containers_of", "events_of", "running_vm", "wait_event"]


def containers_of(containers: tuple[ContainerSeen, ...], vm: str) -> list[ContainerSeen]:
    """Every container of a VM: each node that may own it keeps one ready."""
    return [seen for seen in containers if seen.role is ContainerRole.VM and seen.vm == vm]


def running_vm(containers: tuple[ContainerSeen, ...], vm: str) -> ContainerSeen:
    """The one container in which a VM runs, frozen or not. Raises FaultRefused when it is not exactly one."""
    mine = containers_of(containers, vm)
    running = [seen for seen in mine if seen.running]
    if len(running) != 1:
        seen_as = f"{len(running)} running containers" if running else f"{len(mine)} containers, none running"
        raise FaultRefused(f"VM {vm} has {seen_as}; exactly one must run")
    return running[0]


def events_of(arena: Arena, container: str, *, since_ns: int, until_ns: int | None = None) -> list[EngineEventSeen]:
    """What the engine told of a container from then on, by time."""
    return [
        event
        for event in arena.history.of(EngineEventSeen)
        if event.container == container and since_ns <= event.at_ns and (until_ns is None or event.at_ns <= until_ns)
    ]


async def wait_event(arena: Arena, container: str, action: str, *, since_ns: int) -> EngineEventSeen | None:
    """The first such event of a container from then on, already told or still to come; None after RECEIPT_LIMIT_US."""

    def fits(event: EngineEventSeen) -> bool:
        return event.container == container and event.action == action and event.at_ns >= since_ns

    return await wait_record(arena, EngineEventSeen, fits, limit_us=RECEIPT_LIMIT_US)
