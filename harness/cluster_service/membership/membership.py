"""Membership Manager: sessions join, are declared Down, and learn that they were. It answers: may this node act?

Stages of the own session, derived from the cluster register, never remembered:

| the register shows | then |
|---|---|
| nothing | no cluster was formed: wait |
| another session of this node, or none | join; everything that earlier sessions ran was removed before |
| this session, Up | member |
| this session, Down | reset: it never comes back |
| another session, after this one was a member | reset: it was replaced |
"""

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import (
    Action,
    ChangeRegister,
    ChangeSettled,
    Event,
    Log,
    ReadRegister,
    RegisterSeen,
    ResetNode,
    VotersKnown,
)
from harness.cluster_service.core.takeover_delay import TakeoverDelays, earliest_after
from harness.cluster_service.membership.node import NodeManager
from harness.model.changes import DeclareDown, JoinSession
from harness.model.records import ClusterRecord, NodeEntry
from harness.model.register_keys import CLUSTER_KEY
from harness.model.session import Session

__all__ = ["COMPONENT", "MembershipManager"]

COMPONENT = "membership-manager"

UNFORMED_POLL_US = 250_000
"""How often a node that waits for the cluster to be formed looks again."""


class MembershipManager:
    """The view of the cluster and this node's place in it. `seen_since_us` is when these managers saw its register
    first, and `was_up_before` whether this session was Up by then: only such a one can own what they know nothing of.
    """

    def __init__(self, *, session: Session, node: NodeManager, ids: Ids, turns: TakeoverDelays) -> None:
        self.cluster: ClusterRecord | None = None
        self._is_up = False
        self.seen_since_us: int | None = None
        self.was_up_before = False
        self._entry_of: ClusterRecord | None = None
        self._entry: NodeEntry | None = None
        self._session = session
        self._node = node
        self._ids = ids
        self._turns = turns
        self._was_member = False
        self._joining: int | None = None
        self._declaring: dict[int, Session] = {}
        self._poll_us: int | None = None

    @property
    def own_entry(self) -> NodeEntry | None:
        """This node's entry in the cluster's register, as it was seen last."""
        if self._entry_of is not self.cluster:
            self._entry_of = self.cluster
            self._entry = self.cluster.node(self._session.node) if self.cluster is not None else None
        return self._entry

    def is_member(self) -> bool:
        """Whether the database was last seen to hold this session Up."""
        return self._is_up

    def may_act(self, now: int) -> bool:
        """Whether this node may start, move, fence or claim anything: a member with a live lease."""
        return self.is_member() and self._node.lease_live(now)

    def candidates(self, now: int) -> tuple[str, ...]:
        """The nodes that may take a turn, in order: Up in the database, and not known to have expired."""
        if self.cluster is None:
            return ()
        return tuple(
            entry.name
            for entry in self.cluster.up_nodes()
            if entry.session is not None
            and (entry.session == self._session or not self._node.expired(now, entry.session))
        )

    def turn_of(self, now: int, *, without: str) -> int:
        """This node's place among the candidates, the lost node left out."""
        names = [name for name in self.candidates(now) if name != without]
        return names.index(self._session.node) if self._session.node in names else len(names)

    def handle(self, now: int, event: Event) -> list[Action]:
        """Take a fact in; join, poll, and declare the lost."""
        actions: list[Action] = []
        match event:
            case VotersKnown():
                actions.append(ReadRegister(CLUSTER_KEY))
            case RegisterSeen(key="cluster"):
                actions += self._see_cluster(now, event)
            case ChangeSettled() if event.id == self._joining:
                self._joining = None
                if event.reason:
                    actions.append(ResetNode(f"this session may not join: {event.reason}"))
            case ChangeSettled() if event.id in self._declaring:
                del self._declaring[event.id]
            case _:
                pass
        if self._poll_us is not None and now >= self._poll_us:
            self._poll_us = None
            actions.append(ReadRegister(CLUSTER_KEY))
        return actions + self._declare_lost(now)

    def next_wake(self, now: int) -> int | None:
        """When the next look at an unformed cluster, or the turn to declare somebody, is due."""
        return earliest_after(now, [self._poll_us, self._turns.next_wake(now, "declare")])

    def _see_cluster(self, now: int, event: RegisterSeen) -> list[Action]:
        if not isinstance(event.record, ClusterRecord):
            self._poll_us = now + UNFORMED_POLL_US
            return []
        before, self.cluster = self.cluster, event.record
        self._is_up = event.record.is_up(self._session)
        if self.seen_since_us is None:
            self.seen_since_us = now
            self.was_up_before = self._is_up
        entry = self.own_entry
        if entry is None:
            return [ResetNode(f"{self._session.node} is no member of rig {event.record.rig}")]
        if entry.session == self._session:
            if not event.record.is_up(self._session):
                return [ResetNode("this session was declared Down")]
            joined, self._was_member = not self._was_member, True
            return [self._log_joined(entry.address)] if joined else self._log_changes(before)
        if self._was_member:
            return [ResetNode(f"a newer session of this node has joined: {entry.session}")]
        if self._joining is not None:
            return []
        self._joining = self._ids.next()
        return [ChangeRegister(id=self._joining, key=CLUSTER_KEY, change=JoinSession(session=self._session))]

    def _declare_lost(self, now: int) -> list[Action]:
        if self.cluster is None or not self.may_act(now) or not self._node.may_judge(now):
            self._turns.forget("declare")
            return []
        actions: list[Action] = []
        lost = [] if self._node.all_alive(now) else self._lost(now, self.cluster)
        self._turns.keep("declare", [str(session) for session in lost])
        for session in lost:
            place = self.turn_of(now, without=session.node)
            due = self._turns.due(now, "declare", str(session), place)
            if not due or session in self._declaring.values():
                continue
            change = ChangeRegister(
                id=self._ids.next(), key=CLUSTER_KEY, change=DeclareDown(session=session)
            )
            self._declaring[change.id] = session
            actions.append(
                Log(
                    component=COMPONENT,
                    event="node-lease-expired",
                    message=f"{session.node} has not renewed its lease; declaring {session} Down",
                    fields={"node": session.node, "session": str(session), "turn": place},
                )
            )
            actions.append(change)
        return actions

    def _lost(self, now: int, cluster: ClusterRecord) -> list[Session]:
        return [
            entry.session
            for entry in cluster.up_nodes()
            if entry.session is not None
            and entry.session != self._session
            and self._node.expired(now, entry.session)
        ]

    def _log_joined(self, address: str) -> Log:
        return Log(
            component=COMPONENT,
            event="node-joined",
            message=f"{self._session.node} is a member as {self._session}",
            fields={"session": str(self._session), "address": address},
        )

    def _log_changes(self, before: ClusterRecord | None) -> list[Action]:
        """Event 1135 for every session that this node sees declared Down for the first time."""
        if before is None or self.cluster is None:
            return []
        return [
            Log(
                component=COMPONENT,
                event="node-declared-down",
                message=f"{entry.name} was removed from the active membership",
                id=1135,
                fields={"node": entry.name, "session": str(entry.session)},
            )
            for entry in before.up_nodes()
            if entry.session is not None
            and (now_entry := self.cluster.node(entry.name)) is not None
            and now_entry.session == entry.session
            and not self.cluster.is_up(entry.session)
        ]
