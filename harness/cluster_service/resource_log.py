"""What the Resource Control Manager and its parts write into the cluster log."""

from harness.cluster_service.messages import Log
from harness.model.host import HostReport
from harness.model.records import GroupRecord

__all__ = ["COMPONENT", "failure_line", "online_line", "resource_line", "wish_lines"]

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
