"""The runs of VMs, put together from the engine's events: who ran where, from when until when.

A reading of the history, not a judgement. An instance ends at its own die event or its node's, whichever comes first:
the kernel has killed a node's VMs before the engine reports the node's death, and the engine reports the VMs'
own deaths in any order around it (up to 0.3 s later).
"""

from dataclasses import dataclass, replace

from chaos.history.records import ContainerRole, ContainerSeen, EngineEventSeen, History

__all__ = ["Instance", "Instances", "read_instances"]

SAME_START_NS = 2_000_000_000
"""How far a listed StartedAt and its event may lie apart: milliseconds, more when the engine is stalled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One run of a VM's container.

    `ended_ns` is None while it runs. `foreign`: not started by the cluster, which labels its own with a session.
    """

    vm: str
    group: str
    container: str
    node: str
    session: str
    started_ns: int
    ended_ns: int | None = None
    ended_by: str = ""

    @property
    def foreign(self) -> bool:
        """Whether somebody else than the cluster made this container."""
        return not self.session

    def overlap_ns(self, other: "Instance") -> int | None:
        """For how long both ran; None if both still run, 0 if they never did together."""
        start = max(self.started_ns, other.started_ns)
        ends = [instance.ended_ns for instance in (self, other) if instance.ended_ns is not None]
        if not ends:
            return None
        return max(0, min(ends) - start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """All instances by start.

    `contradictions` are sentences about events that cannot all be true, so that some must be missing.
    """

    all: tuple[Instance, ...]
    contradictions: tuple[str, ...]

    def of_vm(self, vm: str) -> list[Instance]:
        """The instances of one VM, by start."""
        return [instance for instance in self.all if instance.vm == vm]


def read_instances(history: History) -> Instances:
    """The instances of every VM of the history."""
    reader = _Reader()
    seen: list[ContainerSeen | EngineEventSeen] = [*history.of(ContainerSeen), *history.of(EngineEventSeen)]
    # A listing comes before events of the same time: it is what they start from.
    for record in sorted(seen, key=lambda entry: entry.at_ns):
        reader.read(record)
    return reader.result()


class _Reader:
    """The containers that run, while the events go by."""

    def __init__(self) -> None:
        self._running: dict[str, Instance] = {}
        self._listed: set[str] = set()
        self._ended: list[Instance] = []
        self._contradictions: list[str] = []

    def read(self, record: ContainerSeen | EngineEventSeen) -> None:
        if isinstance(record, ContainerSeen):
            self._read_listing(record)
        elif record.role is ContainerRole.NODE and record.action == "die":
            for instance in [kept for kept in self._running.values() if kept.node == record.node]:
                self._end(instance.container, record.at_ns, f"{record.node} died")
        elif record.role is ContainerRole.VM and record.action == "start":
            self._start(record)
        elif record.role is ContainerRole.VM and record.action in ("die", "destroy"):
            self._end(record.container, record.at_ns, record.action)

    def result(self) -> Instances:
        found = [*self._ended, *self._running.values()]
        return Instances(
            all=tuple(sorted(found, key=lambda instance: instance.started_ns)),
            contradictions=tuple(self._contradictions),
        )

    def _read_listing(self, seen: ContainerSeen) -> None:
        if seen.role is not ContainerRole.VM or not seen.running or seen.started_ns is None:
            return
        ended_after = any(
            instance.container == seen.container and (instance.ended_ns or 0) >= seen.started_ns
            for instance in self._ended
        )
        if seen.container in self._running or ended_after:
            return
        self._listed.add(seen.container)
        self._running[seen.container] = _instance(seen, started_ns=seen.started_ns)

    def _start(self, event: EngineEventSeen) -> None:
        earlier = self._running.get(event.container)
        if earlier is not None:
            same = event.container in self._listed and abs(event.at_ns - earlier.started_ns) < SAME_START_NS
            self._listed.discard(event.container)
            if same:
                return
            self._contradictions.append(
                f"{event.vm} ({event.container[:12]} on {event.node}) started while it ran: its end was not seen"
            )
            self._end(event.container, event.at_ns, "started again")
        self._running[event.container] = _instance(event, started_ns=event.at_ns)

    def _end(self, container: str, at_ns: int, by: str) -> None:
        instance = self._running.pop(container, None)
        if instance is not None:
            self._ended.append(replace(instance, ended_ns=at_ns, ended_by=by))


def _instance(record: ContainerSeen | EngineEventSeen, *, started_ns: int) -> Instance:
    return Instance(
        vm=record.vm,
        group=record.group,
        container=record.container,
        node=record.node,
        session=record.session,
        started_ns=started_ns,
    )
