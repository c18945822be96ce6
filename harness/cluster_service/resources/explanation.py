"""Why a resource is not Online, or a group has no owner: a sentence for a person. Decides nothing."""

from collections.abc import Mapping

from harness.cluster_service.resources.resource_facts import GroupFacts
from harness.model.session import Session
from harness.model.states import ResourceState
from harness.model.topology import ResourceSpec

__all__ = ["no_candidate", "restarts_left", "why_not_online"]


def no_candidate(reasons: Mapping[str, str]) -> str:
    """`no candidate: node1: it is Paused, ...`, from the reasons of `placement.refusals`; empty when there is one."""
    if not all(reasons.values()):
        return ""
    return "no candidate: " + "; ".join(f"{node}: {reason}" for node, reason in reasons.items())


def why_not_online(
    facts: GroupFacts, spec: ResourceSpec, *, paused: bool, reasons: Mapping[str, str]
) -> str:
    """For one resource of a group that this session owns; empty when it is Online. `reasons` are why the other nodes
    cannot take the group.
    """
    record, resource = facts.record, facts.resources[spec.name]
    state = facts.standing(spec.name)
    if record.move is not None:
        return f"its group is being moved to {record.move.target}: {record.move.reason}"
    if not record.persistent.get(spec.name, False):
        return "its PersistentState is 0"
    if state is ResourceState.ONLINE:
        return ""
    if resource.opened_epoch != record.epoch:
        return f"it cannot be opened: {resource.evidence}" if resource.open_errors else "it is being opened"
    if state is ResourceState.FAILED:
        return f"it stays Failed: {resource.stays}" if resource.stays else f"it failed: {resource.evidence}"
    if state.pending:
        return f"it is {state}"
    waits = missing_provider(facts, spec)
    if waits:
        return f"waits for provider {waits}"
    return f"its node is Paused; {no_candidate(reasons) or 'the group is about to leave'}" if paused else "starts next"


def missing_provider(facts: GroupFacts, spec: ResourceSpec) -> str:
    """The first set of providers of which none is Online, joined by `or`."""
    for alternatives in spec.depends_on:
        if not any(facts.resources[name].state is ResourceState.ONLINE for name in alternatives):
            return " or ".join(alternatives)
    return ""


def restarts_left(now: int, facts: GroupFacts, spec: ResourceSpec, session: Session) -> int:
    """How many failures in a row would still be answered by a restart in place."""
    used = facts.restarts_of(now, spec, session)
    return max(spec.policy.restart_threshold - len(used), 0)
