"""The first content of every register of a new cluster, in the order in which it is written: the cluster's register
last.

Groups before the cluster: a cluster that can be read has all its groups.
"""

from harness.model.records import ClusterRecord, GroupRecord, NodeEntry
from harness.model.register_keys import CLUSTER_KEY, group_key
from harness.model.topology import Priority, Topology
from harness.model.voter_set import VoterSet

__all__ = ["first_registers"]


def first_registers(topology: Topology, voter_set: VoterSet) -> list[tuple[str, ClusterRecord | GroupRecord]]:
    """Pairs of key and record. Nobody owns a group yet; every resource shall be Online, but for groups that do not
    start by themselves: their PersistentState is 0 until somebody asks for them.
    """
    registers: list[tuple[str, ClusterRecord | GroupRecord]] = []
    for group in topology.groups:
        persistent = dict.fromkeys(
            (resource.name for resource in group.resources), group.priority is not Priority.NO_AUTO_START
        )
        record = GroupRecord(spec=group, owner=None, epoch=0, persistent=persistent)
        registers.append((group_key(group.name), record))
    cluster = ClusterRecord(
        rig=topology.rig,
        nodes=tuple(NodeEntry(name=node.name, address=node.address) for node in topology.nodes),
        groups=tuple(group.name for group in topology.groups),
        settings=topology.settings,
        votes=tuple(voter.name for voter in topology.voters),
        voter_set=voter_set,
    )
    return [*registers, (CLUSTER_KEY, cluster)]
