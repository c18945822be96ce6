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
from harness.rig.node_api_client import Address, Reply
from harness.rig.standing import Standing

__all__ = ["Poster", "Question", "send_request", "who_to_ask"]

FOLLOW_LIMIT = 3
REQUEST_LIMIT_S = 12.0
"""A node answers within ten seconds."""

_UNKNOWN = "it may or may not be done: look before you ask again"


class Poster(Protocol):
    """The part of `NodeApiClient` that is needed here."""

    def post(self, address: Address, path: str, body: Mapping[str, str | bool], *, limit_s: float) -> Reply:
        """Ask once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request: `path` below the API's version, such as `groups/web/move`, and its arguments."""

    path: str
    arguments: Mapping[str, str | bool]

    def __str__(self) -> str:
        return self.path


def who_to_ask(standing: Standing, path: str, answering: Container[str]) -> list[str]:
    """The nodes that answer: the owner of what the path is about first, then those with quorum, then the others."""
    owners = {group.name: group.owner for group in standing.groups}
    owners |= {resource.name: group.owner for group in standing.groups for resource in group.resources}
    kind, _, rest = path.partition("/")
    owner = owners.get(rest.partition("/")[0], "") if kind in ("groups", "resources") else ""
    nodes = [node for node in standing.nodes if node.name in answering]
    return [node.name for node in sorted(nodes, key=lambda node: (node.name != owner, not node.quorum))]


def send_request(
    api: Poster,
    question: Question,
    *,
    addresses: Mapping[str, Address],
    order: Sequence[str],
    absent: Mapping[str, str],
) -> Reply:
    """The answer of the node that has done it. `order` names the nodes that answer, the likeliest first; `absent` says
    of each other one why it is not asked.

    Raises RequestRefused, ApiUnanswered when it may be done nevertheless, HarnessError when there was nobody to ask.
    """
    tried = dict(absent)
    queue = deque(order)
    follows = 0
    while queue:
        node = queue.popleft()
        try:
            reply = api.post(addresses[node], question.path, question.arguments, limit_s=REQUEST_LIMIT_S)
        except ApiUnreachable as error:
            tried[node] = str(error)
            continue
        except ApiUnanswered as error:
            raise ApiUnanswered(f"{question}: {error}; {_UNKNOWN}") from error
        match reply.code:
            case "done":
                return reply
            case "unknown":
                raise ApiUnanswered(f"{question}: {node} says: {reply.message}; {_UNKNOWN}")
            case "not-owner":
                tried[node] = reply.message
                owner = str(reply.body.get("owner", ""))
                if owner in order and follows < FOLLOW_LIMIT:
                    follows += 1
                    queue.appendleft(owner)
            case "no-quorum" | "starting":
                tried[node] = reply.message
            case code:
                raise RequestRefused(f"{node} refused {question}: {reply.message}", code=code)
    told = "; ".join(f"{node}: {reason}" for node, reason in tried.items()) or "there are no nodes"
    if order:
        raise RequestRefused(f"no node could carry out {question}: {told}", code="no-quorum")
    raise HarnessError(f"no node's API answers, so {question} was asked of nobody: {told}")
