"""Administrators' requests about a group, as its owner carries them out: in order with the group's starts.

| request | the resource | then |
|---|---|---|
| any | Initializing | wait until the resource host has told its state |
| resource.online | pending | refused |
| resource.online | any other | RequestState 1, with its providers; a Failed one is tried again |
| resource.offline | pending | refused |
| resource.offline | Failed | RequestState 0, answered with an error |
| resource.offline | Online, Offline | RequestState 0, with its dependents |
| any offline | something concerned is going Online | wait for its end; nothing of the group is started meanwhile |
| resource.fail | Online | TERMINATE, then it counts as a failure |
| group.online | | RequestState 1 |
| group.offline | | RequestState 0 |
| group.move | | BeginMove; what is under way in the resource host ends first |

No ONLINE of a resource is under way when its PersistentState becomes 0, and none is ordered while that change is: so
a resource whose PersistentState is 0 is never started.
"""

from harness.cluster_service.core.messages import Action, AnswerCode
from harness.cluster_service.core.pending_requests import OpenRequest, OpenRequests
from harness.cluster_service.resources.group_move import GroupMove
from harness.cluster_service.resources.resource_facts import GroupFacts
from harness.cluster_service.resources.resource_orders import ResourceOrders
from harness.model.administrative_changes import RequestState, with_dependents, with_providers
from harness.model.changes import BeginMove
from harness.model.host_messages import CallReason, EntryPoint
from harness.model.records import MoveCause
from harness.model.session import Session
from harness.model.states import ResourceState

__all__ = ["GroupRequests"]


class GroupRequests:
    """Decides about the oldest request of a group that this session owns and that has no change under way."""

    def __init__(
        self, *, session: Session, requests: OpenRequests, moves: GroupMove, orders: ResourceOrders
    ) -> None:
        self._session = session
        self._requests = requests
        self._moves = moves
        self._orders = orders

    def groups(self) -> set[str]:
        """Every group about which a request is open."""
        return self._requests.groups()

    def holds_starts(self, group: str) -> bool:
        """Whether a request waits for the end of a start, so that no other may begin."""
        request = self._requests.first_of(group)
        return request is not None and request.call.endswith(".offline")

    def next_for(self, now: int, facts: GroupFacts) -> list[Action]:
        """Carry out what can be, until one request has to wait. Sets `facts.change` when it makes a change."""
        actions: list[Action] = []
        while facts.change is None:
            request = self._requests.first_of(facts.record.spec.name)
            if request is None or request.change is not None:
                break
            step = self._carry_out(now, facts, request)
            actions += step
            if not step:
                break
        return actions

    def _carry_out(self, now: int, facts: GroupFacts, request: OpenRequest) -> list[Action]:
        match request.call:
            case "group.move":
                return self._move(now, facts, request)
            case "group.online":
                return self._request_state(facts, request, wanted=True)
            case "group.offline":
                return self._request_offline(facts, request, set(facts.record.persistent))
        assert request.resource is not None
        state = facts.standing(request.resource)
        if state is ResourceState.INITIALIZING:
            request.waits_for = f"{request.resource} is still Initializing on {self._session.node}"
            return []
        if state.pending:
            message = f"{request.resource} is {state}; ask again when that is over"
            return self._requests.answer(request, AnswerCode.REFUSED, message, state=state.value)
        match request.call:
            case "resource.online":
                return self._request_state(facts, request, wanted=True)
            case "resource.offline":
                request.code = AnswerCode.REFUSED if state is ResourceState.FAILED else AnswerCode.DONE
                concerned = with_dependents(facts.record, request.resource)
                return self._request_offline(facts, request, concerned, state)
            case _:
                return self._fail(now, facts, request, state)

    def _request_offline(
        self, facts: GroupFacts, request: OpenRequest, concerned: set[str], state: ResourceState | None = None
    ) -> list[Action]:
        """No PersistentState becomes 0 while a start of that resource is under way."""
        starting = facts.may_be_starting(concerned)
        if starting:
            request.waits_for = f"{starting} is still going Online"
            return []
        return self._request_state(facts, request, wanted=False, state=state)

    def _request_state(
        self, facts: GroupFacts, request: OpenRequest, *, wanted: bool, state: ResourceState | None = None
    ) -> list[Action]:
        name, record = request.resource or f"group {request.group}", facts.record
        request.message = f"{name} shall be {'Online' if wanted else 'Offline'}"
        if state is ResourceState.FAILED:
            request.message = f"{name} is Failed and cannot be taken offline; its PersistentState is 0 now"
            request.result = {"persistent_state": 0}
        change = RequestState(owner=self._session, epoch=record.epoch, resource=request.resource, wanted=wanted)
        wish = self._orders.change(facts, change)
        request.change = wish.id
        if wanted:
            concerned = with_providers(record, request.resource) if request.resource else set(record.persistent)
            for one in concerned:
                facts.resources[one].retry_with = wish.id
        return [wish]

    def _move(self, now: int, facts: GroupFacts, request: OpenRequest) -> list[Action]:
        record = facts.record
        if record.move is not None:
            message = f"group {record.spec.name} is being moved to {record.move.target}"
            return self._requests.answer(request, AnswerCode.REFUSED, message)
        target = str(request.arguments.get("target", ""))
        reasons = self._moves.refusals(now, facts)
        if target and target not in reasons:
            return self._requests.answer(request, AnswerCode.NO_SUCH, f"there is no node {target!r}")
        if target and reasons[target]:
            message = f"{target} cannot take group {record.spec.name}: {reasons[target]}"
            return self._requests.answer(request, AnswerCode.REFUSED, message)
        target = target or self._moves.most_preferred(now, facts) or ""
        if not target:
            told = ", ".join(f"{node}: {reason}" for node, reason in reasons.items())
            message = f"no node can take group {record.spec.name}: {told}"
            return self._requests.answer(request, AnswerCode.REFUSED, message)
        request.message = f"group {record.spec.name} goes from {self._session.node} to {target}"
        change = BeginMove(
            session=self._session,
            epoch=record.epoch,
            target=target,
            reason="an administrator's request",
            cause=MoveCause.REQUEST,
        )
        wish = self._orders.change(facts, change)
        request.change = wish.id
        return [wish]

    def _fail(self, now: int, facts: GroupFacts, request: OpenRequest, state: ResourceState) -> list[Action]:
        name = request.resource
        assert name is not None
        if state is not ResourceState.ONLINE or facts.record.move is not None:
            why = "it is being moved" if facts.record.move is not None else f"it is {state}"
            message = f"{name} cannot be failed: {why}, and it must be Online"
            return self._requests.answer(request, AnswerCode.REFUSED, message)
        resource = facts.resources[name]
        if not self._orders.free(now, facts, resource):
            request.waits_for = f"something else is under way with {name}"
            return []
        resource.to_fail = f"{facts.record.epoch}.request.{request.id}"
        spec = facts.record.spec.resource(name)
        order = self._orders.call(now, facts, spec, EntryPoint.TERMINATE, why=CallReason.REQUEST)
        message = f"{name} is made to fail; its policy follows"
        return [order, *self._requests.answer(request, AnswerCode.DONE, message)]
