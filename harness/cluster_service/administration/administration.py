"""Administration Manager: takes administrators' requests in, sends them where they belong, and sees that each is
answered.

What becomes of a request about a group, first match wins:

| the group's owner | then |
|---|---|
| is this session | the Resource Control Manager carries it out, in order with its starts |
| is another session that is Up | not-owner: ask there |
| was declared Down and is not fenced yet | wait: it may still start something |
| is over, or nobody yet | online and offline are written for the next owner; everything else is refused |

Pause and resume of a node are changes of the cluster register, which any member makes. The answer tells that the wish
is durable; what follows from it is told by the snapshot and the cluster log.
"""

from collections.abc import Mapping

from harness.cluster_service.core.ids import Ids
from harness.cluster_service.core.messages import (
    Action,
    AnswerCode,
    ChangeRegister,
    ChangeSettled,
    Event,
    ReadRegister,
    RegisterSeen,
    RequestAnswered,
    RequestReceived,
    VotersKnown,
)
from harness.cluster_service.core.pending_requests import OPEN_LIMIT, OpenRequest, OpenRequests, answered
from harness.cluster_service.core.takeover_delay import earliest_after
from harness.cluster_service.membership.membership import MembershipManager
from harness.cluster_service.membership.node import NodeManager
from harness.cluster_service.placement.failover import FailoverManager
from harness.database.proposer import Result
from harness.database.protocol import VoterSet
from harness.model.administrative_changes import PauseNode, RequestState, ResumeNode
from harness.model.changes import Change
from harness.model.records import ClusterRecord, GroupRecord, ResumeFailback
from harness.model.register_keys import CLUSTER_KEY, group_key
from harness.model.session import Session

__all__ = ["CALLS", "AdministrationManager"]

CALLS: Mapping[str, Mapping[str, type]] = {
    "group.online": {"group": str},
    "group.offline": {"group": str},
    "group.move": {"group": str, "target": str},
    "resource.online": {"resource": str},
    "resource.offline": {"resource": str},
    "resource.fail": {"resource": str},
    "node.pause": {"node": str, "drain": bool},
    "node.resume": {"node": str, "failback": str},
    "quorum.show": {},
}
"""Every call with its arguments and their types."""

_OPTIONAL = frozenset({("group.move", "target"), ("node.pause", "drain"), ("node.resume", "failback")})
_DURABLE = ("group.online", "group.offline", "resource.online", "resource.offline")


class AdministrationManager:
    """Keeps no state of its own but the voter set it was told; the open requests are in `requests`."""

    def __init__(
        self,
        *,
        session: Session,
        node: NodeManager,
        membership: MembershipManager,
        failover: FailoverManager,
        requests: OpenRequests,
        ids: Ids,
    ) -> None:
        self._session = session
        self._node = node
        self._membership = membership
        self._failover = failover
        self._requests = requests
        self._ids = ids
        self._voter_set: VoterSet | None = None

    def handle(self, now: int, event: Event) -> list[Action]:
        """Take a request in or learn how a change ended; then look at every open request."""
        actions: list[Action] = []
        match event:
            case VotersKnown():
                self._voter_set = event.voter_set
            case RequestReceived():
                actions += self._let_in(now, event)
            case ChangeSettled():
                actions += self._settled(event)
            case RegisterSeen(record=GroupRecord() as record):
                self.seen(record)
            case _:
                pass
        for request in self._requests.all():
            actions += self._next_step(now, request)
        return actions

    def seen(self, record: GroupRecord) -> None:
        """A group's register was read."""
        for request in self._requests.all():
            if request.unread is not None:
                request.unread.discard(record.spec.name)

    def next_wake(self, now: int) -> int | None:
        """When a request has waited for too long."""
        return earliest_after(now, [self._requests.next_due()])

    # Letting in

    def _let_in(self, now: int, event: RequestReceived) -> list[Action]:
        arguments = CALLS.get(event.call)
        if arguments is None:
            message = f"there is no call {event.call!r}; there are: {', '.join(CALLS)}"
            return answered(event, AnswerCode.NO_SUCH, message, {})
        wrong = _wrong_arguments(event, arguments)
        if wrong:
            return answered(event, AnswerCode.REFUSED, wrong, {})
        if event.call == "quorum.show":
            return self._show_quorum(now, event)
        if not self._membership.may_act(now):
            message = f"{self._session.node} holds no lease from a majority of the voters; nothing was changed"
            return answered(event, AnswerCode.NO_QUORUM, message, {})
        if len(self._requests) >= OPEN_LIMIT:
            message = f"{OPEN_LIMIT} requests are under way on {self._session.node}; wait for their answers"
            return answered(event, AnswerCode.REFUSED, message, {})
        self._requests.add(now, event)
        return []

    def _show_quorum(self, now: int, event: RequestReceived) -> list[Action]:
        live, known = self._node.lease_live(now), self._voter_set
        result = {
            "node": self._session.node,
            "quorum": live,
            "voters": sorted(known.members) if known is not None else [],
            "majority": known.majority if known is not None else None,
            "version": known.version if known is not None else None,
        }
        told = "a majority of the voters renews its lease" if live else "it holds no lease from a majority"
        # Without a line in the cluster log: whoever watches the quorum asks for it again and again.
        return [
            RequestAnswered(id=event.id, code=AnswerCode.DONE, message=f"{self._session.node}: {told}", result=result)
        ]

    # Open requests

    def _next_step(self, now: int, request: OpenRequest) -> list[Action]:
        if now >= request.due_us:
            return self._too_late(request)
        cluster = self._membership.cluster
        if request.change is not None or cluster is None:
            return []
        if request.call.startswith("node."):
            return self._about_node(cluster, request)
        if request.group is None:
            first = self._find_group(cluster, request)
            if first or request.group is None:
                return first
        if self._requests.first_of(request.group) is not request:
            return []
        return self._about_group(cluster, self._failover.groups[request.group], request)

    def _too_late(self, request: OpenRequest) -> list[Action]:
        if request.change is not None:
            message = "no majority of the voters has said in time whether the change is made"
            return self._requests.answer(request, AnswerCode.UNKNOWN, message)
        message = f"nothing was changed: {request.waits_for or 'the registers could not be read in time'}"
        return self._requests.answer(request, AnswerCode.REFUSED, message)

    def _find_group(self, cluster: ClusterRecord, request: OpenRequest) -> list[Action]:
        """Set the request's group, if its register is known; refuse names that nothing has, once all are known."""
        named, resource = str(request.arguments.get("group", "")), str(request.arguments.get("resource", ""))
        groups = self._failover.groups
        if resource:
            named = next((name for name, record in groups.items() if resource in record.persistent), "")
            request.resource = resource
        if request.unread is None:
            # What this node does not keep up it knows as of long ago, or not at all.
            asked = (named,) if named or not resource else cluster.groups
            request.unread = {name for name in asked if name in cluster.groups and not self._failover.keeps(name)}
            if request.unread:
                return [ReadRegister(group_key(name), anew=True) for name in sorted(request.unread)]
        if request.unread:
            return []
        if named in groups:
            request.group = named
            return []
        if resource and all(name in groups for name in cluster.groups):
            return self._requests.answer(request, AnswerCode.NO_SUCH, f"there is no resource {resource!r}")
        if not resource and named not in cluster.groups:
            return self._requests.answer(request, AnswerCode.NO_SUCH, f"there is no group {named!r}")
        return []

    def _about_group(self, cluster: ClusterRecord, record: GroupRecord, request: OpenRequest) -> list[Action]:
        name, owner = record.spec.name, record.owner
        if owner == self._session:
            return []
        if owner is not None and cluster.is_up(owner):
            node = self._failover.owner_node(name) or owner.node
            message = f"the owner of group {name} is {node}"
            return self._requests.answer(request, AnswerCode.NOT_OWNER, message, owner=node)
        if owner is not None and not cluster.is_over(owner):
            request.waits_for = f"the owner of group {name}, {owner.node}, is lost, and not yet known to be off"
            return []
        if request.call not in _DURABLE:
            message = f"group {name} has no living owner just now: it is about to be claimed"
            return self._requests.answer(request, AnswerCode.REFUSED, message)
        wanted = request.call.endswith(".online")
        change = RequestState(owner=owner, epoch=record.epoch, resource=request.resource, wanted=wanted)
        request.message = f"{request.resource or name} shall be {'Online' if wanted else 'Offline'} at the next owner"
        return [self._change(request, group_key(name), change)]

    def _about_node(self, cluster: ClusterRecord, request: OpenRequest) -> list[Action]:
        name = str(request.arguments["node"])
        if cluster.node(name) is None:
            known = ", ".join(entry.name for entry in cluster.nodes)
            message = f"there is no node {name!r}; there are: {known}"
            return self._requests.answer(request, AnswerCode.NO_SUCH, message)
        if request.call == "node.pause":
            drain = bool(request.arguments.get("drain", False))
            request.message = f"{name} is Paused{' and being drained' if drain else ''}"
            return [self._change(request, CLUSTER_KEY, PauseNode(node=name, drain=drain))]
        wish = str(request.arguments.get("failback", ResumeFailback.POLICY.value))
        if wish not in list(ResumeFailback):
            message = f"failback is {wish!r}, expected one of {', '.join(ResumeFailback)}"
            return self._requests.answer(request, AnswerCode.REFUSED, message)
        request.message = f"{name} takes part again"
        return [self._change(request, CLUSTER_KEY, ResumeNode(node=name, failback=ResumeFailback(wish)))]

    def _change(self, request: OpenRequest, key: str, change: Change) -> ChangeRegister:
        request.change = self._ids.next()
        return ChangeRegister(id=request.change, key=key, change=change)

    def _settled(self, event: ChangeSettled) -> list[Action]:
        """The end of a request's change, whoever made it. A group that has another owner since is looked at again."""
        request = self._requests.changed_by(event.id)
        if request is None:
            return []
        request.change = None
        match event.result:
            case Result.DONE:
                return self._requests.answer(request, request.code, request.message, **request.result)
            case Result.REFUSED if request.group is not None:
                return []  # it has another owner or another move since
            case Result.REFUSED:
                return self._requests.answer(request, AnswerCode.REFUSED, event.reason)
            case Result.NOT_DONE:
                message = "no majority of the voters answered; nothing was changed"
                return self._requests.answer(request, AnswerCode.NO_QUORUM, message)
            case _:
                message = "no majority of the voters has said whether the change is made"
                return self._requests.answer(request, AnswerCode.UNKNOWN, message)


def _wrong_arguments(event: RequestReceived, arguments: Mapping[str, type]) -> str:
    """What is wrong with the arguments of a call, as a sentence; empty when nothing is."""
    for name, value in event.arguments.items():
        if name not in arguments:
            return f"{event.call} has no argument {name!r}"
        if not isinstance(value, arguments[name]):
            return f"{event.call}: {name} is {value!r}, expected a {arguments[name].__name__}"
    for name in arguments:
        if name not in event.arguments and (event.call, name) not in _OPTIONAL:
            return f"{event.call} needs the argument {name!r}"
    return ""
