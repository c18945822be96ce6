"""How a rig stands, as a record of the history."""

from chaos.history.records import ClusterSeen, GroupSeen, NodeSeen, ResourceSeen
from harness.rig.cluster.status import RigStatus

__all__ = ["cluster_seen"]


def cluster_seen(standing: RigStatus, *, at_ns: int) -> ClusterSeen:
    """The rig's view as a record."""
    return ClusterSeen(
        at_ns=at_ns,
        quorum=any(node.quorum for node in standing.nodes),
        nodes=tuple(
            NodeSeen(
                name=node.name,
                state="Up" if node.state == "Paused" else node.state,
                paused=node.state == "Paused",
                session=node.session,
            )
            for node in standing.nodes
        ),
        groups=tuple(
            GroupSeen(
                name=group.name,
                owner=group.owner,
                state=group.state,
                epoch=group.epoch,
                resources=tuple(
                    ResourceSeen(
                        name=resource.name,
                        type=resource.type,
                        state=resource.state,
                        wanted=bool(resource.persistent_state),
                    )
                    for resource in group.resources
                ),
            )
            for group in standing.groups
        ),
    )
