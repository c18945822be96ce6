"""Fencing: make sure that nothing of a Down session runs or can ever start, then record it.

Belongs to the Membership Manager's duties and logs under its name; a module of its own because it has stages of its
own.

| facts | then |
|---|---|
| session Down, not fenced, `power`, my turn | Fence: cut the node's power, remove all its VM containers |
| that ended without error | MarkFenced; VMMS has begun to switch the node on, because its voter is missed |
| that ended with an error | not off: again with back-off; meanwhile the turn passes on |
| session Down, not fenced, `self` | MarkFenced (lease + grace) x 1.05 after this node saw the Down committed |
| session Down and fenced, node still off | PowerOnNode again once per lease: a level, not an edge |
| no lease on this node for three lease lengths | PowerOnNode of every other voter: a majority may be off |
"""

from dataclasses import dataclass

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import (
    Action,
    ChangeRegister,
    ChangeSettled,
    Event,
    FenceEnded,
    FenceNode,
    Log,
    PowerOnEnded,
    PowerOnNode,
    RegisterSeen,
)
from harness.cluster_service.core.takeover_delay import TakeoverDelays, earliest_after
from harness.cluster_service.membership.membership import COMPONENT, MembershipManager
from harness.cluster_service.membership.node import NodeManager
from harness.model.changes import MarkFenced
from harness.model.records import ClusterRecord, NodeEntry, SessionState
from harness.model.register_keys import CLUSTER_KEY
from harness.model.session import Session
from harness.model.topology import Fencing, Settings

__all__ = ["FencingManager"]

BACKOFF_FIRST_US = 250_000
MAX_BACKOFF_US = 5_000_000
"""Between a candidate's own attempts to fence: doubling, without end."""


@dataclass(slots=True)
class _Attempt:
    under_way: bool = False
    failures: int = 0
    off: bool = False
    marking: int | None = None


class FencingManager:
    """Carries every Down session to fenced. `_down_since_us` is when this node first saw the Down committed."""

    def __init__(
        self,
        *,
        session: Session,
        voters: tuple[str, ...],
        settings: Settings,
        node: NodeManager,
        membership: MembershipManager,
        ids: Ids,
        turns: TakeoverDelays,
    ) -> None:
        self._session = session
        self._voters = voters
        self._settings = settings
        self._node = node
        self._membership = membership
        self._ids = ids
        self._turns = turns
        self._attempts: dict[Session, _Attempt] = {}
        self._down_since_us: dict[Session, int] = {}
        self._power_on_at_us: dict[str, int] = {}
        self._lonely_power_on_us: int | None = None

    def handle(self, now: int, event: Event) -> list[Action]:
        """Take a fact in; fence whom it is this node's turn to fence."""
        actions: list[Action] = []
        match event:
            case RegisterSeen(key="cluster", record=ClusterRecord() as record):
                self._see_cluster(now, record)
            case FenceEnded():
                actions += self._fence_ended(now, event)
            case PowerOnEnded() if event.error is not None:
                message = f"could not switch {event.node} on: {event.error}"
                actions.append(Log(component=COMPONENT, event="power-on-failed", message=message, lasting=True))
            case ChangeSettled():
                for attempt in self._attempts.values():
                    if attempt.marking == event.id:
                        attempt.marking = None
            case _:
                pass
        actions += self._power_on_without_quorum(now)
        cluster = self._membership.cluster
        if cluster is None or not self._membership.may_act(now):
            return actions
        down = [entry for entry in cluster.nodes if entry.state is SessionState.DOWN]
        self._turns.keep("fence", [str(entry.session) for entry in down if not entry.fenced])
        for entry in down:
            actions += self._power_on(now, entry) if entry.fenced else self._next_step(now, entry)
        return actions

    @property
    def busy(self) -> bool:
        """Whether there is anybody to be fenced."""
        return bool(self._attempts or self._down_since_us)

    def next_wake(self, now: int) -> int | None:
        """When a turn to fence, or the end of a wait under `self` fencing, comes."""
        times = list(self._power_on_at_us.values())
        if self._settings.fencing is Fencing.SELF:
            times += [since + self._wait_us() for since in self._down_since_us.values()]
        return earliest_after(now, [*times, self._lonely_power_on_us, self._turns.next_wake(now, "fence")])

    def _power_on_without_quorum(self, now: int) -> list[Action]:
        """Needs no register and no quorum: a fence has killed a voter, and whoever fenced may be gone since."""
        if self._node.lease_live(now):
            self._lonely_power_on_us = None
            return []
        if self._lonely_power_on_us is None:
            self._lonely_power_on_us = now + 3 * self._settings.lease_us
        if now < self._lonely_power_on_us:
            return []
        self._lonely_power_on_us = now + 2 * self._settings.lease_us
        return [PowerOnNode(name) for name in self._voters if name != self._session.node]

    def _see_cluster(self, now: int, record: ClusterRecord) -> None:
        down = {
            entry.session
            for entry in record.nodes
            if entry.state is SessionState.DOWN and not entry.fenced and entry.session is not None
        }
        self._attempts = {session: self._attempts[session] for session in self._attempts if session in down}
        self._down_since_us = {
            session: self._down_since_us.get(session, now) for session in sorted(down)
        }
        gone = {entry.name for entry in record.nodes if entry.state is SessionState.DOWN and entry.fenced}
        self._power_on_at_us = {
            name: when for name, when in self._power_on_at_us.items() if name in gone
        }

    def _next_step(self, now: int, entry: NodeEntry) -> list[Action]:
        assert entry.session is not None
        attempt = self._attempts.setdefault(entry.session, _Attempt())
        if attempt.marking is not None:
            return []
        if attempt.off or self._ended_by_itself(now, entry.session):
            attempt.marking = self._ids.next()
            change = MarkFenced(session=entry.session)
            return [ChangeRegister(id=attempt.marking, key=CLUSTER_KEY, change=change)]
        if self._settings.fencing is Fencing.SELF or attempt.under_way:
            return []
        place = self._membership.turn_of(now, without=entry.name)
        if not self._turns.due(now, "fence", str(entry.session), place):
            return []
        attempt.under_way = True
        end = self._node.lease_end_us()
        assert end is not None
        message = f"cutting the power of {entry.name} and removing the VMs of {entry.session}"
        return [
            Log(component=COMPONENT, event="fencing", message=message, fields={"node": entry.name, "turn": place}),
            FenceNode(session=entry.session, not_after_us=end),
        ]

    def _wait_us(self) -> int:
        return (self._settings.lease_us + self._settings.grace_us) * 105 // 100

    def _ended_by_itself(self, now: int, session: Session) -> bool:
        if self._settings.fencing is not Fencing.SELF:
            return False
        return now - self._down_since_us[session] >= self._wait_us()

    def _fence_ended(self, now: int, event: FenceEnded) -> list[Action]:
        attempt = self._attempts.get(event.session)
        name = event.session.node
        if event.error is None:
            if attempt is not None:
                attempt.under_way, attempt.off = False, True
            message = f"{name} is off and no VM container of {event.session} exists"
            fields = {"node": name, "session": str(event.session)}
            return [Log(component=COMPONENT, event="node-fenced", message=message, fields=fields)]
        if attempt is not None:
            attempt.under_way = False
            attempt.failures += 1
            wait = min(BACKOFF_FIRST_US << min(attempt.failures - 1, 10), MAX_BACKOFF_US)
            self._turns.again_at("fence", str(event.session), now + wait)
        message = f"{name} is not known to be off: {event.error}; will try again"
        return [Log(component=COMPONENT, event="fence-failed", message=message, fields={"node": name}, lasting=True)]

    def _power_on(self, now: int, entry: NodeEntry) -> list[Action]:
        due = self._power_on_at_us.setdefault(entry.name, now + self._settings.lease_us)
        if now < due:
            return []
        self._power_on_at_us[entry.name] = now + self._settings.lease_us
        return [PowerOnNode(entry.name)] if self._membership.turn_of(now, without=entry.name) == 0 else []
