"""The changes of the database that administrators ask for: PersistentState, and the pause of a node.

Like all changes they are re-run on the freshest record at each attempt. Which other resources a request concerns (the
providers of what goes online, the dependents of what goes offline) is therefore reckoned here and not where the
request was heard.
"""

from dataclasses import dataclass, replace

from harness.model.changes import Record, Refusal
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry, ResumeFailback, SessionState
from harness.model.session import Session
from harness.model.states import DrainState

__all__ = ["EndDrain", "PauseNode", "RequestState", "ResumeNode", "with_dependents", "with_providers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestState:
    """An administrator wants a resource, or with `resource` None the whole group, Online or Offline: all in one change.

    What goes online takes the providers along that it cannot be without; what goes offline takes its dependents along.
    A restart that was used up counts no more for what is wanted Online again.
    """

    owner: Session | None
    epoch: int
    resource: str | None
    wanted: bool

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused unless the register holds exactly that owner and epoch."""
        if not isinstance(record, GroupRecord):
            return Refusal("there is no such group")
        if record.owner != self.owner or record.epoch != self.epoch:
            return Refusal(f"the owner is {record.owner} under epoch {record.epoch}, no longer {self.owner}")
        if self.resource is not None and self.resource not in record.persistent:
            return Refusal(f"group {record.spec.name} has no resource {self.resource}")
        if self.resource is None:
            names = set(record.persistent)
        elif self.wanted:
            names = with_providers(record, self.resource)
        else:
            names = with_dependents(record, self.resource)
        persistent = {name: self.wanted if name in names else old for name, old in record.persistent.items()}
        restarts = tuple(entry for entry in record.restarts if not (self.wanted and entry.resource in names))
        return replace(record, persistent=persistent, restarts=restarts)


def with_providers(record: GroupRecord, resource: str) -> set[str]:
    """The resource and what it needs: of each set of alternatives one that is wanted already, else the first."""
    needed: set[str] = set()
    look = [resource]
    while look:
        name = look.pop()
        if name in needed:
            continue
        needed.add(name)
        for alternatives in record.spec.resource(name).depends_on:
            if not any(record.persistent.get(other, False) or other in needed for other in alternatives):
                look.append(alternatives[0])
            else:
                # Wanted, but what it needs itself may not be.
                look += [other for other in alternatives if record.persistent.get(other, False)][:1]
    return needed


def with_dependents(record: GroupRecord, resource: str) -> set[str]:
    """The resource and every wanted one that is left without any wanted provider of some set of alternatives."""
    taken = {resource}
    grown = True
    while grown:
        grown = False
        for spec in record.spec.resources:
            if spec.name in taken or not record.persistent.get(spec.name, False):
                continue
            for alternatives in spec.depends_on:
                touched = any(other in taken for other in alternatives)
                left = [other for other in alternatives if other not in taken and record.persistent.get(other, False)]
                if touched and not left:
                    taken.add(spec.name)
                    grown = True
                    break
    return taken


def _entry(record: Record | None, node: str) -> NodeEntry | Refusal:
    if not isinstance(record, ClusterRecord):
        return Refusal("no cluster was formed")
    return record.node(node) or Refusal(f"{node} is no member of rig {record.rig}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseNode:
    """A node takes and starts nothing new; with `drain` its groups are moved away. The pause outlives its session."""

    node: str
    drain: bool

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused when a drain is asked of a node that is not Up. A drain under way goes on."""
        entry = _entry(record, self.node)
        if isinstance(entry, Refusal):
            return entry
        assert isinstance(record, ClusterRecord)
        if self.drain and entry.state is not SessionState.UP:
            return Refusal(f"{self.node} is not Up: there is nothing to drain; pause it without")
        if self.drain and entry.drain is not DrainState.IN_PROGRESS:
            return record.with_node(
                replace(entry, paused=True, drain=DrainState.IN_PROGRESS, drains=entry.drains + 1)
            )
        return record.with_node(replace(entry, paused=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeNode:
    """A node takes part again. A drain under way ends where it is."""

    node: str
    failback: ResumeFailback

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused for a node that is no member. One that is not Paused stays as it is."""
        entry = _entry(record, self.node)
        if isinstance(entry, Refusal):
            return entry
        assert isinstance(record, ClusterRecord)
        if not entry.paused:
            return record
        resumed = replace(entry, paused=False, drain=DrainState.NOT_INITIATED, failback=self.failback)
        return record.with_node(resumed)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndDrain:
    """The drained node tells how its drain ended."""

    node: str
    drain: int
    outcome: DrainState

    def apply(self, record: Record | None) -> Record | Refusal:
        """Refused unless that very drain is under way."""
        entry = _entry(record, self.node)
        if isinstance(entry, Refusal):
            return entry
        assert isinstance(record, ClusterRecord)
        if entry.drain is not DrainState.IN_PROGRESS or entry.drains != self.drain:
            return Refusal(f"drain {self.drain} of {self.node} is not under way")
        return record.with_node(replace(entry, drain=self.outcome))
