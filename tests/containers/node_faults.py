"""What the tests do to a node and its VMs from inside, without the engine's knowledge: kill a process, crash a
VM, cut the node off from the others.

Faults of an experiment are in `chaos.faults`; these are nearer to the bone, and assert that they worked.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from chaos.arena.docker.in_node import kill_vm
from chaos.arena.docker.network_effects import Cuts
from chaos.arena.docker.process_effects import carry_out, look_inside
from chaos.arena.port import IsolateNode
from chaos.arena.process_effects import NodeProgram, ProgramSignal, SignalProgram
from harness.errors import BlackstartError
from harness.model.object_names import node_container
from harness.rig.engine.exec import run_inside
from harness.rig.lifecycle.rig import Rig, Vm

__all__ = [
    "PROBE_LIMIT_S",
    "RESOURCE_HOST",
    "SERVICE",
    "VMMS",
    "VOTER",
    "Cut",
    "crash",
    "kill_process",
    "signal_program",
]

SERVICE, VOTER, VMMS, RESOURCE_HOST = 900, 901, 902, 903
"""Users of a node's processes (docs/design/0001-seams.md)."""

PROBE_LIMIT_S = 20.0
"""Starting Python in a node took 0.1 s."""

KILLER = """
import json, os, signal, sys, time

user, away_s, others = sys.argv[1], float(sys.argv[2]), sys.argv[3:]

def alive(users):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/status") as file:
                fields = {key: rest.split() for key, _, rest in (line.partition(":") for line in file)}
        except OSError:
            continue
        if fields["Uid"][0] in users and fields["State"][0] not in "ZX":
            found.append(int(name))
    return found

killed = {}
ends = time.monotonic() + away_s
gives_up = ends + 12
while not killed or time.monotonic() < ends:
    for pid in alive([user]):
        os.kill(pid, signal.SIGKILL)
        if pid not in killed:
            killed[pid] = time.time_ns()
            print(json.dumps({"killed": pid, "at_ns": killed[pid]}), flush=True)
    if killed:
        for pid in alive(others):
            os.kill(pid, signal.SIGKILL)
        others = []
    if time.monotonic() > gives_up:
        sys.exit(f"no process of user {user} to kill")
    time.sleep(0.01)
while not (back := [pid for pid in alive([user]) if pid not in killed]):
    if time.monotonic() > gives_up:
        sys.exit(f"killed {killed}, and no process of user {user} came back")
    time.sleep(0.01)
print(json.dumps({"back": back[0], "at_ns": time.time_ns()}))
"""
"""Kills what runs under a user of the node, and for a while again what comes back; then waits for the successor. What
runs under the `others` is killed once, while it is away.
"""


def crash(rig: Rig, vm: Vm) -> int:
    """Kills a VM's first process without the engine; the answer is when, in Unix nanoseconds."""
    source = Path(kill_vm.__file__).read_text()
    command = ["python3", "-I", "-c", source, vm.container]
    node = node_container(rig.name, vm.node)
    finished = run_inside(rig.client, node, command, user="0", limit_s=PROBE_LIMIT_S)
    assert finished.exit_code == 0, f"crash of {vm.name}: {finished}"
    return int(json.loads(finished.stdout)["at_ns"])


def signal_program(rig: Rig, node: str, program: NodeProgram, signal: ProgramSignal) -> int:
    """One signal to a program of the node, as a fault sends it; the answer is when, in Unix nanoseconds."""
    seen = look_inside(rig.client, rig.name, node).programs[program]
    effect = SignalProgram(node=node, program=program, signal=signal, pid=seen.pid, started=seen.started)
    return carry_out(rig.client, rig.name, effect)


def kill_process(
    rig: Rig,
    node: str,
    user: int,
    *,
    away_s: float = 0,
    vms: Sequence[Vm] = (),
    on_kill: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """Kills the node's process that runs under `user`, for `away_s` seconds again and again, and right after the first
    time `vms`; returns when it was killed first and when another one ran that stays, in Unix nanoseconds.

    `on_kill` is called after the first kill.
    """
    names = {vm.name for vm in vms}
    resources = [resource for group in rig.topology.groups for resource in group.resources]
    users = [resource.properties["user"] for resource in resources if resource.name in names]
    command = ["python3", "-I", "-c", KILLER, str(user), str(away_s), *users]
    container = node_container(rig.name, node)
    finished = run_inside(rig.client, container, command, user="0", limit_s=PROBE_LIMIT_S, on_line=lambda _: on_kill())
    assert finished.exit_code == 0, f"kill of user {user} on {node}: {finished}"
    told = [json.loads(line) for line in finished.stdout.splitlines()]
    killed_ns, back_ns = int(told[0]["at_ns"]), int(told[-1]["at_ns"])
    print(f"user {user} on {node}: killed {len(told) - 1} times, back after {(back_ns - killed_ns) / 1e9:.3f} s")
    return killed_ns, back_ns


class Cut:
    """The product's own cut of a node, laid again in each of its lives that `keep` finds.

    `lives` says which lives were cut off and since when (Unix nanoseconds); `refusal` is what the last failed attempt
    said.
    """

    def __init__(self, rig: Rig, node: str) -> None:
        self.lives: dict[str, int] = {}
        self.refusal = ""
        self._rig = rig
        self._node = node
        self._cuts = Cuts(rig.client, rig.topology)

    def keep(self) -> None:
        """Cuts the node's present life, if it is not cut."""
        state = self._rig.client.api.inspect_container(node_container(self._rig.name, self._node))["State"]
        if state["Running"] and state["StartedAt"] not in self.lives:
            try:
                self.lives[state["StartedAt"]] = self._cuts.isolate(IsolateNode(node=self._node))
            except BlackstartError as error:
                self.refusal = str(error)  # the node died just now: its next life is another matter

    def heal(self) -> int:
        """Takes the rules away; the answer is how many packets they had dropped."""
        dropped = self._cuts.look(self._node).dropped
        self._cuts.join(self._node)
        return dropped
