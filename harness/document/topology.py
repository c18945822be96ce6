"""The `rig:` mapping of an experiment, or a topology file, as a `Topology`.

Everything that a person can get wrong is refused here, with file, line and the expected form, all errors of a file at
once; behind this module a topology is sound. It does not look at any engine.

    nodes: 3                      # 1 to 64, or a list of names; more than 9 in the simulator only
    voters: 3                     # odd, counted from the top; by default as many as possible up to five
    witness: false                # one more vote, in a container that runs nothing else: then `voters` is even
    subnet: 10.87.0.0/24          # a wish: inside of 10.87.0.0/16 a rig takes the next free one
    settings: {beat: 500ms, lease: 2s, grace: 1s, fencing: power, engine-proxy: false,
               dynamic-quorum: true, program-ask: 1s, program-silence: 5s,
               everyone-watches-up-to: 9,  # in rigs of more nodes, a few watch each group
               appendfsync: always,  # everysec loses acknowledged changes: a negative control
               voter-disk: 64MiB,    # by default none of its own
               network: internal}    # open: guests also reach the engine's host, and further
    groups:                       # or a number of like groups; by default six
      - name: web
        preferred-owners: [node2]
        resources:
          - {name: web-ip, type: ip-address}
          - {name: web-vm, type: virtual-machine, depends-on: "[web-ip]", is-alive-interval: 1s}
"""

from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from typing import Any

from harness.document.address_plan import DEFAULT_SUBNET, MAX_CONTAINER_NODES, MAX_NODES, node_address, witness_address
from harness.document.duration import format_duration
from harness.document.group import DEFAULT_GROUPS, default_groups, read_groups
from harness.document.mapping_reader import NAME_FORM, MappingReader, is_name
from harness.document.refusals import Refusals, shown
from harness.document.yaml_source import Path, Source
from harness.errors import UsageError
from harness.model.name import check_rig_name
from harness.model.object_names import PROXY_SUFFIX
from harness.model.topology import SECOND_US, NodeSpec, Settings, Topology

__all__ = ["DEFAULT_RIG", "collect_topology", "default_topology", "read_topology", "too_many_for_containers"]

DEFAULT_RIG = "blackstart"
_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
"""RFC 1918. Python calls loopback and link-local networks private too, and no engine makes a network of those."""

DEFAULT_NODES = 3
WITNESS = "witness"
RESERVED_NODE_NAMES = {
    "client": "client outside",
    "lock": "lock",
    "reaper": "reaper",
}
"""Names of a rig's containers that a node's container would have as well, with the containers' parts."""
MAX_VOTERS = 5
"""More voters than five make every change slower and survive nothing that happens."""

_MIN_VOTER_DISK, _MAX_VOTER_DISK = 8 << 20, 1 << 30
"""Its file is rewritten from one mebibyte on, and both exist meanwhile; what it takes is memory."""

_MILLISECOND_US = 1_000
_UNREAD: Any = object()


def default_topology(*, rig: str = DEFAULT_RIG, nodes: int = DEFAULT_NODES, witness: bool = False) -> Topology:
    """A rig on containers of `nodes` nodes with six VMs, with a witness or without. Raises UsageError for a count
    or a name that no such rig can have.
    """
    if not 1 <= nodes <= MAX_CONTAINER_NODES:
        raise UsageError(f"--nodes is {nodes}, expected a whole number from 1 to {MAX_CONTAINER_NODES}")
    check_rig_name(rig)
    names = _node_names(nodes)
    return Topology(
        rig=rig,
        subnet=DEFAULT_SUBNET,
        nodes=_nodes(names, voters=_default_voters(nodes, witness=witness), subnet=DEFAULT_SUBNET),
        groups=default_groups(DEFAULT_GROUPS, DEFAULT_SUBNET),
        witness=_witness(DEFAULT_SUBNET) if witness else None,
    )


def read_topology(source: Source, *, path: Path = (), data: Any = _UNREAD, rig: str | None = None) -> Topology:
    """The topology at `path` of `source`; at the top of a file it may stand under the key `rig`.

    `data` replaces what the source has there (values with their variables put in); `rig` is the rig's name, which
    wins over the document's own. Raises one UsageError with every refusal.
    """
    if data is _UNREAD:
        data = source.data
        for step in path:
            data = data[step]
        if not path and isinstance(data, dict) and isinstance(data.get("rig"), dict):
            path, data = ("rig",), data["rig"]
    refusals = Refusals(source.name)
    topology = collect_topology(source, path=path, data=data, rig=rig, refusals=refusals)
    refusals.raise_any()
    return topology


def collect_topology(source: Source, *, path: Path, data: Any, rig: str | None, refusals: Refusals) -> Topology:
    """The topology that `data`, at `path` of `source`, describes; sound only if nothing was added to `refusals`.

    Raises UsageError for a `rig` that no rig can be called.
    """
    section = MappingReader(data, source=source, path=path, refusals=refusals, what="a rig")
    name = section.name("name") if "name" in section else DEFAULT_RIG
    section.known("name")
    if rig is not None:
        check_rig_name(rig)
        name = rig
    subnet = _read_subnet(section)
    names = _read_node_names(section)
    witness = _read_witness(section, names)
    topology = Topology(
        rig=name,
        subnet=subnet,
        nodes=_nodes(names, voters=_read_voters(section, len(names), witness=witness), subnet=subnet),
        groups=read_groups(section, nodes=names, subnet=subnet),
        settings=_read_settings(section.section("settings", what="settings")),
        witness=_witness(subnet) if witness else None,
    )
    section.finish()
    return topology


def too_many_for_containers(topology: Topology) -> str:
    """Why a rig is too large for containers, as a sentence; empty when it is not."""
    count = len(topology.nodes)
    if count <= MAX_CONTAINER_NODES:
        return ""
    return f"{count} nodes, expected at most {MAX_CONTAINER_NODES} on containers; the simulator takes up to {MAX_NODES}"




def _read_subnet(section: MappingReader) -> str:
    value = section.raw("subnet", DEFAULT_SUBNET)
    try:
        network = IPv4Network(value)
        if network.prefixlen == 24 and any(network.subnet_of(private) for private in _PRIVATE):
            return str(network)
    except (AddressValueError, NetmaskValueError, ValueError, TypeError):
        pass
    section.refuse("subnet", f"subnet is {shown(value)}", f"a private network with 24 bits, such as {DEFAULT_SUBNET}")
    return DEFAULT_SUBNET


def _node_names(count: int) -> tuple[str, ...]:
    return tuple(f"node{number}" for number in range(1, count + 1))


def _read_node_names(section: MappingReader) -> tuple[str, ...]:
    value = section.raw("nodes", DEFAULT_NODES)
    if not isinstance(value, list):
        return _node_names(section.integer("nodes", DEFAULT_NODES, low=1, high=MAX_NODES))
    names: list[str] = []
    for index, name in enumerate(value[:MAX_NODES]):
        if not is_name(name):
            section.refuse_item("nodes", index, f"a node's name is {shown(name)}", NAME_FORM)
        elif name in names:
            section.refuse_item("nodes", index, f"there is another node {name!r}", "names that differ")
        elif name in RESERVED_NODE_NAMES:
            what = f"a node is called {name!r}, and the rig's {RESERVED_NODE_NAMES[name]} has that name"
            section.refuse_item("nodes", index, what, "another name for the node")
        else:
            names.append(name)
    for index, name in enumerate(value[:MAX_NODES]):
        # Also without proxies: a method that stalls an engine adds them.
        if name in names and (served := str(name).removesuffix(PROXY_SUFFIX)) != name and served in names:
            what = f"a node is called {name!r}, and the proxy between node {served!r} and the engine has that name"
            section.refuse_item("nodes", index, what, "another name for the node")
    if not 1 <= len(value) <= MAX_NODES:
        section.refuse("nodes", f"{len(value)} nodes", f"1 to {MAX_NODES} nodes")
    return tuple(names) or _node_names(DEFAULT_NODES)


def _read_witness(section: MappingReader, names: tuple[str, ...]) -> bool:
    wanted = section.boolean("witness", False)
    if wanted and len(names) < 2:
        section.refuse("witness", f"a witness for {len(names)} node", "at least two nodes")
    elif wanted and WITNESS in names:
        section.refuse("witness", f"a node is called {WITNESS!r} as well", "another name for the node")
    return wanted and len(names) >= 2


def _witness(subnet: str) -> NodeSpec:
    return NodeSpec(name=WITNESS, address=witness_address(subnet), voter=True)


def _default_voters(nodes: int, *, witness: bool) -> int:
    """As many nodes with a vote as there may be, so that all votes together are odd: an even number survives no more
    failures than the odd one below it.
    """
    votes = min(MAX_VOTERS, nodes + witness)
    return (votes if votes % 2 else votes - 1) - witness


def _read_voters(section: MappingReader, nodes: int, *, witness: bool) -> int:
    default = _default_voters(nodes, witness=witness)
    voters = section.integer("voters", default, low=1, high=min(nodes, MAX_NODES))
    if (voters + witness) % 2 == 0:
        wanted = "an even number beside the witness" if witness else "an odd number"
        section.refuse("voters", f"{voters} voters", f"{wanted}, such as {default if witness else voters - 1}")
        return default
    return voters


def _nodes(names: tuple[str, ...], *, voters: int, subnet: str) -> tuple[NodeSpec, ...]:
    return tuple(
        NodeSpec(name=name, address=node_address(subnet, index), voter=index < voters)
        for index, name in enumerate(names)
    )


def _read_settings(section: MappingReader) -> Settings:
    default = Settings()

    def milliseconds_us(key: str, default_us: int, low: int, high: int) -> int:
        duration_us = section.duration_us(key, default_us, low=low, high=high)
        if duration_us % _MILLISECOND_US:
            section.refuse(key, f"{key} is {format_duration(duration_us)}", "whole milliseconds")
        return duration_us

    settings = Settings(
        beat_us=milliseconds_us("beat", default.beat_us, 10 * _MILLISECOND_US, 10 * SECOND_US),
        lease_us=milliseconds_us("lease", default.lease_us, 20 * _MILLISECOND_US, 300 * SECOND_US),
        grace_us=milliseconds_us("grace", default.grace_us, 0, 60 * SECOND_US),
        fencing=section.choice("fencing", default.fencing),
        dynamic_quorum=section.boolean("dynamic-quorum", default.dynamic_quorum),
        appendfsync=section.choice("appendfsync", default.appendfsync),
        engine_proxy=section.boolean("engine-proxy", default.engine_proxy),
        program_ask_us=milliseconds_us("program-ask", default.program_ask_us, 100 * _MILLISECOND_US, 60 * SECOND_US),
        program_silence_us=milliseconds_us(
            "program-silence", default.program_silence_us, 500 * _MILLISECOND_US, 600 * SECOND_US
        ),
        voter_disk_bytes=section.size_bytes("voter-disk", 0, low=_MIN_VOTER_DISK, high=_MAX_VOTER_DISK),
        network=section.choice("network", default.network),
        everyone_watches_up_to=section.integer(
            "everyone-watches-up-to", default.everyone_watches_up_to, low=1, high=MAX_NODES
        ),
    )
    section.finish()
    if settings.program_silence_us < 3 * settings.program_ask_us:
        ask, silence = format_duration(settings.program_ask_us), format_duration(settings.program_silence_us)
        section.refuse(
            "program-silence" if "program-silence" in section else "program-ask",
            f"a program-silence of {silence} leaves no three questions of {ask} unanswered",
            f"a program-silence of at least {format_duration(3 * settings.program_ask_us)}",
        )
    if settings.lease_us < 2 * settings.beat_us:
        beat, lease = format_duration(settings.beat_us), format_duration(settings.lease_us)
        section.refuse(
            "lease" if "lease" in section else "beat",
            f"the lease of {lease} is under twice the beat of {beat}: one lost beat would end it",
            f"a lease of at least {format_duration(2 * settings.beat_us)}",
        )
    return settings
