"""What nodes and VMs write: `logs` of one of them, `events` of the whole cluster.

Through the engine, so that it is there also when no node answers.
"""

import contextlib
import queue
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from chaos.cli.rig_commands import rig_name
from chaos.output.printing import echo, echo_json, reader_gone

if TYPE_CHECKING:
    from harness.rig.lifecycle.rig import Rig

__all__ = ["events", "follow", "logs", "print_log", "since", "tail"]

LOOK_INTERVAL_S = 1.0
"""How often to look for a VM that has come up elsewhere, and whether the rig still stands."""


class _Moment(click.ParamType[int]):
    """A duration before now, or a time: Unix nanoseconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        from harness.document.duration import parse_duration_us

        try:
            return time.time_ns() - parse_duration_us(value) * 1000
        except ValueError:
            pass
        try:
            return int(datetime.fromisoformat(value).timestamp() * 1e9)
        except ValueError:
            self.fail(f"{value!r} is no moment, expected how long ago (30s, 5m, 1h) or 2026-11-22T20:15:00", param, ctx)


follow = click.option("--follow", "-f", "follow_wanted", is_flag=True, help="Go on with what comes; end with Ctrl-C.")
since = click.option(
    "--since", "since_ns", type=_Moment(), default=0, help="Only what came later: 30s, 5m, or 2026-11-22T20:15:00."
)
tail = click.option("--tail", "lines", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")


@click.command(
    epilog="\b\nExamples:\n  blackstart logs node1 --since 1m\n"
    "  blackstart logs web1-vm --follow         wherever it runs\n"
    "  blackstart logs node2/web1-vm --tail 5"
)
@click.argument("target", metavar="NODE|VM|NODE/VM")
@rig_name
@follow
@since
@tail
def logs(target: str, name: str, follow_wanted: bool, since_ns: int, lines: int | None) -> None:
    """What a node or a VM writes, as it writes it.

    Of a VM: of the container that runs, else of the one that ran last. With --follow also of those that come up
    later, here or on another node.
    """
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        print_log(rig, target, follow_wanted=follow_wanted, since_ns=since_ns, lines=lines)


@click.command(
    epilog="\b\nExamples:\n  blackstart events --since 5m\n  blackstart events --follow --node node2\n"
    "  blackstart events --json | jq 'select(.event == \"group-claimed\")'"
)
@rig_name
@follow
@since
@click.option("--node", "only", multiple=True, metavar="NODE", help="Only this node's; may be given several times.")
@click.option("--json", "json_wanted", is_flag=True, help="One JSON object a line.")
def events(name: str, follow_wanted: bool, since_ns: int, only: tuple[str, ...], json_wanted: bool) -> None:
    """The cluster log of all nodes, merged in the order of time.

    Without --since all that there is; with --follow then only what comes from now on.
    """
    from chaos.arena.docker.cluster_events import follow_events, read_events
    from harness.errors import UsageError
    from harness.model.object_names import node_container
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        nodes = [node.name for node in rig.topology.nodes]
        strange = [node for node in only if node not in nodes]
        if strange:
            raise UsageError(f"rig {name} has no node {strange[0]!r}, expected one of {', '.join(nodes)}")
        containers = {node: node_container(name, node) for node in only or nodes if node in _standing_nodes(rig)}
        if follow_wanted and not since_ns:
            since_ns = time.time_ns()
        past, last = read_events(rig.client, containers, since_ns=since_ns)
        for record in past:
            _print_event(record, json_wanted)
        if not follow_wanted:
            return
        look_at = time.monotonic() + LOOK_INTERVAL_S
        for come in follow_events(rig.client, containers, since_ns=last, clock=time.monotonic):
            if reader_gone():
                return
            if come is not None:
                _print_event(come, json_wanted)
            elif time.monotonic() > look_at:
                _check_stands(rig)
                look_at = time.monotonic() + LOOK_INTERVAL_S


def print_log(rig: "Rig", target: str, *, follow_wanted: bool, since_ns: int, lines: int | None) -> None:
    """Prints what the target's containers have written; with `follow_wanted` without end. Raises UsageError."""
    from chaos.arena.docker.log_stream import LogStream, read_lines

    heard: queue.Queue[str] = queue.Queue()
    streams: dict[str, LogStream] = {}
    try:
        for container in _containers_of(rig, target)[-1:]:
            past = read_lines(rig.client, container, since_ns=since_ns, tail=lines, stderr=True)
            for _, text in past:
                echo(text)
            if follow_wanted:
                last_ns = past[-1][0] if past else since_ns or time.time_ns()
                streams[container] = LogStream(
                    rig.client, container, sink=heard.put, since_ns=last_ns, stderr=True
                )
                streams[container].open()
        look_at = time.monotonic() + LOOK_INTERVAL_S
        while follow_wanted and not reader_gone():
            with contextlib.suppress(queue.Empty):
                echo(heard.get(timeout=LOOK_INTERVAL_S / 5))
            if time.monotonic() > look_at:
                _check_stands(rig)
                for container in _running_of(rig, target):
                    if container not in streams:
                        streams[container] = LogStream(rig.client, container, sink=heard.put, stderr=True)
                        streams[container].open()
                look_at = time.monotonic() + LOOK_INTERVAL_S
    finally:
        for stream in streams.values():
            stream.close()


def _containers_of(rig: "Rig", target: str) -> list[str]:
    """A node's, or a VM's that has run, the one that runs or ran last at the end."""
    from harness.errors import UsageError
    from harness.model.object_names import node_container
    from harness.rig.lifecycle.vm_switch import find_vm, vms_named

    nodes = [node.name for node in rig.topology.nodes]
    if target in nodes:
        return [node_container(rig.name, target)]
    if "/" in target:
        return [find_vm(rig, target).container]
    try:
        found = vms_named(rig, target)
    except UsageError as error:
        raise UsageError(f"{error}, or one of the nodes {', '.join(nodes)}") from error
    running = [vm.container for vm in found if vm.state in ("running", "paused")]
    ended = [vm.container for vm in found if vm.state not in ("running", "paused", "created")]
    return running or sorted(ended, key=lambda container: _started(rig, container))


def _started(rig: "Rig", container: str) -> str:
    from harness.rig.engine.connection import engine_call

    with engine_call(f"inspect {container[:12]}"):
        return str(rig.client.api.inspect_container(container)["State"]["StartedAt"])


def _running_of(rig: "Rig", target: str) -> list[str]:
    if target in [node.name for node in rig.topology.nodes] or "/" in target:
        return []
    return [found.container for found in rig.vms() if found.name == target and found.state == "running"]


def _standing_nodes(rig: "Rig") -> list[str]:
    """Those whose container exists, running or not."""
    from harness.rig.cluster.status import Power

    return [name for name, power in rig.powers().items() if power is not Power.MISSING]


def _check_stands(rig: "Rig") -> None:
    """Raises ConditionUnmet when the rig has been taken away: nothing will ever come again."""
    from harness.errors import ConditionUnmet

    if not _standing_nodes(rig):
        raise ConditionUnmet(f"rig {rig.name} is gone: there is nothing to follow any more")


def _print_event(record: Mapping[str, Any], json_wanted: bool) -> None:
    if json_wanted:
        echo_json(record)
        return
    at = datetime.fromtimestamp(float(record["time"])).strftime("%H:%M:%S.%f")[:-3]
    number = f"[{record['id']}] " if record.get("id") else ""
    line = f"{at}  {record['node']:<8} {record['component']:<24} {number}{record['event']}: {record['message']}"
    echo(line.replace("\n", f"\n{' ' * len(at)}  "))
