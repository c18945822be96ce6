"""The probes: questions to the cluster and to the client outside, each answered with one value or with nothing yet.

They change nothing. A probe that cannot be answered (no node talks, no fault has happened yet) answers None with a
sentence that says why; no tolerance holds for None. What was seen of the cluster goes into the history when it differs
from what was seen before.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chaos.arena.client_targets import measured_vms
from chaos.arena.port import Arena
from chaos.experiment.records import ProbeCall
from chaos.experiment.targets import FromRegister
from chaos.history.records import ClientAnswer, ClientBeat, ClusterSeen
from chaos.history.recovery import Phase, Recovery, read_recoveries
from harness.errors import BlackstartError
from harness.model.topology import Topology

__all__ = ["ProbeReply", "ask", "look_at_cluster", "vm_names"]

CLIENT_SILENCE_NS = 3_000_000_000
"""The client tells every second that it lives; after three it does not count as a witness any more."""

VM_TYPE = "virtual-machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReply:
    """What a probe answered. `reason` says what was seen, or why there is no answer."""

    value: Any
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    arena: Arena
    topology: Topology
    arguments: Mapping[str, Any]

    def vms(self) -> Sequence[str]:
        """The VMs that the arguments speak of; all when they name none."""
        if "vm" in self.arguments:
            return [self.arguments["vm"]]
        if "vms" in self.arguments:
            return list(self.arguments["vms"])
        groups = [self.arguments["group"]] if "group" in self.arguments else self.arguments.get("groups")
        return vm_names(self.topology, groups=groups)


async def ask(call: ProbeCall, *, arena: Arena, topology: Topology, registers: Mapping[str, Any]) -> ProbeReply:
    """The probe's answer now. Raises nothing for a world that does not answer: that is an answer of None."""
    arguments = {
        key: registers.get(value.register) if isinstance(value, FromRegister) else value
        for key, value in call.arguments.items()
    }
    try:
        return await _PROBES[call.provider, call.probe](_Question(arena=arena, topology=topology, arguments=arguments))
    except BlackstartError as error:
        return ProbeReply(value=None, reason=str(error))


async def look_at_cluster(arena: Arena) -> ClusterSeen:
    """The cluster now, recorded when it differs from the last look. Raises BlackstartError when no node tells."""
    seen = await arena.cluster()
    last = arena.history.last(ClusterSeen)
    if last is None or replace(last, at_ns=seen.at_ns, moment=seen.moment) != seen:
        arena.history.append(seen)
    return seen


def vm_names(topology: Topology, *, groups: Sequence[str] | None = None) -> list[str]:
    """The VMs of those groups, of all when None."""
    return [
        resource.name
        for group in topology.groups
        if groups is None or group.name in groups
        for resource in group.resources
        if resource.type == VM_TYPE
    ]


async def _groups_online(question: _Question) -> ProbeReply:
    seen = await look_at_cluster(question.arena)
    unwanted = {group.name for group in seen.groups if not any(entry.wanted for entry in group.resources)}
    names = question.arguments.get("groups") or [
        group.name for group in question.topology.groups if group.name not in unwanted
    ]
    missing = [] if names else ["no group is wanted online"]
    for name in names:
        group = seen.group(name)
        if group is None:
            missing.append(f"{name} is unknown to the cluster")
        elif group.state != "Online":
            missing.append(f"{name} is {group.state} on {group.owner or 'no node'}")
    if missing:
        return ProbeReply(value=False, reason="; ".join(missing))
    return ProbeReply(value=True, reason=f"{len(names)} groups are online")


async def _groups_owned(question: _Question) -> ProbeReply:
    node = question.arguments["node"]
    owned = [group.name for group in (await look_at_cluster(question.arena)).groups if group.owner == node]
    return ProbeReply(value=len(owned), reason=f"{node} owns {', '.join(owned) or 'nothing'}")


async def _nodes_up(question: _Question) -> ProbeReply:
    seen = await look_at_cluster(question.arena)
    up = [node.name for node in seen.nodes if node.state == "Up"]
    return ProbeReply(value=len(up), reason=", ".join(f"{node.name} {node.state}" for node in seen.nodes))


async def _owner_of(question: _Question) -> ProbeReply:
    name = question.arguments["group"]
    group = (await look_at_cluster(question.arena)).group(name)
    if group is None or not group.owner:
        return ProbeReply(value=None, reason=f"group {name} has no owner")
    return ProbeReply(value=group.owner, reason=f"{name} is {group.state} on {group.owner}")


async def _persistent_state(question: _Question) -> ProbeReply:
    name = question.arguments["vm"]
    for group in (await look_at_cluster(question.arena)).groups:
        for resource in group.resources:
            if resource.name == name:
                wanted = 1 if resource.wanted else 0
                return ProbeReply(value=wanted, reason=f"{name} is {resource.state} on {group.owner}, wanted {wanted}")
    return ProbeReply(value=None, reason=f"{name} is unknown to the cluster")


async def _recovery_time(question: _Question) -> ProbeReply:
    phase: Phase = question.arguments.get("phase", Phase.STARTED)
    rows = _last_rows(question)
    if not rows:
        return ProbeReply(value=None, reason="no fault of this run has hit one of these VMs")
    times = {row.vm: row.after_s(phase) for row in rows}
    missing = sorted(vm for vm, after in times.items() if after is None)
    reached = [after for after in times.values() if after is not None]
    if missing:
        return ProbeReply(value=None, reason=f"not {phase} yet: {', '.join(missing)}")
    slowest = max(reached)
    return ProbeReply(value=round(slowest, 3), reason=f"{phase} after {slowest:.3f} s, the slowest of {len(rows)}")


async def _restarted_in_place(question: _Question) -> ProbeReply:
    rows = _last_rows(question)
    if not rows or rows[-1].started_ns is None:
        return ProbeReply(value=None, reason="not started again yet" if rows else "no fault of this run has hit it")
    row = rows[-1]
    where = f"{row.vm} ran on {row.from_node} and was started again on {row.to_node}"
    return ProbeReply(value=row.from_node == row.to_node, reason=where)


def _last_rows(question: _Question) -> list[Recovery]:
    """The recoveries after the last activity whose faults hit any of the VMs."""
    vms = question.vms()
    rows = [row for row in read_recoveries(question.arena.history) if row.vm in vms]
    last = max((row.batch for row in rows), default=0)
    return [row for row in rows if row.batch == last]


async def _answers(question: _Question) -> ProbeReply:
    history = question.arena.history
    beat = history.last(ClientBeat)
    now_ns = question.arena.unix_ns()
    if beat is None or now_ns - beat.at_ns > CLIENT_SILENCE_NS:
        silence = "since the run began" if beat is None else f"for {(now_ns - beat.at_ns) / 1e9:.1f} s"
        return ProbeReply(value=None, reason=f"the client has told nothing {silence}")
    last = {answer.vm: answer for answer in history.of(ClientAnswer)}
    measured = measured_vms(question.topology)
    vms = [vm for vm in question.vms() if vm in measured]
    blind = sorted(set(question.vms()).difference(vms))
    named = "vm" in question.arguments or "vms" in question.arguments
    if blind and (named or not vms):
        return ProbeReply(value=None, reason=f"not measured: {', '.join(blind)}; answers-on says where a VM answers")
    silent = []
    for vm in vms:
        answer = last.get(vm)
        if answer is None or not answer.ok:
            silent.append(f"{vm}: {answer.error if answer else 'never asked'}")
    if silent:
        return ProbeReply(value=False, reason="; ".join(silent))
    unsaid = f"; not measured: {', '.join(blind)}" if blind else ""
    return ProbeReply(value=True, reason=f"{len(vms)} VMs answer{unsaid}")


_PROBES: Mapping[tuple[str, str], Callable[[_Question], Awaitable[ProbeReply]]] = {
    ("cluster", "groups-online"): _groups_online,
    ("cluster", "groups-owned"): _groups_owned,
    ("cluster", "nodes-up"): _nodes_up,
    ("cluster", "owner-of"): _owner_of,
    ("cluster", "persistent-state"): _persistent_state,
    ("cluster", "recovery-time"): _recovery_time,
    ("cluster", "restarted-in-place"): _restarted_in_place,
    ("client", "answers"): _answers,
}
