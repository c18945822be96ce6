"""Which driver serves which resource type: the built-in ones, and those that installed packages register as entry
points.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points

from harness.drivers.ip_address import IpAddressDriver
from harness.drivers.virtual_machine import VirtualMachineDriver
from harness.errors import UsageError
from harness.resource_host.driver import DriverFactory

__all__ = ["ENTRY_POINT_GROUP", "built_in_drivers", "installed_drivers"]

ENTRY_POINT_GROUP = "blackstart.drivers"


def built_in_drivers() -> dict[str, DriverFactory]:
    """The drivers of this package, by resource type."""
    return {"virtual-machine": VirtualMachineDriver, "ip-address": IpAddressDriver}


def installed_drivers() -> Mapping[str, DriverFactory]:
    """The built-in drivers and every third party's. Raises UsageError when one cannot be loaded or claims a built-in
    type.
    """
    drivers = built_in_drivers()
    for found in entry_points(group=ENTRY_POINT_GROUP):
        if found.name in drivers:
            raise UsageError(f"two drivers claim resource type {found.name}: one of them is {found.value}; remove it")
        try:
            drivers[found.name] = found.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(f"driver {found.value} of resource type {found.name} cannot be loaded: {error}") from error
    return drivers
