"""An address on a node's real interface, and the announcement that spares its clients their stale neighbour entry."""

import ipaddress
import json
import time
from collections.abc import Iterator

import docker
import pytest
from docker.models.containers import Container
from small_rig import SmallRig

from harness.rig.images.build import ensure_images, find_project_root

pytestmark = pytest.mark.containers

LIMIT_S = 5.0

CALL = """
import asyncio, json, sys
from harness.live.addresses import LinuxAddresses
async def calls():
    addresses = LinuxAddresses()
    for call in sys.argv[2:]:
        await getattr(addresses, call)(sys.argv[1])
    print(json.dumps(sorted(await addresses.present())))
asyncio.run(calls())
"""
SEND = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'?', (sys.argv[1], 9))"


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Container]]:
    client = docker.from_env()
    ensure_images(client, project_root=find_project_root(), say=lambda _text: None)
    client.close()
    rig = SmallRig()
    try:
        for node in ("node1", "node2", "client"):
            rig.start_node(node, cap_add=["NET_ADMIN"])
        for box in rig.nodes.values():
            box.reload()
        yield list(rig.nodes.values())
    finally:
        rig.close()


@pytest.fixture(scope="module")
def address(nodes: list[Container]) -> str:
    """The last but one of the bridge's subnet, as a single host."""
    settings = nodes[0].attrs["NetworkSettings"]
    subnet = ipaddress.IPv4Interface(f"{settings['IPAddress']}/{settings['IPPrefixLen']}").network
    return f"{subnet[-3]}/32"


def run(box: Container, script: str, *arguments: str) -> str:
    code, output = box.exec_run(["python3", "-I", "-c", script, *arguments], user="0")
    text = output.decode().strip()
    assert code == 0, text
    return str(text)


def present(box: Container, address: str, *calls: str) -> bool:
    """Whether the node has the address after these calls."""
    return address in json.loads(run(box, CALL, address, *calls))


def neighbour(client: Container, address: str) -> str:
    """The hardware address at which the client thinks that `address` is."""
    _, output = client.exec_run(["ip", "-json", "neigh", "show", address.partition("/")[0]])
    entries = json.loads(output or b"[]")
    return str(entries[0].get("lladdr", "")) if entries else ""


def wait_neighbour(client: Container, address: str, hardware: str) -> str:
    """What the client thinks, once it thinks so, or at the limit."""
    end = time.monotonic() + LIMIT_S
    while neighbour(client, address) != hardware and time.monotonic() < end:
        time.sleep(0.05)
    return neighbour(client, address)


def hardware_address(box: Container) -> str:
    return str(box.attrs["NetworkSettings"]["MacAddress"])


def test_adding_and_removing_twice_is_harmless(nodes: list[Container], address: str) -> None:
    assert present(nodes[0], address, "add")
    assert present(nodes[0], address, "add")
    assert not present(nodes[0], address, "remove")
    assert not present(nodes[0], address, "remove")


def test_address_of_another_network_is_refused_with_what_there_is(nodes: list[Container]) -> None:
    code, output = nodes[0].exec_run(["python3", "-I", "-c", CALL, "203.0.113.7/32", "add"], user="0")

    assert code == 1
    assert "no interface for 203.0.113.7/32" in output.decode()
    assert "eth0" in output.decode()


def test_announced_address_is_found_at_its_new_node_at_once(nodes: list[Container], address: str) -> None:
    first, second, client = nodes
    present(first, address, "add", "announce")
    run(client, SEND, address.partition("/")[0])
    assert wait_neighbour(client, address, hardware_address(first)) == hardware_address(first)

    present(first, address, "remove")
    present(second, address, "add")
    stale = neighbour(client, address)
    present(second, address, "announce")

    assert stale == hardware_address(first)
    assert wait_neighbour(client, address, hardware_address(second)) == hardware_address(second)
