"""What one node believes, as plain JSON values, for people and for the harness. Decides nothing.

The states of a group's resources are known on its owner only; elsewhere they read "Unknown", and whoever asks merges
the answers of all nodes.
"""

from typing import Any

from harness.cluster_service.core.pending_requests import OpenRequests
from harness.cluster_service.membership.membership import MembershipManager
from harness.cluster_service.membership.node import NodeManager
from harness.cluster_service.membership.voter_set import VoterSetManager
from harness.cluster_service.placement.failover import FailoverManager
from harness.cluster_service.placement.ranking import refusals
from harness.cluster_service.resources.explanation import no_candidate
from harness.cluster_service.resources.resource_control import ResourceControlManager
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry, SessionState
from harness.model.serialization import to_json_value
from harness.model.session import Session
from harness.model.states import group_state

__all__ = ["UNKNOWN", "snapshot"]

UNKNOWN = "Unknown"


def snapshot(
    now: int,
    *,
    rig: str,
    session: Session,
    membership: MembershipManager,
    node: NodeManager,
    voter_set: VoterSetManager,
    failover: FailoverManager,
    requests: OpenRequests,
    resource_control: ResourceControlManager,
) -> dict[str, Any]:
    """The node's view: `nodes` and `groups` in the order of the cluster register, the groups as far as it watches or
    owns them; `requests` are those that wait for their answers here.
    """
    cluster = membership.cluster
    names = [name for name in cluster.groups if failover.keeps(name)] if cluster is not None else []
    return {
        "rig": rig,
        "node": session.node,
        "session": str(session),
        "quorum": node.lease_live(now),
        "member": membership.is_member(),
        "nodes": [_node(entry) for entry in cluster.nodes] if cluster is not None else [],
        "voters": _voters(now, cluster, voter_set) if cluster is not None else [],
        "voter_set": _voter_set(cluster) if cluster is not None else None,
        "groups": [
            _group(now, failover.groups[name], session, membership, resource_control)
            for name in names
            if name in failover.groups
        ],
        "groups_expected": len(names),
        "watches_all": failover.watches_all(),
        "requests": [
            {"call": request.call, "arguments": dict(request.arguments), "waits_for": request.waits_for}
            for request in requests.all()
        ],
    }


def _node(entry: NodeEntry) -> dict[str, Any]:
    state = "Joining" if entry.state is SessionState.NEVER else entry.state.value
    return {
        "name": entry.name,
        "address": entry.address,
        "state": "Paused" if entry.paused and state == "Up" else state,
        "paused": entry.paused,
        "drain": entry.drain.value,
        "fenced": entry.fenced,
        "session": str(entry.session) if entry.session is not None else None,
    }


def _voter_set(cluster: ClusterRecord) -> dict[str, Any] | None:
    """The set that is settled, and the one to which it is being changed, if it is."""
    if cluster.voter_set is None:
        return None
    pending = cluster.pending_set
    return {
        "version": cluster.voter_set.version,
        "members": sorted(cluster.voter_set.members),
        "majority": cluster.voter_set.majority,
        "pending": {"version": pending.version, "members": sorted(pending.members)} if pending else None,
    }


def _voters(now: int, cluster: ClusterRecord, voter_set: VoterSetManager) -> list[dict[str, Any]]:
    """Each voter that there should be, as this node sees it: answers, refuses or silent, and why."""
    newest = cluster.pending_set or cluster.voter_set
    members = newest.members if newest is not None else {}
    seen = []
    for name in cluster.votes:
        view, silent_us = voter_set.watch.view(name), voter_set.watch.silent_for_us(now, name)
        lost = voter_set.watch.lost(name, members[name]) if name in members else ""
        if name not in members:
            state, why = "not in the set", ""
        elif silent_us:
            state, why = "silent", f"for {silent_us / 1e6:.1f} s: {view.reason or 'no answer within the limit'}"
        elif lost:
            state, why = "refuses", lost
        else:
            state, why = ("answers", "") if view.answered_us is not None else ("unknown", "not asked yet")
        seen.append({"name": name, "member": name in members, "state": state, "why": why})
    return seen


def _group(
    now: int,
    record: GroupRecord,
    session: Session,
    membership: MembershipManager,
    resource_control: ResourceControlManager,
) -> dict[str, Any]:
    cluster = membership.cluster
    mine = record.owner == session
    states = resource_control.states(record.spec.name) if mine else {}
    more = resource_control.told(now, record.spec.name) if mine and cluster is not None else {}
    orphaned = record.owner is not None and cluster is not None and not cluster.is_up(record.owner)
    return {
        "name": record.spec.name,
        "owner": record.owner.node if record.owner is not None else None,
        "owner_session": str(record.owner) if record.owner is not None else None,
        "owner_up": record.owner is not None and not orphaned,
        "epoch": record.epoch,
        "state": group_state(states.values()).value if mine else UNKNOWN,
        "moving_to": record.move.target if record.move is not None else None,
        "move": to_json_value(record.move),
        "drained_from": record.drained.node if record.drained is not None else None,
        "failovers": len(record.failovers),
        "why": _why_without_owner(now, record, membership),
        "resources": [
            {
                "name": spec.name,
                "type": spec.type,
                "state": states[spec.name].value if spec.name in states else UNKNOWN,
                "persistent_state": 1 if record.persistent.get(spec.name, False) else 0,
                "why": more[spec.name]["why"] if spec.name in more else "",
                "restarts_left": more[spec.name]["restarts_left"] if spec.name in more else None,
            }
            for spec in record.spec.resources
        ],
    }


def _why_without_owner(now: int, record: GroupRecord, membership: MembershipManager) -> str:
    """Why nobody runs the group; empty when its owner is Up."""
    cluster, owner = membership.cluster, record.owner
    if cluster is None or (owner is not None and cluster.is_up(owner)):
        return ""
    if owner is not None and not cluster.is_over(owner):
        return f"its owner {owner.node} is lost, and not yet known to be off"
    reasons = refusals(group=record.spec, nodes=cluster.nodes, alive=membership.candidates(now), owner=None)
    return no_candidate(reasons) or "it is about to be claimed"
