"""Administrators' requests that are open: asked, and not answered yet.

The Administration Manager lets them in; those about a group are carried out by the Resource Control Manager of the
group's owner, one at a time per group in the order in which they came. Whoever knows the end answers through here, so
that each gets exactly one answer, also when the lease lapses and the managers are thrown away.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.cluster_service.core.messages import Action, AnswerCode, Log, RequestAnswered, RequestReceived
from harness.model.topology import SECOND_US

__all__ = ["COMPONENT", "OPEN_LIMIT", "REQUEST_LIMIT_US", "OpenRequest", "OpenRequests"]

COMPONENT = "administration-manager"

REQUEST_LIMIT_US = 10 * SECOND_US
"""How long a request may take until its wish is in the database: twice what a change is tried, and a bit."""

OPEN_LIMIT = 64
"""Requests open at once; a person does not ask more, and a script that does must wait for its answers."""


@dataclass(slots=True, kw_only=True)
class OpenRequest:
    """One request. `group` and `resource` are what it is about; `change` is its change under way, and `code`,
    `message`, `result` what will be answered when that is done. `unread` are groups of which the registers are read
    for it; None until it was looked which.
    """

    id: int
    call: str
    arguments: Mapping[str, str | bool]
    due_us: int
    group: str | None = None
    resource: str | None = None
    change: int | None = None
    waits_for: str = ""
    code: AnswerCode = AnswerCode.DONE
    message: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    unread: set[str] | None = None

    def __str__(self) -> str:
        told = " ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.call} {told}".rstrip()


class OpenRequests:
    """In the order in which they came."""

    def __init__(self) -> None:
        self._open: dict[int, OpenRequest] = {}

    def __len__(self) -> int:
        return len(self._open)

    def all(self) -> list[OpenRequest]:
        """Every open request."""
        return list(self._open.values())

    def add(self, now: int, event: RequestReceived) -> OpenRequest:
        """Let a request in."""
        request = OpenRequest(
            id=event.id, call=event.call, arguments=event.arguments, due_us=now + REQUEST_LIMIT_US
        )
        self._open[request.id] = request
        return request

    def groups(self) -> set[str]:
        """The groups that open requests are about."""
        return {request.group for request in self._open.values() if request.group is not None}

    def first_of(self, group: str) -> OpenRequest | None:
        """The oldest request about that group."""
        if not self._open:
            return None
        return next((request for request in self._open.values() if request.group == group), None)

    def changed_by(self, change: int) -> OpenRequest | None:
        """The request whose change that is."""
        return next((request for request in self._open.values() if request.change == change), None)

    def answer(self, request: OpenRequest, code: AnswerCode, message: str, **result: Any) -> list[Action]:
        """The one answer to a request, and the line about it in the cluster log."""
        del self._open[request.id]
        return answered(
            RequestReceived(id=request.id, call=request.call, arguments=request.arguments), code, message, result
        )

    def lapse(self) -> list[Action]:
        """The lease has ended, and nobody will know what becomes of the changes under way."""
        actions: list[Action] = []
        for request in self.all():
            if request.change is None:
                message = "the lease has ended before anything was changed: no majority of the voters answers"
                actions += self.answer(request, AnswerCode.NO_QUORUM, message)
            else:
                message = "the lease has ended while the change was under way: it may or may not be made"
                actions += self.answer(request, AnswerCode.UNKNOWN, message)
        return actions

    def next_due(self) -> int | None:
        """When the oldest request has waited for too long."""
        return min((request.due_us for request in self._open.values()), default=None)


def answered(event: RequestReceived, code: AnswerCode, message: str, result: Mapping[str, Any]) -> list[Action]:
    """An answer with its line in the cluster log."""
    fields = {"call": event.call, **event.arguments, "code": code}
    return [
        Log(component=COMPONENT, event="request-answered", message=f"{event.call}: {code}: {message}", fields=fields),
        RequestAnswered(id=event.id, code=code, message=message, result=result),
    ]
