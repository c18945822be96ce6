"""Resource Host Subsystem: runs drivers, polls and deadlines; reports, never decides."""

from harness.resource_host.host import ResourceHost

__all__ = ["ResourceHost"]
