"""What services ask of their resource hosts and hear of them, with what no test minds filled in."""

from typing import Any

from harness.model.host_messages import CallReason, EntryPoint, HostReport, HostRequest
from harness.model.session import Session
from harness.model.states import ResourceState

__all__ = ["report_of", "request_of"]


def request_of(session: Session, entry_point: EntryPoint, **said: Any) -> HostRequest:
    """Of the VM vm of the group web, unless something else is said."""
    usual = {"number": 1, "resource": "vm", "group": "web", "epoch": 1, "not_after_us": 0, "why": CallReason.REQUEST}
    return HostRequest(session=session, entry_point=entry_point, **{**usual, **said})


def report_of(state: ResourceState, **said: Any) -> HostReport:
    """The same of what a resource host says."""
    usual = {"sequence": 1, "resource": "vm", "group": "web", "epoch": 1, "at_us": 0}
    return HostReport(state=state, **{**usual, **said})
