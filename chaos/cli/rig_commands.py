"""The commands about a rig and this host: doctor, up, status, down, images, compose."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from chaos.cli.signals import ProtectedSection, Signalled, held
from chaos.output.printing import echo, echo_verbatim

if TYPE_CHECKING:
    from collections.abc import Callable

    import docker

    from harness.model.topology import Topology

__all__ = ["as_json", "compose", "doctor", "down", "images", "rig_name", "status", "up", "valid_rig"]

Say: TypeAlias = "Callable[[str], None]"

DEFAULT_RIG = "blackstart"



def valid_rig(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """The callback of every option that names a rig. Raises click.BadParameter for a name that no rig can have."""
    from harness.model.name import NAME_FORM, is_name

    if value is not None and not is_name(value):
        raise click.BadParameter(f"{value!r} is no rig's name, expected {NAME_FORM}")
    return value


rig_name = click.option(
    "--name", "name", callback=valid_rig, default=DEFAULT_RIG, show_default=True, help="The rig's name."
)
as_json = click.option("--json", "json_wanted", is_flag=True, help="Print JSON for scripts.")
_nodes = click.option("--nodes", type=int, help="This many nodes, with six VMs.  [default: 3]")
_witness = click.option("--witness", is_flag=True, help="A witness as well: one more vote, without a node.")
_topology = click.option(
    "--topology",
    "topology_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The rig that this file describes; an experiment's `rig:` will do.",
)


@click.command(epilog="\b\nExamples:\n  blackstart doctor\n  blackstart doctor --json | jq '.faults'")
@as_json
def doctor(json_wanted: bool) -> int:
    """What this host can and cannot do, per fault, and why.

    Ends with 4 when something that every rig needs is missing.
    """
    from chaos.cli.output import coloured, print_json, print_table
    from chaos.compatibility.fault_support import fault_abilities
    from chaos.faults.schedule_only import only_in_schedules
    from harness.rig.lifecycle.doctor import Health, examine

    report = examine()
    faults = fault_abilities(report.checks)
    code = 4 if report.health is Health.FAIL else 0
    if json_wanted:
        print_json(
            {
                "health": report.health,
                "checks": report.checks,
                "faults": faults,
                "only_in_schedules": only_in_schedules(),
            }
        )
        return code
    print_table(
        ("check", "", "seen", "what to do"),
        [(check.name, coloured(check.health), _escaped(check.saw), _escaped(check.advice)) for check in report.checks],
        empty="",
    )
    echo()
    print_table(
        ("fault", "", "arenas", "what it does", "why not"),
        [
            (
                ability.fault,
                coloured("available" if ability.available else "not available"),
                f"{ability.only_in} only" if ability.only_in else "docker, sim",
                _escaped(ability.effect),
                _escaped(ability.why_not),
            )
            for ability in faults
        ],
        empty="",
    )
    echo()
    print_table(
        ("arenas", "other faults"),
        [("sim, schedules of `search` only", _escaped(", ".join(only_in_schedules())))],
        empty="",
    )
    return code


@click.command(
    epilog="\b\nExamples:\n  blackstart up\n  blackstart up --nodes 5 --name big\n"
    "  blackstart up --nodes 2 --witness\n"
    "  blackstart up --topology chaos/experiments/node-power-cut.yaml"
)
@_nodes
@_witness
@_topology
@click.option("--name", "name", callback=valid_rig, help=f"The rig's name.  [default: the file's, else {DEFAULT_RIG}]")
@click.option("--timeout", "limit_s", type=click.FloatRange(min=1), default=120.0, show_default=True, help="Seconds.")
def up(nodes: int | None, witness: bool, topology_file: Path | None, name: str | None, limit_s: float) -> None:
    """Make a rig and wait until every node is Up and every group Online.

    A rig that stands already and is the same is completed; one that differs is refused. If it does not get Online in
    time, what was made stays for a look.
    """
    from chaos.cli.output import Progress
    from harness.errors import BlackstartError, UsageError
    from harness.rig.engine.connection import connect
    from harness.rig.images.build import ensure_images, find_project_root
    from harness.rig.lifecycle.rig import Rig
    from harness.rig.lifecycle.rig_lock import Holder, claimed_rig
    from harness.rig.lifecycle.teardown import rig_names

    topology = _read_topology(nodes, witness, topology_file, name)
    say = Progress()
    with contextlib.closing(connect()) as client:
        # Outside the section: it takes minutes the first time, and nothing of a rig is there yet.
        images = ensure_images(client, project_root=find_project_root(), say=say)
        announcement = f"rig {topology.rig} is given up as soon as the step under way has ended"
        holder = Holder.here("blackstart up")
        lock = claimed_rig(client, topology.rig, holder=holder, image=images.hypervisor.tag)
        # Locked until an interrupted rig is removed: another `up` may be making one of that name.
        with held(announcement) as section, lock:
            stood = topology.rig in rig_names(client)
            try:
                rig = Rig.up(
                    topology,
                    say=_asking(say, section),
                    limit_s=limit_s,
                    client=client,
                    say_each_look=True,
                    locked=True,
                    images=images,
                )
                section.check()
            except Signalled:
                _give_up(client, topology.rig, stood=stood, say=say)
                raise
            except UsageError:
                raise
            except BlackstartError:
                say(f"what was made of rig {topology.rig} stays for a look; `blackstart down --name {topology.rig}` "
                    "removes it")
                raise
            section.complete()
            running = sum(vm.state == "running" for vm in rig.vms())
    say(f"rig {rig.name} is up; nodes: {len(topology.nodes)}, groups: {len(topology.groups)}, vms: {running}")


def _asking(say: Say, section: ProtectedSection) -> Say:
    """`say` for what is asked at every look: it raises Signalled once a signal has come, and says nothing twice."""
    said = ""

    def asking(text: str) -> None:
        nonlocal said
        section.check()
        if text != said:
            said = text
            say(text)

    return asking


def _give_up(client: "docker.DockerClient", rig: str, *, stood: bool, say: Say) -> None:
    """Remove what an interrupted `up` has made. Raises CleanupError, naming the rig, when something may be left."""
    from harness.errors import CleanupError, EngineError
    from harness.rig.lifecycle.teardown import remove_rig

    if stood:
        say(f"rig {rig} stood before and stays as it is: `blackstart status --name {rig}` shows it")
        return
    say(f"removing what was made of rig {rig}")
    try:
        remove_rig(client, rig, say=say, spare_lock=True)
    except EngineError as error:
        raise CleanupError(_may_be_left(rig, error)) from error


def _may_be_left(rig: str, error: Exception) -> str:
    return f"cannot remove rig {rig} to the end: {error}; `blackstart down --name {rig}` tries again"


@click.command(epilog="\b\nExamples:\n  blackstart status\n  blackstart status --json | jq '.groups[].owner'")
@rig_name
@as_json
def status(name: str, json_wanted: bool) -> None:
    """How a rig stands: nodes, groups and their resources."""
    from chaos.cli.output import print_json, print_table
    from chaos.cli.status_tables import group_rows, node_rows, voter_rows
    from harness.rig.lifecycle.rig import Rig

    with contextlib.closing(Rig.find(name)) as rig:
        standing = rig.standing()
    if json_wanted:
        print_json(standing)
        return
    echo(f"rig {standing.rig}, {standing.subnet}\n")
    print_table(*node_rows(standing.nodes), empty="no nodes")
    echo()
    print_table(*voter_rows(standing.voters), empty="no voters")
    echo()
    print_table(*group_rows(standing.groups), empty="no groups")


@click.command(epilog="\b\nExamples:\n  blackstart down\n  blackstart down --name big\n  blackstart down --all")
@rig_name
@click.option("--all", "every", is_flag=True, help="Every rig on this engine.")
def down(name: str, every: bool) -> None:
    """Remove a rig: every object that belongs to it, and nothing else. Twice is harmless.

    An object belongs to a rig by its labels: the rig's name and a known role. What only looks so is named and left.
    """
    from chaos.cli.output import Progress
    from harness.errors import CleanupError, EngineError
    from harness.rig.engine.connection import connect
    from harness.rig.lifecycle.teardown import find_rigs, remove_rig

    say = Progress()
    left = []
    announcement = "the rig that is being removed is removed to its end, and no other is begun"
    with contextlib.closing(connect()) as client, held(announcement) as section:
        names: tuple[str, ...] = (name,)
        if every:
            found = find_rigs(client, with_locks=True)
            names = found.names
            for stranger in found.strangers:
                say(f"left alone: {stranger}")
        for rig in names:
            if section.number is not None:
                left.append(f"rig {rig} was not removed: `blackstart down --name {rig}` removes it")
                continue
            try:
                if not remove_rig(client, rig, say=say) and not every:
                    say(f"there is no rig {rig}: nothing to remove")
            except CleanupError as error:
                left.append(str(error))
            except EngineError as error:
                left.append(_may_be_left(rig, error))
        if left:
            raise CleanupError("\n".join(left))


@click.group()
def images() -> None:
    """The images of nodes and VMs."""


@images.command(
    "build", epilog="\b\nExamples:\n  blackstart images build\n  blackstart images build --example database"
)
@click.option("--example", type=click.Choice(["database"]), help="This example of a VM of your own, and no other.")
def build_images(example: str | None) -> None:
    """Build what is missing or was built from other sources; nothing otherwise."""
    from chaos.cli.output import Progress
    from harness.rig.engine.connection import connect
    from harness.rig.images.build import ensure_example, ensure_images, find_project_root

    say = Progress()
    with contextlib.closing(connect()) as client:
        if example is not None:
            image = ensure_example(client, example, project_root=find_project_root(), say=say)
            say(f"image: {image.tag} is built from what is here")
            return
        built = ensure_images(client, project_root=find_project_root(), say=say)
    say(f"images: {built.hypervisor.tag} and {built.guest.tag} are built from what is here")


@images.command("list")
@as_json
def list_images(json_wanted: bool) -> None:
    """The images, and whether they were built from what is here."""
    from chaos.cli.output import print_json, print_table
    from harness.rig.engine.connection import connect
    from harness.rig.images.build import find_project_root, image_status

    with contextlib.closing(connect()) as client:
        found = image_status(client, project_root=find_project_root())
    if json_wanted:
        print_json([{"tag": image.tag, "state": image.state.name.lower(), "id": image.id} for image in found])
        return
    rows = [(_escaped(image.tag), image.state.value, image.id.removeprefix("sha256:")[:12]) for image in found]
    print_table(("image", "state", "id"), rows, empty="no images")


@click.command(
    epilog="\b\nExamples:\n  blackstart compose --nodes 5 > compose.yaml\n"
    "  blackstart compose --topology my-rig.yaml --output my-rig.compose.yaml"
)
@_nodes
@_witness
@_topology
@click.option("--name", "name", callback=valid_rig, help=f"The rig's name.  [default: the file's, else {DEFAULT_RIG}]")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of standard output.")
def compose(
    nodes: int | None, witness: bool, topology_file: Path | None, name: str | None, output: Path | None
) -> None:
    """Print a rig's Compose file, for a start by hand (compose/README.md)."""
    from chaos.output.named_file import write_named_file
    from harness.errors import UsageError
    from harness.rig.lifecycle.compose_file import render

    text = render(_read_topology(nodes, witness, topology_file, name))
    if output is None:
        echo_verbatim(text)
    else:
        try:
            write_named_file(output, text, inputs=[] if topology_file is None else [topology_file])
        except OSError as error:
            raise UsageError(f"cannot write {output}: {error.strerror}; name another place") from error


def _read_topology(nodes: int | None, witness: bool, topology_file: Path | None, name: str | None) -> "Topology":
    from harness.document.topology import DEFAULT_NODES, default_topology, read_topology, too_many_for_containers
    from harness.document.yaml_source import load_file
    from harness.errors import UsageError

    if topology_file is None:
        count = DEFAULT_NODES if nodes is None else nodes
        return default_topology(rig=name or DEFAULT_RIG, nodes=count, witness=witness)
    if nodes is not None:
        raise UsageError("--nodes and --topology exclude each other: the file says how many nodes there are")
    if witness:
        raise UsageError("--witness and --topology exclude each other: the file says whether there is a witness")
    topology = read_topology(load_file(topology_file, expected="a rig in YAML or JSON"), rig=name)
    too_many = too_many_for_containers(topology)
    if too_many:
        raise UsageError(f"{topology_file}: {too_many}")
    return topology


def _escaped(text: str) -> str:
    from chaos.output.printing import markup

    return markup(text)
