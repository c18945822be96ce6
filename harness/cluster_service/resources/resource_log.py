"""What the Resource Control Manager and its parts write into the cluster log."""

from typing import Any

from harness.cluster_service.core.messages import Log
from harness.model.host_messages import HostReport
from harness.model.records import GroupRecord

__all__ = ["COMPONENT", "failure_line", "move_line", "online_line", "resource_line", "wish_lines"]

COMPONENT = "resource-control-manager"


def resource_line(event: str, message: str, *, id: int | None = None, **fields: object) -> Log:
    """A line under the Resource Control Manager's name."""
    return Log(component=COMPONENT, event=event, message=message, id=id, fields=fields)


def failure_line(report: HostReport) -> Log:
    """A resource has failed."""
    return resource_line(
        "resource-failed",
        f"{report.resource} of group {report.group} failed: {report.evidence or report.error or 'no evidence'}",
        id=1069,
        group=report.group,
        resource=report.resource,
        ending=report.ending,
        live=report.live,
    )


def online_line(report: HostReport, epoch: int) -> Log:
    """A resource has gone Online."""
    return resource_line(
        "resource-online",
        f"{report.resource} of group {report.group} is Online",
        group=report.group,
        resource=report.resource,
        epoch=epoch,
    )


def wish_lines(old: GroupRecord, new: GroupRecord) -> list[Log]:
    """Each change of a PersistentState; the owner tells it, so that it is told once."""
    return [
        resource_line(
            "persistent-state",
            f"{name} of group {new.spec.name}: PersistentState is {wanted:d}",
            group=new.spec.name,
            resource=name,
            wanted=wanted,
        )
        for name, wanted in new.persistent.items()
        if old.persistent.get(name) != wanted
    ]


def move_line(before: GroupRecord, after: GroupRecord) -> Log:
    """A move has begun, was given up, or has ended with another owner; told by the owner before."""
    name, move = before.spec.name, after.move or before.move
    assert move is not None
    fields: dict[str, Any] = {
        "group": name,
        "target": move.target,
        "cause": move.cause,
        "reason": move.reason,
        "epoch": after.epoch,
    }
    if after.move is not None:
        return resource_line(
            "group-move-begun", f"group {name} is being moved to {move.target}: {move.reason}", **fields
        )
    if after.owner == before.owner:
        return resource_line("group-move-given-up", f"group {name} stays: {move.target} cannot take it", **fields)
    owner = after.owner.node if after.owner is not None else None
    return resource_line("group-moved", f"group {name}: owner is {owner} under epoch {after.epoch}", **fields)
