"""A person's request to the cluster, from outside: which node is asked, whom next, and what an answer means.

| the node asked | then |
|---|---|
| is off, hangs, or takes no connection | the next one: certainly nothing was done |
| done | that is the answer |
| not-owner | the owner that it names, at most FOLLOW_LIMIT times |
| no-quorum, starting | the next one: it may be the one that is cut off |
| refused, no-such, malformed | RequestRefused |
| unknown, or no answer to the request itself | ApiUnanswered, and nobody else: it may be done already |

It knows no engine: whoever calls it says which nodes answered a look just now.
"""

from collections import deque
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.errors import ApiUnanswered, ApiUnreachable, HarnessError, RequestRefused
from harness.rig.cluster.node_api_client import Address, ApiReply
from harness.rig.cluster.status import RigStatus

__all__ = ["REQUEST_LIMIT_S", "Poster", "Question", "RequestRouter", "send_request", "who_to_ask"]

FOLLOW_LIMIT = 3
REQUEST_LIMIT_S = 12.0
"""A node answers within ten seconds."""

_UNKNOWN = "it may or may not be done: look before you ask again"


class Poster(Protocol):
    """The part of `NodeApiClient` that is needed here."""

    def post(self, address: Address, path: str, body: Mapping[str, str | bool], *, limit_s: float) -> ApiReply:
        """Ask once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request: `path` below the API's version, such as `groups/web/move`, and its arguments."""

    path: str
    arguments: Mapping[str, str | bool]

    def __str__(self) -> str:
        return self.path


def who_to_ask(standing: RigStatus, path: str, answering: Container[str]) -> list[str]:
    """The nodes that answer: the owner of what the path is about first, then those with quorum, then the others."""
    owners = {group.name: group.owner for group in standing.groups}
    owners |= {resource.name: group.owner for group in standing.groups for resource in group.resources}
    kind, _, rest = path.partition("/")
    owner = owners.get(rest.partition("/")[0], "") if kind in ("groups", "resources") else ""
    nodes = [node for node in standing.nodes if node.name in answering]
    return [node.name for node in sorted(nodes, key=lambda node: (node.name != owner, not node.quorum))]


class RequestRouter:
    """One request on its way from node to node, by the table above. Whoever carries it asks `next`, and tells how that
    went.
    """

    def __init__(self, question: Question, *, order: Sequence[str], absent: Mapping[str, str]) -> None:
        """`order` names the nodes that answer, the likeliest first; `absent` says of each other one why it is not
        asked.
        """
        self._question = question
        self._order = order
        self._queue = deque(order)
        self._tried = dict(absent)
        self._follows = 0

    def next(self) -> str:
        """Whom to ask now. Raises RequestRefused when no node could do it, HarnessError when nobody could be asked."""
        if self._queue:
            return self._queue.popleft()
        told = "; ".join(f"{node}: {reason}" for node, reason in self._tried.items()) or "there are no nodes"
        if self._order:
            raise RequestRefused(f"no node could carry out {self._question}: {told}", code="no-quorum")
        raise HarnessError(f"no node's API answers, so {self._question} was asked of nobody: {told}")

    def unreachable(self, node: str, reason: str) -> None:
        """It took no request: certainly nothing was done."""
        self._tried[node] = reason

    def unanswered(self, reason: str) -> ApiUnanswered:
        """It took the request and did not answer: what to raise."""
        return ApiUnanswered(f"{self._question}: {reason}; {_UNKNOWN}")

    def is_done(self, node: str, code: str, message: str, *, owner: str = "") -> bool:
        """Whether that answer is the end of it. Raises RequestRefused, ApiUnanswered when it may be done
        nevertheless.
        """
        match code:
            case "done":
                return True
            case "unknown":
                raise self.unanswered(f"{node} says: {message}")
            case "not-owner":
                self._tried[node] = message
                if owner in self._order and self._follows < FOLLOW_LIMIT:
                    self._follows += 1
                    self._queue.appendleft(owner)
            case "no-quorum" | "starting":
                self._tried[node] = message
            case _:
                raise RequestRefused(f"{node} refused {self._question}: {message}", code=code)
        return False


def send_request(
    api: Poster,
    question: Question,
    *,
    addresses: Mapping[str, Address],
    order: Sequence[str],
    absent: Mapping[str, str],
) -> ApiReply:
    """The answer of the node that has done it; `order` and `absent` as in `RequestRouter`.

    Raises RequestRefused, ApiUnanswered when it may be done nevertheless, HarnessError when there was nobody to ask.
    """
    asking = RequestRouter(question, order=order, absent=absent)
    while True:
        node = asking.next()
        try:
            reply = api.post(addresses[node], question.path, question.arguments, limit_s=REQUEST_LIMIT_S)
        except ApiUnreachable as error:
            asking.unreachable(node, str(error))
            continue
        except ApiUnanswered as error:
            raise asking.unanswered(str(error)) from error
        if asking.is_done(node, reply.code, reply.message, owner=str(reply.body.get("owner", ""))):
            return reply
