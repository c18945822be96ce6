"""What a person writes about a VM of their own becomes properties, or is refused with line and expected form."""

import json

import pytest

from harness.document.topology import read_topology
from harness.document.yaml_source import load
from harness.errors import UsageError
from harness.model.topology import SECOND_US, GroupSpec
from harness.model.workload import Readiness, readiness

HEAD = "groups:\n  - name: shop\n    resources:\n      - {name: ip, type: ip-address}\n"


def read(keys: str, *, depends: str = '"[ip]"') -> GroupSpec:
    """A group whose VM has these keys, one a line, the first on line 8."""
    vm = f"      - name: vm\n        type: virtual-machine\n        depends-on: {depends}\n"
    indented = "".join(f"        {line}\n" for line in keys.splitlines())
    return read_topology(load(HEAD + vm + indented, name="rig.yaml")).groups[0]


def properties(keys: str) -> dict[str, str]:
    return dict(read(keys).resource("vm").properties)


def refusal(keys: str, *, depends: str = '"[ip]"') -> str:
    with pytest.raises(UsageError) as caught:
        read(keys, depends=depends)
    (found,) = str(caught.value).splitlines()
    return found


def test_vm_of_a_persons_own_becomes_properties() -> None:
    found = properties(
        """\
image: shop/database:15
command: [serve, --fast]
environment: {MODE: fast}
memory: 256MiB
disk: 1GiB
writable-root: true
processors: 0.5
processes: 100
user: 12000
volumes: ["data:/var/lib/data", "logs:/var/log/shop"]
readiness: {command: "ask --quiet", interval: 1s, timeout: 3s, liveness: true}
answers-on: 5432"""
    )

    check = found.pop("readiness")
    assert readiness({"readiness": check}) == Readiness(
        command=("ask", "--quiet"), interval_us=SECOND_US, timeout_us=3 * SECOND_US, liveness=True
    )
    assert found == {
        "address": "10.87.0.100",
        "answers-on": "tcp:5432",
        "command": '["serve", "--fast"]',
        "environment": '{"MODE": "fast"}',
        "image": "shop/database:15",
        "memory": str(256 << 20),
        "disk": str(1 << 30),
        "writable-root": "true",
        "processes": "100",
        "processors": "500",
        "user": "12000",
        "volumes": '{"data": "/var/lib/data", "logs": "/var/log/shop"}',
    }


@pytest.mark.parametrize(
    ("written", "endpoint"),
    [("9000", "tcp:9000"), ("{tcp: 9000}", "tcp:9000"), ("{http: /health, port: 9000}", "http:9000/health")],
)
def test_endpoint_is_a_port_or_a_path_and_a_port(written: str, endpoint: str) -> None:
    found = properties(f"readiness: {written}\nanswers-on: {written}")

    assert json.loads(found["readiness"])["endpoint"] == found["answers-on"] == endpoint


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("processors: 0", "processors is 0, expected a number from 0.01 to 64"),
        ("processors: 0.125", "processors is 0.125"),
        ("processors: true", "processors is true"),
        ("processes: 0", "processes is 0"),
        ("disk: 1KiB", "disk is "),
        ("writable-root: maybe", "writable-root is "),
        ('volumes: ["disk:/data"]', "every VM has a disk already"),
        ('volumes: ["data:/tmp/data"]', "in the way of /tmp"),
        ("user: root", "user is 'root', expected a number from 10001 to 60000: a VM is never root"),
        ("user: 0", "user is 0"),
        ("user: 903", "user is 903"),
        ('volumes: ["host:/etc:/etc"]', "directories of the host are never given to a VM"),
        ('volumes: ["/etc:/etc"]', "directories of the host are never given to a VM"),
        ('volumes: ["../../etc:/data"]', "directories of the host are never given to a VM"),
        ('volumes: ["data"]', "the path is ''"),
        ('volumes: ["data:var"]', "the path is 'var', expected a plain absolute path"),
        ('volumes: ["data:/var/../etc"]', "the path is '/var/../etc'"),
        ('volumes: ["data:/data:ro"]', "the path is '/data:ro'"),
        ('volumes: ["data:/"]', "the path is '/'"),
        ('volumes: ["data:/disk/data"]', "in the way of /disk"),
        ('volumes: ["data:/proc"]', "in the way of /proc"),
        ('volumes: ["a:/data", "b:/data/inner"]', "in the way of /data"),
        ('volumes: ["a:/data", "a:/other"]', "the name stands twice"),
        ('volumes: ["Data:/data"]', "the name is 'Data'"),
        ("readiness: {}", "readiness asks nothing, or two things"),
        ("readiness: {tcp: 5432, command: ready}", "readiness asks nothing, or two things"),
        ("readiness: {tcp: 80}", "tcp is 80, expected a whole number from 1024 to 65535"),
        ("readiness: {http: health, port: 8080}", "http is 'health', expected a path"),
        ("readiness: {http: /health}", "has no port"),
        ("readiness: {tcp: 5432, timeout: 10s}", "timeout is 10s, expected a duration from 100ms to 4s"),
        ("readiness: {tcp: 5432, retries: 3}", "a readiness check has no key 'retries'"),
        ("answers-on: {}", "answers-on says nothing"),
        ("answers-on: 637", "answers-on is 637"),
    ],
)
def test_what_cannot_be_is_refused_at_its_line(written: str, told: str) -> None:
    found = refusal(written)

    assert found.startswith("rig.yaml:8: ")
    assert told in found


@pytest.mark.parametrize("written", ["answers-on: 5432", "readiness: {tcp: 5432}"])
def test_vm_without_an_address_cannot_be_asked_over_the_network(written: str) -> None:
    assert "has no address" in refusal(written, depends="[]")


def test_vm_without_an_address_can_be_asked_by_a_command() -> None:
    assert "readiness" in read("readiness: {command: ready}", depends="[]").resource("vm").properties


def test_written_users_are_kept_and_the_others_go_round_them() -> None:
    vms = "".join(
        f"      - {{name: {name}, type: virtual-machine{user}}}\n"
        for name, user in (("a", ""), ("b", ", user: 10001"), ("c", ""))
    )
    group = read_topology(load(f"groups:\n  - name: g\n    resources:\n{vms}", name="rig.yaml")).groups[0]

    assert [resource.properties["user"] for resource in group.resources] == ["10002", "10001", "10003"]


def test_two_vms_never_share_a_user() -> None:
    text = (
        "groups:\n  - name: g\n    resources:\n"
        "      - {name: a, type: virtual-machine, user: 10005}\n"
        "      - {name: b, type: virtual-machine, user: 10005}\n"
    )
    with pytest.raises(UsageError, match=r"rig.yaml:5: the user 10005 is another VM's"):
        read_topology(load(text, name="rig.yaml"))
