"""The firewall of a node: rules in its own network namespace for packets that guests send.

Guests share that namespace, so rules match their user. A guest cannot change a rule, because it has no
capability. Rules end with each life of the node; PID 1 sets them before it reads the first pet, and so before any
guest is permitted to run.

    voter-port, api-port   a guest opens no connection to a voter or a node's API
    guest-network          a guest opens connections inside the rig's network only, not to the engine's host
    guest-flows            each guest has a bounded share of the connection tables, its node's and its host's
"""

import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from node_log import Log

__all__ = ["API_PORT", "ROUTES", "VOTER_PORT", "Part", "close_to_guests", "gateway_of", "parts_of"]

VOTER_PORT = 637
API_PORT = 7637
VOTER_CLIENTS = "900-901"
GUESTS = "10000-4294967294"
FLOWS_CHAIN = "GUEST-FLOWS"
NETWORK_CHAIN = "GUEST-NETWORK"
MAX_FLOWS = 500
"""Flows that are no TCP connection, of one guest at a time. A flow without an answer is forgotten after 30 s."""
MAX_CONNECTIONS_PER_S = 50
CONNECTIONS_BURST = 500
"""TCP connections that one guest opens. A closed one is kept for 120 s: at most 6,500 of one guest in any table."""
RESOLVER = "127.0.0.11"
"""The engine's, which passes questions on to the resolvers of its VM."""
ROUTES = "/proc/net/route"
LOCK = "/run/blackstart/xtables.lock"
"""The usual lock file belongs to root."""
LIMIT_S = 2.0
TOOLS = ("iptables-nft", "iptables-legacy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rules with one purpose, for iptables-restore. `closed` and `left_open` are the log's words for either outcome."""

    event: str
    rules: tuple[str, ...]
    closed: str
    left_open: str


def parts_of(environment: Mapping[str, str], *, gateway: str | None) -> list[Part]:
    """The rules of a node with this environment. `gateway` is the engine's host in the rig's network."""
    parts = [_closed_port("voter-port", VOTER_PORT), _closed_port("api-port", API_PORT)]
    subnet = environment.get("BLACKSTART_GUEST_SUBNET", "")
    if subnet:
        parts.append(_inside_network(subnet, gateway))
    users = [user for user in environment.get("BLACKSTART_GUEST_USERS", "").split(",") if user]
    if users:
        parts.append(_bounded_flows(users))
    return parts


def close_to_guests(environment: Mapping[str, str], parts: Sequence[Part]) -> list[Log]:
    """Set all rules at once; where the kernel refuses that, part by part. Returns what to log of each part."""
    together = _set([rule for part in parts for rule in part.rules], environment)
    outcomes = [(part, together if together[0] else _set(part.rules, environment)) for part in parts]
    logs = []
    for part, (tool, refusals) in outcomes:
        if tool:
            logs.append(Log(event=f"{part.event}-closed", message=part.closed, fields={"tool": tool}))
        else:
            message = f"{part.left_open}: no firewall rule could be set"
            logs.append(Log(event=f"{part.event}-open", message=message, fields={"refusals": refusals}))
    return logs


def gateway_of(routes: str) -> str | None:
    """The gateway of the default route in the text of /proc/net/route; None when there is no such route."""
    for line in routes.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 2 and fields[1] == "00000000" and fields[2] != "00000000":
            return socket.inet_ntoa(struct.pack("=L", int(fields[2], 16)))
    return None


def _closed_port(event: str, port: int) -> Part:
    """New connections to this port of any node are the service's and the voter's own.

    A guest knows neither password nor token, but thousands of its connections would use up the voter's. Only first
    packets are matched: the last packets of a connection that its process has closed have no owner any more.
    """
    rule = f"-A OUTPUT -p tcp --syn --dport {port} -m owner ! --uid-owner {VOTER_CLIENTS}"
    return Part(
        event=event,
        rules=(f"{rule} -j REJECT --reject-with tcp-reset",),
        closed=f"guests cannot connect to port {port}",
        left_open=f"guests can connect to port {port}",
    )


def _inside_network(subnet: str, gateway: str | None) -> Part:
    """Only the first packet of a flow is matched: a guest may answer a client on the engine's host."""
    host = (f"-A {NETWORK_CHAIN} -d {gateway} -j REJECT",) if gateway else ()
    return Part(
        event="guest-network",
        rules=(
            f":{NETWORK_CHAIN} - [0:0]",
            f"-A OUTPUT -m owner --uid-owner {GUESTS} -m conntrack --ctstate NEW -j {NETWORK_CHAIN}",
            f"-A {NETWORK_CHAIN} -d {RESOLVER} -j REJECT",
            f"-A {NETWORK_CHAIN} -o lo -j RETURN",
            *host,
            f"-A {NETWORK_CHAIN} -d {subnet} -j RETURN",
            f"-A {NETWORK_CHAIN} -j REJECT",
        ),
        closed=f"guests open connections inside {subnet} only",
        left_open="guests can open connections to the engine's host and further",
    )


def _bounded_flows(users: Sequence[str]) -> Part:
    """One bucket and one count for each guest, so that none uses up another's."""
    rules = [
        f":{FLOWS_CHAIN} - [0:0]",
        f"-A OUTPUT -m owner --uid-owner {GUESTS} -m conntrack --ctstate NEW -j {FLOWS_CHAIN}",
    ]
    for user in users:
        owner = f"-A {FLOWS_CHAIN} -m owner --uid-owner {user}"
        rate = f"--hashlimit-above {MAX_CONNECTIONS_PER_S}/second --hashlimit-burst {CONNECTIONS_BURST}"
        rules += [
            f"{owner} -p tcp -m hashlimit {rate} --hashlimit-name guest-{user} -j DROP",
            f"{owner} ! -p tcp -m connlimit --connlimit-above {MAX_FLOWS} --connlimit-mask 0 -j DROP",
        ]
    return Part(
        event="guest-flows",
        rules=tuple(rules),
        closed="each guest has a bounded share of the connection tables",
        left_open="a guest can fill the connection tables",
    )


def _set(rules: Sequence[str], environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """The tool that has set the rules, all or none of them; empty, and each tool's refusal, when none could."""
    chains = [rule for rule in rules if rule.startswith(":")]
    others = [rule for rule in rules if not rule.startswith(":")]
    text = "\n".join(["*filter", *chains, *others, "COMMIT", ""])
    refusals = []
    for tool in TOOLS:
        try:
            done = subprocess.run(
                (f"{tool}-restore", "-w", "1", "--noflush"),
                env={**environment, "XTABLES_LOCKFILE": LOCK},
                input=text,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            refusals.append(str(error))
            continue
        if done.returncode == 0:
            return tool, []
        refusals.append(f"{tool}: {done.stderr.strip()}")
    return "", refusals
