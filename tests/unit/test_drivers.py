"""The drivers' properties, and where drivers come from."""

from importlib import metadata

import pytest

from harness.drivers import registry
from harness.drivers.ip_address import interface_address
from harness.drivers.vm_properties import vm_readiness, vm_spec
from harness.errors import UsageError
from harness.model.topology import ResourceSpec
from harness.model.vm import VmSpec
from harness.model.workload import answers_on
from harness.resource_host.driver import DriverError


def resource(**properties: str) -> ResourceSpec:
    return ResourceSpec(name="web", type="any", properties=properties)


def test_vm_is_made_from_string_properties() -> None:
    given = resource(
        image="blackstart/guest",
        address="10.87.1.4",
        user="10007",
        memory="67108864",
        command='["guest", "--loud"]',
        environment='{"COLOUR": "blue"}',
        volumes='{"data": "/var/lib/data"}',
        processors="250",
        processes="20",
        disk="1048576",
        **{"writable-root": "true"},
    )

    assert vm_spec(given, group="g") == VmSpec(
        name="web",
        group="g",
        image="blackstart/guest",
        address="10.87.1.4",
        user=10007,
        command=("guest", "--loud"),
        environment={"COLOUR": "blue"},
        volumes={"data": "/var/lib/data"},
        memory_bytes=64 << 20,
        processors_milli=250,
        processes=20,
        disk_bytes=1 << 20,
        writable_root=True,
    )


@pytest.mark.parametrize(
    ("properties", "named"),
    [
        ({}, "image"),
        ({"image": "i", "memory": "64M"}, "memory"),
        ({"image": "i", "user": "900"}, "user 900"),
        ({"image": "i", "command": "guest"}, "command"),
        ({"image": "i", "command": '["guest", 1]'}, "command"),
        ({"image": "i", "environment": "[]"}, "environment"),
        ({"image": "i", "volumes": '{"data": 1}'}, "volumes"),
        ({"image": "i", "colour": "blue"}, "colour"),
    ],
)
def test_wrong_vm_property_is_refused_by_name(properties: dict[str, str], named: str) -> None:
    with pytest.raises(DriverError, match=named):
        vm_spec(resource(**properties), group="g")


@pytest.mark.parametrize(
    ("properties", "named"),
    [
        ({"readiness": "[]"}, "readiness"),
        ({"readiness": "{}"}, "either an endpoint or a command"),
        ({"readiness": '{"endpoint": "udp:53"}', "address": "10.87.0.100"}, "udp:53"),
        ({"readiness": '{"endpoint": "tcp:5432"}'}, "no address"),
        ({"answers-on": "http:80", "address": "10.87.0.100"}, "http:80"),
    ],
)
def test_wrong_readiness_is_refused_by_name(properties: dict[str, str], named: str) -> None:
    with pytest.raises(DriverError, match=named):
        vm_readiness(resource(image="i", **properties))


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"image": "blackstart/guest"}, "http:8080/"),
        ({"image": "blackstart/guest:latest", "answers-on": "tcp:5432"}, "tcp:5432"),
        ({"image": "shop", "readiness": '{"endpoint": "http:9000/health"}'}, "http:9000/health"),
        ({"image": "shop", "readiness": '{"command": ["ready"]}'}, "None"),
        ({"image": "shop", "readiness": '{"command": ["ready"]}', "answers-on": "tcp:5432"}, "tcp:5432"),
        ({"image": "shop"}, "None"),
        ({"image": "blackstart/guest", "address": ""}, "None"),
    ],
)
def test_client_asks_what_the_vm_says_it_answers_on(properties: dict[str, str], expected: str) -> None:
    assert str(answers_on({"address": "10.87.0.100", **properties})) == expected


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"address": "10.87.1.4/24"}, "10.87.1.4/24"),
        ({"address": "10.87.1.4", "prefix": "16"}, "10.87.1.4/16"),
        ({"address": "10.87.1.4"}, "10.87.1.4/32"),
    ],
)
def test_address_is_taken_with_or_without_its_length(properties: dict[str, str], expected: str) -> None:
    assert interface_address(resource(**properties)) == expected


@pytest.mark.parametrize("text", ["", "10.87.1", "10.87.1.4/40", "web.example"])
def test_wrong_address_is_refused(text: str) -> None:
    with pytest.raises(DriverError, match="address"):
        interface_address(resource(address=text))


class TestThirdParties:
    """Drivers of installed packages, by entry point."""

    def install(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
        found = [metadata.EntryPoint(name=name, value=value, group=registry.ENTRY_POINT_GROUP)]
        monkeypatch.setattr(registry, "entry_points", lambda *, group: found if group == "blackstart.drivers" else [])

    def test_installed_driver_serves_its_type(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(monkeypatch, "tape-robot", "harness.drivers.ip_address:IpAddressDriver")

        drivers = registry.installed_drivers()

        assert set(drivers) == {"virtual-machine", "ip-address", "tape-robot"}

    def test_built_in_type_cannot_be_claimed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(monkeypatch, "ip-address", "harness.drivers.ip_address:IpAddressDriver")

        with pytest.raises(UsageError, match="ip-address"):
            registry.installed_drivers()

    def test_driver_that_cannot_be_loaded_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(monkeypatch, "tape-robot", "no_such_package:Driver")

        with pytest.raises(UsageError, match="tape-robot"):
            registry.installed_drivers()
