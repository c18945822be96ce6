"""How a rig stands, as tables and as sentences."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.rig.cluster.status import GroupStatus, NodeStatus, ResourceStatus, VoterStatus

__all__ = [
    "Rows",
    "group_rows",
    "group_told",
    "node_rows",
    "node_told",
    "resource_rows",
    "resource_told",
    "voter_rows",
]

Rows = tuple[Sequence[str], list[Sequence[str]]]


def node_rows(nodes: Iterable["NodeStatus"]) -> Rows:
    """The headings and rows of the table of nodes."""
    from chaos.cli.output import coloured

    rows: list[Sequence[str]] = [
        (
            node.name,
            node.address,
            coloured(node.power),
            coloured(node.state),
            {True: "yes", False: "no", None: "?"}[node.quorum],
            "voter" if node.voter else "",
            node.session.partition("@")[2].partition("/")[0],
        )
        for node in nodes
    ]
    return ("node", "address", "power", "state", "quorum", "", "session"), rows


def voter_rows(voters: Iterable["VoterStatus"]) -> Rows:
    """The headings and rows of the table of voters, as a node with a lease sees them."""
    from chaos.output.printing import markup

    rows: list[Sequence[str]] = [
        (voter.name, voter.role, "counts" if voter.member else "does not count", voter.state, markup(voter.why))
        for voter in voters
    ]
    return ("voter", "", "", "state", "why"), rows


def group_rows(groups: Iterable["GroupStatus"]) -> Rows:
    """The headings and rows of the table of groups; a resource that is not wanted online is marked."""
    from chaos.cli.output import coloured

    rows: list[Sequence[str]] = [
        (
            group.name,
            group.owner or "-",
            str(group.epoch),
            coloured(group.state),
            ", ".join(
                f"{resource.name} {coloured(resource.state)}{' (not wanted)' if resource.persistent_state == 0 else ''}"
                for resource in group.resources
            ),
        )
        for group in groups
    ]
    return ("group", "owner", "epoch", "state", "resources"), rows


def resource_rows(groups: Iterable["GroupStatus"]) -> Rows:
    """The headings and rows of the table of resources."""
    from chaos.cli.output import coloured
    from chaos.output.printing import markup

    rows: list[Sequence[str]] = [
        (
            resource.name,
            resource.type,
            group.name,
            group.owner or "-",
            coloured(resource.state),
            "?" if resource.persistent_state is None else str(resource.persistent_state),
            markup(resource.why),
        )
        for group in groups
        for resource in group.resources
    ]
    return ("resource", "type", "group", "owner", "state", "wanted", ""), rows


def group_told(group: "GroupStatus") -> str:
    """A group in a sentence."""
    why = f" ({group.why})" if group.why else ""
    return f"group {group.name} is {group.state} on {group.owner or 'no node'}{why}"


def resource_told(group: "GroupStatus", resource: "ResourceStatus") -> str:
    """A resource in a sentence."""
    why = f" ({resource.why})" if resource.why else ""
    wanted = ", wanted Online" if resource.persistent_state else ", not wanted Online"
    return f"resource {resource.name} is {resource.state} on {group.owner or 'no node'}{wanted}{why}"


def node_told(node: "NodeStatus") -> str:
    """A node in a sentence."""
    drain = f", drain {node.drain}" if node.drain not in ("", "NotInitiated") else ""
    return f"node {node.name} is {node.state}, its power is {node.power}{drain}"
