"""Whether a simulated world has come to rest: what is left to be said against it, as sentences.

At rest every node is a member with a lease, every request is answered, every group has an owner that knows of it, and
every resource does what its PersistentState says. What is not Online although it is wanted is excused only by what the
rules of the cluster say, reckoned anew here from the records that were chosen: its policy is used up and no retry is
due, no node that may take its group is there for it, or what it depends on is excused or not wanted. Nothing is Online
without what it depends on, and no group is elsewhere than its failback policy, or a resume, wants it to be.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.model.changes import Record
from harness.model.records import ClusterRecord, GroupRecord, NodeEntry, ResumeFailback
from harness.model.register_keys import CLUSTER_KEY, group_key
from harness.model.topology import Failback, ResourceSpec, RestartAction, Topology
from harness.simulation.world.node import SimulatedNode

__all__ = ["unconverged"]

SOON_US = 60_000_000
"""A retry that is due within the quiet phase of a schedule."""


def unconverged(
    topology: Topology,
    *,
    nodes: Mapping[str, SimulatedNode],
    newest: Callable[[str], Record | None],
    running: Mapping[str, list[str]],
    may_be_wanted: Callable[[str], set[bool]],
    now: Callable[[str], int],
) -> list[str]:
    """What keeps the world from rest. `newest` is what a register holds in truth, `running` on which nodes which
    VM runs, `now` what the clock of a node says.
    """
    missing = []
    owners: set[str] = set()
    cluster = newest(CLUSTER_KEY)
    entries = cluster.nodes if isinstance(cluster, ClusterRecord) else ()
    for name, node in nodes.items():
        told = node.snapshot()
        if told is None or not told["member"] or not told["quorum"]:
            missing.append(f"{name} is not a member with a lease")
            continue
        if node.requests_open:
            missing.append(f"{name} has not answered {node.requests_open} requests")
        if any(entry["drain"] == "InProgress" for entry in told["nodes"]):
            missing.append(f"{name} knows of a drain under way")
        for group in told["groups"]:
            record = newest(group_key(group['name']))
            if group["owner"] == name and isinstance(record, GroupRecord):
                owners.add(group["name"])
                excuses = _Excuses(record=record, told=group, nodes=entries, now_us=now(name))
                missing += _of_group(group, excuses, running, may_be_wanted)
                missing += _without_providers(group, record) + _not_gone_back(group, record, entries)
    names = [group.name for group in topology.groups]
    return missing + [f"group {name} has no owner that knows of it" for name in names if name not in owners]


def _of_group(
    group: Mapping[str, Any],
    excuses: "_Excuses",
    running: Mapping[str, list[str]],
    may_be_wanted: Callable[[str], set[bool]],
) -> list[str]:
    missing = [f"group {group['name']} is being moved"] if group["moving_to"] is not None else []
    for resource in group["resources"]:
        name, wanted = resource["name"], bool(resource["persistent_state"])
        told = f"{name} on {group['owner']} is {resource['state']}, PersistentState {wanted:d}: {resource['why']}"
        is_vm, on = resource["type"] == "virtual-machine", running.get(name, [])
        is_online, runs = resource["state"] == "Online", bool(on)
        excused = wanted and not (is_online and (runs or not is_vm)) and excuses.excuse(name)
        if is_online != wanted and not excused:
            missing.append(told)
        if not is_vm:
            continue
        if runs != wanted and not excused:
            missing.append(f"VM {name} {'runs' if runs else 'does not run'}; {told}")
        if any(node != group["owner"] for node in on):
            missing.append(f"VM {name} runs on {' and '.join(on)}; {told}")
        if wanted not in may_be_wanted(name):
            missing.append(f"{told}, which no request can have left")
    return missing


def _without_providers(group: Mapping[str, Any], record: GroupRecord) -> list[str]:
    online = {resource["name"] for resource in group["resources"] if resource["state"] == "Online"}
    return [
        f"{spec.name} on {group['owner']} is Online without {' or '.join(names)}"
        for spec in record.spec.resources
        for names in spec.depends_on
        if spec.name in online and online.isdisjoint(names)
    ]


def _not_gone_back(group: Mapping[str, Any], record: GroupRecord, nodes: tuple[NodeEntry, ...]) -> list[str]:
    """Where it should be by now, and is not: at a node that was resumed for its sake, or at one that it prefers."""
    owner, spec = record.owner, record.spec
    places = {entry.name: entry for entry in nodes}
    settled = all(resource["state"] in ("Online", "Offline") for resource in group["resources"])
    if owner is None or owner.node not in places or places[owner.node].paused or not settled:
        return []
    able = {name for name, entry in places.items() if not entry.paused and name in (spec.possible_owners or places)}
    barred = {name for name, entry in places.items() if entry.session in record.left}
    source = places.get(record.drained.node) if record.drained is not None else None
    if source is not None and record.drained is not None and source.drains == record.drained.drain:
        if source.failback is ResumeFailback.IMMEDIATE and source.name in able - {owner.node}:
            return [f"group {spec.name} is on {owner.node}: {source.name} was resumed with failback immediate"]
        barred |= {source.name} if source.failback is ResumeFailback.NONE else set()
    if spec.failback is Failback.PREVENT or spec.failback_window is not None:
        return []
    before = list(spec.preferred_owners)
    better = [name for name in before[: (*before, owner.node).index(owner.node)] if name in able - barred]
    return [f"group {spec.name} is on {owner.node} and prefers {better[0]}"] if better else []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Excuses:
    """What a group's record excuses. `told` is the group as its owner tells of it, `now_us` the owner's clock."""

    record: GroupRecord
    told: Mapping[str, Any]
    nodes: tuple[NodeEntry, ...]
    now_us: int

    def excuse(self, name: str) -> bool:
        """Whether that resource may rightly be not Online although it is wanted."""
        states = {entry["name"]: entry["state"] for entry in self.told["resources"]}
        spec = self.record.spec.resource(name)
        if self._nobody_may_run_it():
            return True
        if states[name] == "Failed":
            return self._may_stay_failed(spec)
        return any(
            all(self._stays_down(other, states) for other in alternatives) for alternatives in spec.depends_on
        )

    def _stays_down(self, name: str, states: Mapping[str, str]) -> bool:
        return states[name] != "Online" and (not self.record.persistent.get(name, False) or self.excuse(name))

    def _possible(self) -> list[NodeEntry]:
        possible = self.record.spec.possible_owners
        return [entry for entry in self.nodes if not possible or entry.name in possible]

    def _nobody_may_run_it(self) -> bool:
        return bool(self.nodes) and all(entry.paused for entry in self._possible())

    def _may_stay_failed(self, spec: ResourceSpec) -> bool:
        """The rules of the cluster, sections 4 and 5."""
        policy, owner = spec.policy, self.record.owner
        if policy.restart_action is RestartAction.NONE:
            return True
        if owner is None or (policy.retry_period_us is not None and policy.retry_period_us <= SOON_US):
            return False
        here = next((entry for entry in self.nodes if entry.name == owner.node), None)
        paused = here is not None and here.paused
        used = [entry for entry in self.record.restarts if entry.resource == spec.name and entry.session == owner]
        if len(used) < policy.restart_threshold and not paused:
            return False
        if policy.restart_action is RestartAction.RESTART:
            return True
        others = [entry for entry in self._possible() if entry.name != owner.node and not entry.paused]
        if not others:
            return True
        group = self.record.spec
        allowed = group.failover_threshold if group.failover_threshold is not None else len(self.nodes) - 1
        recent = [at_us for at_us in self.record.failovers if 0 <= self.now_us - at_us <= group.failover_period_us]
        return not paused and len(recent) >= allowed
