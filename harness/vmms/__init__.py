"""VMMS: a node's view of its engine, and the only process that calls the engine for VMs."""

from harness.vmms.vmms import Vmms

__all__ = ["Vmms"]
