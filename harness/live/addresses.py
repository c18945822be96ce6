"""The `Addresses` port on this node's network interface: `ip` for the addresses, a raw socket for the announcement.

The interface is found by the address, because it is called eth0 only until the node's network was cut and connected
again. Needs NET_ADMIN and NET_RAW. Every failure is an OSError that says what was tried.
"""

import asyncio
import contextlib
import ipaddress
import json
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Interface

__all__ = ["LinuxAddresses", "gratuitous_arp"]

COMMAND_LIMIT_S = 2.0
ARP = 0x0806
BROADCAST = b"\xff" * 6
REQUEST, REPLY = 1, 2
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interface:
    name: str
    addresses: frozenset[IPv4Interface]

    def is_home_of(self, address: IPv4Interface) -> bool:
        """Whether it is in the network to which the address belongs; its single addresses do not say anything about
        that.
        """
        return any(own.network.prefixlen < 32 and address.ip in own.network for own in self.addresses)


class LinuxAddresses:
    """The interfaces of the network namespace that this process is in, but the loopback."""

    async def add(self, address: str) -> None:
        """Put an address in CIDR notation on the interface of its network; harmless when it is there."""
        wanted = IPv4Interface(address)
        interfaces = await _interfaces()
        home = next((found for found in interfaces if found.is_home_of(wanted)), None)
        if home is None:
            told = ", ".join(f"{found.name} {sorted(map(str, found.addresses))}" for found in interfaces) or "none"
            raise OSError(f"no interface for {address}: no network of this node contains it; interfaces: {told}")
        if wanted not in home.addresses:
            await _ip("addr", "replace", str(wanted), "dev", home.name)

    async def remove(self, address: str) -> None:
        """Take it away, wherever it is; harmless when it is not there."""
        wanted = IPv4Interface(address)
        for found in await _interfaces():
            if wanted not in found.addresses:
                continue
            try:
                await _ip("addr", "del", str(wanted), "dev", found.name)
            except OSError:
                if address in await self.present():
                    raise

    async def present(self) -> frozenset[str]:
        """All addresses of all interfaces but the loopback, in CIDR notation."""
        return frozenset(str(address) for found in await _interfaces() for address in found.addresses)

    async def announce(self, address: str) -> None:
        """Two gratuitous ARP packets, a request and a reply, because not every neighbour heeds both."""
        wanted = IPv4Interface(address)
        home = next((found for found in await _interfaces() if wanted in found.addresses), None)
        if home is None:
            raise OSError(f"{address} cannot be announced: it is on no interface of this node")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:  # protocol 0: it receives nothing
            link.setblocking(False)
            link.bind((home.name, ARP))
            hardware = link.getsockname()[4]
            for operation in (REQUEST, REPLY):
                link.send(gratuitous_arp(wanted.ip.packed, hardware, operation=operation))


def gratuitous_arp(address: bytes, hardware: bytes, *, operation: int) -> bytes:
    """An Ethernet frame that tells everybody that `address` (4 bytes) is at `hardware` (6 bytes), as a request (1) or
    a reply (2).
    """
    target = BROADCAST if operation == REPLY else bytes(6)
    packet = _ARP.pack(1, 0x0800, 6, 4, operation, hardware, address, target, address)
    return _ETHERNET.pack(BROADCAST, hardware, ARP) + packet


async def _interfaces() -> list[_Interface]:
    links = json.loads(await _ip("-json", "-4", "addr", "show") or "[]")
    return [
        _Interface(
            name=link["ifname"],
            addresses=frozenset(
                ipaddress.IPv4Interface(f"{entry['local']}/{entry['prefixlen']}")
                for entry in link.get("addr_info", [])
                if "local" in entry
            ),
        )
        for link in links
        if link and "LOOPBACK" not in link.get("flags", [])
    ]


async def _ip(*arguments: str) -> str:
    what = " ".join(("ip", *arguments))
    process = await asyncio.create_subprocess_exec(
        "ip",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(COMMAND_LIMIT_S):
            output, complaint = await process.communicate()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            process.kill()
        if isinstance(error, TimeoutError):
            raise OSError(f"`{what}` did not end within {COMMAND_LIMIT_S:g} s") from error
        raise
    if process.returncode != 0:
        raise OSError(f"`{what}` ended with {process.returncode}: {complaint.decode(errors='replace').strip()}")
    return output.decode()
