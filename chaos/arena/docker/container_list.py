"""What the engine lists of a rig, as records; and whether its list and its events tell the same story.

The comparison is what makes silence mean something: if a container runs whose start was no event, or events say that
one runs which the list does not know, then events were lost, and no checker may conclude anything from what it did not
see.
"""

from typing import Any

import docker

from chaos.arena.docker.engine_stream import role_of
from chaos.arena.docker.log_stream import parse_stamp_ns
from chaos.history.records import ContainerRole, ContainerSeen, EngineEventSeen
from harness.errors import NoSuchContainer
from harness.model import labels
from harness.rig.engine.connection import engine_call

__all__ = ["differences", "list_containers"]

SAME_START_NS = 5_000_000_000
"""StartedAt and the event of a start lie milliseconds apart; a stalled engine writes the event later."""

RUNNING = ("running", "paused")


def list_containers(
    client: docker.DockerClient, *, rig: str, at_ns: int, with_start: bool = False
) -> tuple[ContainerSeen, ...]:
    """The nodes and VMs of a rig. `with_start` costs a call for each that runs. Raises EngineError."""
    with engine_call(f"list the containers of rig {rig}"):
        found = client.api.containers(all=True, filters={"label": f"{labels.RIG}={rig}"})
    seen = [_seen(client, container, at_ns, with_start=with_start) for container in found]
    return tuple(record for record in seen if record.role in (ContainerRole.NODE, ContainerRole.VM))


def differences(listed: tuple[ContainerSeen, ...], events: list[EngineEventSeen], *, since_ns: int) -> list[str]:
    """Where the list, taken with starts, and the events since `since_ns` contradict each other, as sentences."""
    last: dict[str, EngineEventSeen] = {}
    starts: dict[str, int] = {}
    for event in sorted(events, key=lambda entry: entry.at_ns):
        if event.role in (ContainerRole.NODE, ContainerRole.VM) and event.action in ("start", "die", "destroy"):
            last[event.container] = event
            if event.action == "start":
                starts[event.container] = event.at_ns
    found = []
    running = {seen.container for seen in listed if seen.running}
    for seen in listed:
        if seen.running and seen.started_ns is not None and seen.started_ns > since_ns:
            told_ns = starts.get(seen.container)
            if told_ns is None or abs(told_ns - seen.started_ns) > SAME_START_NS:
                found.append(f"{_name(seen)} runs, and its start was no event")
        elif not seen.running and seen.container in last and last[seen.container].action == "start":
            found.append(f"{_name(seen)} does not run, and its end was no event")
    known = {seen.container for seen in listed}
    for container, event in last.items():
        if container not in known and event.action == "start" and container not in running:
            found.append(f"{event.vm or event.node} ({container[:12]}) is gone, and its end was no event")
    return found


def _seen(client: docker.DockerClient, container: Any, at_ns: int, *, with_start: bool) -> ContainerSeen:
    names = container.get("Labels") or {}
    role = role_of(names)
    running = container["State"] in RUNNING
    return ContainerSeen(
        at_ns=at_ns,
        container=str(container["Id"]),
        role=role,
        node=names.get(labels.NODE, ""),
        running=running,
        paused=container["State"] == "paused",
        started_ns=_started_ns(client, str(container["Id"])) if running and with_start else None,
        vm=names.get(labels.RESOURCE, "") if role is ContainerRole.VM else "",
        group=names.get(labels.GROUP, ""),
        session=names.get(labels.SESSION, ""),
    )


def _started_ns(client: docker.DockerClient, container: str) -> int | None:
    try:
        with engine_call(f"inspect {container[:12]}"):
            state = client.api.inspect_container(container)["State"]
    except NoSuchContainer:
        return None
    return parse_stamp_ns(str(state.get("StartedAt", "")))


def _name(seen: ContainerSeen) -> str:
    return f"{seen.vm or seen.node} ({seen.container[:12]} on {seen.node})"
