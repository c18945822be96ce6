"""How fast a crashed VM runs again, and how fast a dead node's VMs run elsewhere, by the engine's clock."""

import inspect
import threading
from typing import Any

import docker

from bench.figure import Figure, Goal, GoalKind, Series, alternate
from bench.rigs import Events, say, standing_rig
from chaos.arena.docker.in_node import kill_vm
from harness.errors import HarnessError
from harness.model import labels
from harness.model.object_names import node_container
from harness.rig.engine.exec import run_inside
from harness.rig.images.build import ensure_images, find_project_root
from harness.rig.lifecycle.rig import Rig

__all__ = ["node_power_cut", "vm_crash"]

REST_LIMIT_S = 60.0
CRASH_LIMIT_S = 10.0
VMS = 6
FLOOR_PER_VM_S = 0.04
NODE_USER = "909"
"""PID 1 takes it for one of the node's own and leaves it alone."""
CRASH = ("python3", "-I", "-c", inspect.getsource(kill_vm))

TOPOLOGY = "nodes: 3\nvoters: 3\ngroups:\n" + "".join(
    f"""
  - name: g{number}
    preferred-owners: [node1]
    resources:
      - {{name: ip{number}, type: ip-address}}
      - name: vm{number}
        type: virtual-machine
        depends-on: "[ip{number}]"
        restart-threshold: 50
        restart-delay: 0s
"""
    for number in range(1, VMS + 1)
)


def vm_crash(client: docker.DockerClient, rounds: int) -> list[Figure]:
    """A VM's main process dies of SIGKILL: ours and the floor on one rig, in turn."""
    with standing_rig(client, TOPOLOGY) as rig, Events(client, rig.name) as events:
        bare = _bare_vm(client, rig)

        def ours(_: int) -> float:
            vm = next(one for one in rig.vms() if one.name == "vm1" and one.state == "running")
            took_s = _crash(client, events, node_container(rig.name, vm.node), vm.container)
            rig.wait_online(limit_s=REST_LIMIT_S, say=say)
            return took_s

        def floor(_: int) -> float:
            return _floor_crash(client, events, node_container(rig.name, "node2"), bare)

        found = alternate(rounds, {"ours": ours, "floor": floor})
    figure = Figure(
        title="crashed VM runs again",
        unit="s",
        measured=found["ours"],
        floor=found["floor"],
        goal=Goal(kind=GoalKind.RATIO, limit=1.4),
        how="From the VM's die event to its next start event, with every check on and the restart recorded on a "
        "majority of the voters in between; its first restart, which has no delay.",
        floor_is="a program that waits on the engine's event stream and starts the dead container through the SDK, in "
        "the same kind of namespaces.",
    )
    return [figure]


def node_power_cut(client: docker.DockerClient, rounds: int) -> list[Figure]:
    """Every round has a rig of its own, and cuts the node that owns all six VMs."""
    cuts: list[float] = []
    floors: list[float] = []
    attempts = 0
    while len(cuts) < rounds:
        attempts += 1
        if attempts > 2 * rounds:
            raise HarnessError(f"in {attempts} rigs the six VMs were on one node only {len(cuts)} times")
        with standing_rig(client, TOPOLOGY) as rig:
            owners = {one.node for one in rig.vms() if one.state == "running"}
            if len(owners) != 1:
                say(f"the VMs run on {', '.join(sorted(owners))}: this round does not count")
                continue
            cuts.append(_cut(client, rig, owners.pop()))
            floors.append(rig.topology.settings.lease_us / 1e6 + FLOOR_PER_VM_S * VMS)
            lease_s = rig.topology.settings.lease_us / 1e6
    figure = Figure(
        title="six VMs of a dead node run elsewhere",
        unit="s",
        measured=Series(values=tuple(cuts)),
        floor=Series(values=tuple(floors)),
        goal=Goal(kind=GoalKind.MEDIAN, limit=lease_s + 0.5),
        how="From the kill event of the node to the start event of the last of its six VMs, default settings: the "
        "lease runs out, the session is declared Down and fenced, each group is claimed.",
        floor_is="reckoned: the lease, and 0.04 s to start each VM.",
    )
    return [figure]


def _cut(client: docker.DockerClient, rig: Rig, node: str) -> float:
    box = client.containers.get(node_container(rig.name, node)).id
    with Events(client, rig.name) as events:
        rig.power_off(node, hold=True)
        cut_ns, _ = events.wait("the kill of the node", lambda action, of: action == "kill" and of == box)
        last_ns = cut_ns
        for number in range(VMS):
            what = f"VM {number + 1} of {VMS} to start"
            last_ns, _ = events.wait(what, lambda action, of: action == "start" and of != box)
    return (last_ns - cut_ns) / 1e9


def _crash(client: docker.DockerClient, events: Events, node: str, container: str) -> float:
    events.drop()
    found = run_inside(client, node, [*CRASH, container], user="0", limit_s=CRASH_LIMIT_S)
    if found.exit_code != 0:
        raise HarnessError(f"the crash of {container[:12]} was not made: {found.stderr or found.stdout}")
    died_ns, _ = events.wait("its die event", lambda action, box: action == "die" and box == container)
    started_ns, _ = events.wait("its start event", lambda action, _: action == "start")
    return (started_ns - died_ns) / 1e9


def _bare_vm(client: docker.DockerClient, rig: Rig) -> str:
    """A guest that no cluster knows, in the namespaces of a node."""
    image = ensure_images(client, project_root=find_project_root(), say=say).hypervisor.tag
    node: Any = f"container:{node_container(rig.name, 'node2')}"
    box = client.containers.create(
        image,
        entrypoint=["sleep", "3600"],
        pid_mode=node,
        network_mode=node,
        user=NODE_USER,
        cap_drop=["ALL"],
        labels={labels.RIG: rig.name, labels.ROLE: str(labels.Role.CLIENT)},
    )
    box.start()
    return str(box.id)


def _floor_crash(client: docker.DockerClient, events: Events, node: str, container: str) -> float:
    """The event stream's reader starts it again at once."""
    events.drop()
    crash = threading.Thread(
        target=run_inside,
        args=(client, node, [*CRASH, container]),
        kwargs={"user": "0", "limit_s": CRASH_LIMIT_S},
    )
    crash.start()
    died_ns, _ = events.wait("the bare VM's die event", lambda action, box: action == "die" and box == container)
    client.api.start(container)
    started_ns, _ = events.wait("its start event", lambda action, box: action == "start" and box == container)
    crash.join()
    return (started_ns - died_ns) / 1e9
