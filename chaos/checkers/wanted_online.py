"""Everything that is wanted is online at the end, and the engine agrees.

Wanted means PersistentState 1. The runner waits for it, with a limit, before it takes the last snapshot; this only
reads that snapshot. Online as the cluster says it is not enough: a VM that the cluster calls Online must also run
in the engine's eyes. The wait is a bound of time, so where it ends too early on an overloaded host the ruling is
inconclusive; a cluster that believes in a VM that does not run is broken on any host.
"""

from chaos.history.instances import read_instances
from chaos.history.overload import overload_since
from chaos.history.records import (
    ClusterSeen,
    ContainerRole,
    ContainerSeen,
    FaultMoment,
    FaultRecord,
    GroupSeen,
    History,
    Moment,
    PartBegan,
)
from chaos.history.verdict import Ruling, Verdict

__all__ = ["NAME", "check"]

NAME = "wanted online at the end"

VM_TYPE = "virtual-machine"
WAIT = "last look"
"""The part of a run in which the runner waits for everything that is wanted."""


def check(history: History) -> Verdict:
    """BROKEN when a wanted resource is not Online, or an Online one does not run; INCONCLUSIVE without a snapshot, and
    when the host was overloaded while the runner waited.
    """
    snapshots = [seen for seen in history.of(ClusterSeen) if seen.moment is Moment.END]
    if not snapshots:
        return Verdict(
            checker=NAME, ruling=Ruling.INCONCLUSIVE, reasons=("no node told the cluster's state at the end",)
        )
    end = snapshots[-1]
    late = [] if end.quorum else ["the cluster has no quorum at the end"]
    late += [reason for group in end.groups for reason in _not_online(group)]
    running = _running_at_end(history)
    absent = [
        f"{resource.name} is Online to the cluster, but no container of it runs"
        for group in end.groups
        for resource in group.resources
        if resource.wanted and resource.state == "Online" and resource.type == VM_TYPE
        if resource.name not in running
    ]
    overload = overload_since(history, _wait_began_ns(history)) if late and not absent else ""
    if overload:
        return Verdict(checker=NAME, ruling=Ruling.INCONCLUSIVE, reasons=(*late, overload))
    if late or absent:
        return Verdict(checker=NAME, ruling=Ruling.BROKEN, reasons=(*late, *absent))
    wanted = sum(resource.wanted for group in end.groups for resource in group.resources)
    return Verdict(checker=NAME, ruling=Ruling.HOLDS, notes=(f"{wanted} wanted resources of {len(end.groups)} groups",))


def _wait_began_ns(history: History) -> int:
    """With the last fault, whose consequences the runner waits for, or with the wait itself where there was none."""
    faults = [fault.at_ns for fault in history.of(FaultRecord) if fault.moment is FaultMoment.INJECTED]
    waits = [part.at_ns for part in history.of(PartBegan) if part.part == WAIT]
    return min([*faults[-1:], *waits[-1:]], default=0)


def _not_online(group: GroupSeen) -> list[str]:
    owner = group.owner or "no node"
    return [
        f"{resource.name} of group {group.name} (owner: {owner}) is {resource.state}, wanted Online"
        for resource in group.resources
        if resource.wanted and resource.state != "Online"
    ]


def _running_at_end(history: History) -> set[str]:
    """By the engine's last list if there is one, else by its events."""
    listed = history.of(ContainerSeen)
    if listed and listed[-1].at_ns >= max((seen.at_ns for seen in history.of(ClusterSeen)), default=0):
        last_ns = listed[-1].at_ns
        return {seen.vm for seen in listed if seen.at_ns == last_ns and seen.role is ContainerRole.VM and seen.running}
    return {instance.vm for instance in read_instances(history).all if instance.ended_ns is None}
