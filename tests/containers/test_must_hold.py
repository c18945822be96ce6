"""What must hold, on one real rig, whatever dies: no machine runs twice, none stops for the death of a process of its node,
everything that is wanted comes back, and what a person stopped stays stopped.

The tests share the rig and its history and run in the order of this file: the last one rules on all of it. Nothing here
believes the cluster about its machines: starts and ends are the engine's events, heard by a reader of the test's own,
and the lines that the machines themselves wrote.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

import chaos.crash_probe
from chaos.checkers import one_instance_by_events, one_instance_by_journals
from chaos.engine_stream import EngineStream
from chaos.evidence import read_journals
from chaos.history import EngineEvent, History, Reconciled, Record, Role
from chaos.listing import differences, list_containers
from chaos.verdict import Ruling
from harness.model import labels
from harness.model.topology import SECOND_US
from harness.rig.compose import node_container
from harness.rig.container_exec import run_inside
from harness.rig.engine import in_parallel
from harness.rig.rig import Machine, Rig
from harness.rig.standing import GroupStanding, Power
from harness.rig.teardown import left_behind
from harness.rig.topology_document import read_topology
from harness.rig.yaml_source import load

pytestmark = [pytest.mark.containers, pytest.mark.timeout(120)]

NAMES = ("web", "shop", "mail", "data")
"""The stopped one leaves three: one for each node, or nearly so."""
DOCUMENT = "nodes: 3\nvoters: 3\ngroups:\n" + "".join(
    f"""\
  - name: {name}
    resources:
      - {{name: {name}-ip, type: ip-address}}
      - {{name: {name}-vm, type: virtual-machine, depends-on: "[{name}-ip]", restart-threshold: 50}}
"""
    for name in NAMES
)
"""The default beat, lease and grace: what a user gets. Restarts are counted elsewhere, so here there are enough."""
MACHINES = tuple(f"{name}-vm" for name in NAMES)

SERVICE, VOTER, VMMS, RESOURCE_HOST = 900, 901, 902, 903
"""Users of a node's processes (docs/design/0001-seams.md)."""

SETTLE_LIMIT_S = 40.0
"""Lease, fence, boot and claim take some seconds; a busy machine needs more."""
EVENT_LIMIT_S = 20.0
PROBE_LIMIT_S = 20.0
LOOK_INTERVAL_S = 0.1
EVENT_LAG_S = 0.5
"""The engine tells the end of a container up to this long after it."""
VOTER_AWAY_S = 2.0

KILLER = """
import json, os, signal, sys, time

user, away_s = sys.argv[1], float(sys.argv[2])

def alive():
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/status") as file:
                fields = dict(line.rstrip().split(":\\t", 1) for line in file if ":\\t" in line)
        except OSError:
            continue
        if fields["Uid"].split()[0] == user and fields["State"][0] not in "ZX":
            found.append(int(name))
    return found

killed = {}
ends = time.monotonic() + away_s
gives_up = ends + 12
while not killed or time.monotonic() < ends:
    for pid in alive():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        if pid not in killed:
            killed[pid] = time.time_ns()
            print(json.dumps({"killed": pid, "at_ns": killed[pid]}), flush=True)
    if time.monotonic() > gives_up:
        sys.exit(f"no process of user {user} to kill")
    time.sleep(0.01)
while not (back := [pid for pid in alive() if pid not in killed]):
    if time.monotonic() > gives_up:
        sys.exit(f"killed {killed}, and no process of user {user} came back")
    time.sleep(0.01)
print(json.dumps({"back": back[0], "at_ns": time.time_ns()}))
"""
"""Kills what runs under a user of the node, and again what comes back for a while; then waits for its successor."""

CUT = """
for tool in iptables-nft iptables-legacy; do
    done=yes
    for peer in $PEERS; do
        $tool -w 2 -I INPUT -s $peer -j DROP && $tool -w 2 -I OUTPUT -d $peer -j DROP || done=
    done
    [ $done ] && date +%s%N && exit 0
done
exit 1
"""
HEAL = """
for tool in iptables-nft iptables-legacy; do
    for peer in $PEERS; do
        $tool -w 2 -nvxL INPUT | grep -w DROP | grep -w $peer
        $tool -w 2 -D INPUT -s $peer -j DROP && $tool -w 2 -D OUTPUT -d $peer -j DROP
    done
done
exit 0
"""


class Witness:
    """Hears the engine for the whole module, and keeps the history on which the checkers rule."""

    def __init__(self, client: docker.DockerClient, rig: str) -> None:
        self.history = History()
        self.began_ns = time.time_ns()
        self.stopped: dict[str, int] = {}
        self._client = client
        self._rig = rig
        self._heard: queue.SimpleQueue[Record] = queue.SimpleQueue()
        self._stream = EngineStream(client, rig=rig, sink=self._heard.put)
        self._stream.open()

    def close(self) -> None:
        self._stream.close()

    def events(self, *, since_ns: int, action: str, role: Role = Role.MACHINE) -> list[EngineEvent]:
        self._hear(0)
        events = self.history.of(EngineEvent)
        return [event for event in events if event.at_ns >= since_ns and event.action == action and event.role is role]

    def wait_event(
        self,
        what: str,
        *,
        since_ns: int,
        action: str,
        role: Role = Role.MACHINE,
        machine: str = "",
        node: str = "",
        elsewhere: str = "",
        limit_s: float = EVENT_LIMIT_S,
    ) -> EngineEvent:
        """The first such event; looked for as soon as the engine has told it."""
        deadline = time.monotonic() + limit_s
        while True:
            for event in self.events(since_ns=since_ns, action=action, role=role):
                if machine in ("", event.machine) and node in ("", event.node) and event.node != elsewhere:
                    return event
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"waited {limit_s:g} s for {what}, saw {self.told(since_ns) or 'no event'}"
            self._hear(left_s)

    def watch(self, until_ns: int, look: Callable[[], None]) -> None:
        """Something must not happen: `look` asserts that it did not, until then and at least once."""
        while True:
            look()
            left_s = (until_ns - time.time_ns()) / 1e9
            if left_s <= 0:
                return
            self._hear(left_s)

    def told(self, since_ns: int) -> str:
        """What nodes and machines did since then, in one line."""
        self._hear(0)
        return ", ".join(
            f"+{(event.at_ns - since_ns) / 1e9:.2f} s {event.action} {event.machine or 'node'} on {event.node}"
            for event in self.history.of(EngineEvent)
            if event.at_ns >= since_ns and event.role in (Role.NODE, Role.MACHINE)
        )

    def rule(self, rig: Rig) -> None:
        """Both witnesses of at most one instance rule on everything until now."""
        deadline = time.monotonic() + EVENT_LIMIT_S
        while found := self._differences():
            assert time.monotonic() < deadline, f"the engine's list and its events do not agree: {found}"
            time.sleep(EVENT_LAG_S)
        self.history.append(Reconciled(at_ns=time.time_ns()))
        nodes = [node_container(rig.name, node.name) for node in rig.topology.nodes]
        for journal in read_journals(self._client, nodes=nodes, machines=MACHINES, at_ns=time.time_ns()):
            self.history.append(journal)
        for check in (one_instance_by_events.check, one_instance_by_journals.check):
            verdict = check(self.history)
            assert verdict.ruling is Ruling.HOLDS, f"{verdict}; {self.told(self.began_ns)}"
            print(verdict.checker, *verdict.notes)

    def _differences(self) -> list[str]:
        listed = list_containers(self._client, rig=self._rig, at_ns=time.time_ns(), with_start=True)
        self._hear(0)
        return differences(listed, self.history.of(EngineEvent), since_ns=self.began_ns)

    def _hear(self, limit_s: float) -> None:
        """Takes over what was heard; waits at most `limit_s` for the first."""
        try:
            self.history.append(self._heard.get(timeout=limit_s) if limit_s > 0 else self._heard.get_nowait())
            while True:
                self.history.append(self._heard.get_nowait())
        except queue.Empty:
            return


class Cut:
    """A node cut off from the other nodes by rules in its network namespace, laid by a container beside it.

    The namespace ends with each life of the node, and the rules with it: `keep` lays them again in the next.
    """

    def __init__(self, rig: Rig, node: str) -> None:
        self.lives: dict[str, int] = {}
        self._rig = rig
        self._node = node_container(rig.name, node)
        self._peers = " ".join(other.address for other in rig.topology.nodes if other.name != node)

    def keep(self) -> None:
        """Cuts the node's present life, if it is not cut."""
        state = self._rig.client.api.inspect_container(self._node)["State"]
        if state["Running"] and state["StartedAt"] not in self.lives:
            told = self._beside_the_node(CUT)
            if told.strip().isdigit():
                self.lives[state["StartedAt"]] = int(told)

    def heal(self) -> int:
        """Takes the rules away; the answer is how many packets they had dropped on their way in."""
        told = self._beside_the_node(HEAL)
        return sum(int(line.split()[0]) for line in told.splitlines() if "DROP" in line)

    def _beside_the_node(self, script: str) -> str:
        try:
            helper: Any = self._rig.client.containers.run(
                "blackstart/hypervisor",
                entrypoint=["sh", "-c", script],
                environment={"PEERS": self._peers},
                network_mode=f"container:{self._node}",
                user="0",
                cap_drop=["ALL"],
                cap_add=["NET_ADMIN", "NET_RAW"],
                labels={labels.RIG: self._rig.name},
                detach=True,
            )
        except docker.errors.APIError:
            return ""  # the node died just now: its next life is another matter
        try:
            helper.wait(timeout=PROBE_LIMIT_S)
            return bytes(helper.logs(stdout=True, stderr=False)).decode()
        finally:
            helper.remove(force=True)


@pytest.fixture(scope="module")
def standing_rig(
    engine: docker.DockerClient, rig_names: Callable[[], str]
) -> Iterator[tuple[Rig, Witness]]:
    """The rig and its witness, who listens from before the first start on."""
    name = rig_names()
    witness = Witness(engine, name)
    rig = Rig.up(read_topology(load(DOCUMENT, name="rig.yaml"), rig=name), say=print, client=engine)
    yield rig, witness
    rig.down(say=print)
    witness.close()


@pytest.fixture
def rig(standing_rig: tuple[Rig, Witness]) -> Rig:
    """The rig, with every node a member and everything Online that is wanted."""
    rig, _ = standing_rig
    wait_settled(rig)
    return rig


@pytest.fixture
def witness(standing_rig: tuple[Rig, Witness]) -> Witness:
    return standing_rig[1]


def missing(rig: Rig) -> list[str]:
    """What keeps the rig from being whole: a node that is no member, a wanted resource that is not Online."""
    standing = rig.standing()
    found = [
        f"{node.name} ({node.state if node.power is Power.ON else node.power})"
        for node in standing.nodes
        if node.power is not Power.ON or node.state != "Up" or not node.quorum
    ]
    return found + [
        f"{resource.name} ({resource.state}, PersistentState {resource.persistent_state}, owner {group.owner})"
        for group in standing.groups
        for resource in group.resources
        if resource.persistent_state != 0 and resource.state != "Online"
    ]


def wait_settled(rig: Rig) -> None:
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while found := missing(rig):
        logs = "\n".join(f"{node.name}:\n{rig.logs(node.name, lines=25)}" for node in rig.topology.nodes)
        assert time.monotonic() < deadline, f"waited {SETTLE_LIMIT_S:g} s for a whole rig, missing {found}\n{logs}"
        time.sleep(LOOK_INTERVAL_S)


def running(rig: Rig) -> dict[str, Machine]:
    """The machines that run, by name."""
    return {machine.name: machine for machine in rig.machines() if machine.state == "running"}


def runs(rig: Rig) -> dict[str, tuple[str, str]]:
    """Each running machine's container and when it was started."""
    return {
        name: (machine.container, rig.client.api.inspect_container(machine.container)["State"]["StartedAt"])
        for name, machine in running(rig).items()
    }


def group_of(rig: Rig, machine: str) -> GroupStanding:
    return next(group for group in rig.standing().groups if group.name == machine.removesuffix("-vm"))


def persistent_state(group: GroupStanding) -> tuple[str, int | None]:
    """State and PersistentState of the group's machine."""
    machine = next(resource for resource in group.resources if resource.type == "virtual-machine")
    return machine.state, machine.persistent_state


def busiest(rig: Rig) -> tuple[str, list[Machine]]:
    """The node with the most running machines, and these."""
    by_node: dict[str, list[Machine]] = {}
    for machine in running(rig).values():
        by_node.setdefault(machine.node, []).append(machine)
    return max(by_node.items(), key=lambda entry: len(entry[1]))


def crash(rig: Rig, machine: Machine) -> int:
    """Kills a machine's first process without the engine; the answer is when, in Unix nanoseconds."""
    source = Path(chaos.crash_probe.__file__).read_text()
    command = ["python3", "-I", "-c", source, machine.container]
    node = node_container(rig.name, machine.node)
    finished = run_inside(rig.client, node, command, user="0", limit_s=PROBE_LIMIT_S)
    assert finished.exit_code == 0, f"crash of {machine.name}: {finished}"
    return int(json.loads(finished.stdout)["at_ns"])


def kill_process(
    rig: Rig, node: str, user: int, *, away_s: float = 0, on_kill: Callable[[], None] = lambda: None
) -> tuple[int, int]:
    """Kills the node's process that runs under `user`, for `away_s` seconds again and again; returns when it was killed
    first and when another one ran that stays, in Unix nanoseconds. `on_kill` is called after the first kill.
    """
    command = ["python3", "-I", "-c", KILLER, str(user), str(away_s)]
    container = node_container(rig.name, node)
    finished = run_inside(
        rig.client, container, command, user="0", limit_s=PROBE_LIMIT_S, on_line=lambda _: on_kill()
    )
    assert finished.exit_code == 0, f"kill of user {user} on {node}: {finished}"
    told = [json.loads(line) for line in finished.stdout.splitlines()]
    print(f"user {user} on {node}: killed {len(told) - 1} times, back after {(told[-1]['at_ns'] - told[0]['at_ns']) / 1e9:.3f} s")
    return told[0]["at_ns"], told[-1]["at_ns"]


def expect_restart_in_place(rig: Rig, witness: Witness, machine: Machine, *, died_ns: int) -> EngineEvent:
    """It ended without the engine's doing or with it, and runs again where it ran; the answer is its start."""
    start = witness.wait_event(f"{machine.name} to start again", since_ns=died_ns, action="start", machine=machine.name)
    assert start.node == machine.node, witness.told(died_ns)
    print(f"{machine.name} on {machine.node} started again {(start.at_ns - died_ns) / 1e9:.3f} s after its end")
    return start


def test_machine_stopped_by_hand_is_no_longer_wanted_and_stays_stopped(rig: Rig, witness: Witness) -> None:
    machine = running(rig)["data-vm"]
    others = {name: run for name, run in runs(rig).items() if name != machine.name}
    stopped_ns = time.time_ns()

    rig.client.api.stop(machine.container, timeout=10)

    deadline = time.monotonic() + EVENT_LIMIT_S
    while (seen := persistent_state(group_of(rig, machine.name))) != ("Offline", 0):
        assert time.monotonic() < deadline, f"waited {EVENT_LIMIT_S:g} s for ('Offline', 0) of {machine.name}, saw {seen}"
    print(f"PersistentState 0 seen {(time.time_ns() - stopped_ns) / 1e9:.3f} s after the stop")
    witness.stopped[machine.name] = stopped_ns
    expect_none_started(witness, machine.name, since_ns=stopped_ns, until_ns=time.time_ns() + 3 * 10**9)
    assert persistent_state(group_of(rig, machine.name)) == ("Offline", 0)
    assert runs(rig) == others


def test_machine_killed_through_the_engine_has_failed_and_is_restarted(rig: Rig, witness: Witness) -> None:
    _, (machine, *_) = busiest(rig)
    others = {name: run for name, run in runs(rig).items() if name != machine.name}
    killed_ns = time.time_ns()

    rig.client.api.kill(machine.container)

    expect_restart_in_place(rig, witness, machine, died_ns=killed_ns)
    wait_settled(rig)
    assert persistent_state(group_of(rig, machine.name)) == ("Online", 1)
    assert {name: run for name, run in runs(rig).items() if name != machine.name} == others


@pytest.mark.parametrize("user", [SERVICE, RESOURCE_HOST, VMMS], ids=["service", "resource-host", "vmms"])
def test_killed_process_of_a_node_stops_no_machine_and_comes_back_to_work(
    rig: Rig, witness: Witness, user: int
) -> None:
    node, (machine, *_) = busiest(rig)
    before = runs(rig)
    epoch = group_of(rig, machine.name).epoch

    killed_ns, _ = kill_process(rig, node, user)

    wait_settled(rig)
    print(f"whole again {(time.time_ns() - killed_ns) / 1e9:.3f} s after the kill")
    # Until lease and grace are over the node's first process may still end its machines.
    settings = rig.topology.settings
    last_ns = killed_ns + (settings.lease_us + settings.grace_us) * 1000 + int(EVENT_LAG_S * 1e9)

    def expect_no_death() -> None:
        assert not witness.events(since_ns=killed_ns, action="die"), witness.told(killed_ns)

    witness.watch(last_ns, expect_no_death)
    assert runs(rig) == before
    expect_restart_in_place(rig, witness, machine, died_ns=crash(rig, machine))
    wait_settled(rig)
    assert group_of(rig, machine.name).epoch == epoch
    assert {name: run for name, run in runs(rig).items() if name != machine.name} == {
        name: run for name, run in before.items() if name != machine.name
    }


@pytest.mark.parametrize("voter", ["node1", "node2"])
def test_crashed_machine_is_restarted_while_a_voter_is_away(rig: Rig, witness: Witness, voter: str) -> None:
    """A restart is written down first, on a majority. The second voter's turn needs the first: it votes again."""
    _, (machine, *_) = busiest(rig)
    before = runs(rig)
    killed = threading.Event()

    with ThreadPoolExecutor(max_workers=1) as pool:
        killing = pool.submit(kill_process, rig, voter, VOTER, away_s=VOTER_AWAY_S, on_kill=killed.set)
        assert killed.wait(PROBE_LIMIT_S), f"waited {PROBE_LIMIT_S:g} s for the voter of {voter} to be killed"
        start = expect_restart_in_place(rig, witness, machine, died_ns=crash(rig, machine))
        killed_ns, back_ns = killing.result()

    assert killed_ns < start.at_ns < back_ns, "the voter was back before the machine was"
    wait_settled(rig)
    assert {event.machine for event in witness.events(since_ns=killed_ns, action="die")} == {machine.name}
    assert runs(rig).keys() == before.keys()


def test_node_cut_off_ends_its_machines_in_time_and_they_run_on_the_others(rig: Rig, witness: Witness) -> None:
    node, machines = busiest(rig)
    session = session_of(rig, node)
    cut = Cut(rig, node)
    settings = rig.topology.settings

    began_ns = time.time_ns()
    cut.keep()
    (cut_ns,) = cut.lives.values()
    deadline = time.monotonic() + SETTLE_LIMIT_S
    names = {machine.name for machine in machines}
    while len(cut.lives) < 2 or started(witness, since_ns=cut_ns, elsewhere=node).keys() < names:
        assert time.monotonic() < deadline, (
            f"waited {SETTLE_LIMIT_S:g} s for {names} on other nodes than {node} and for its next life, "
            f"saw {witness.told(began_ns)}"
        )
        time.sleep(LOOK_INTERVAL_S / 4)
        cut.keep()
    ends = {event.machine: event.at_ns for event in reversed(witness.events(since_ns=began_ns, action="die"))}
    starts = started(witness, since_ns=cut_ns, elsewhere=node)
    for name in sorted(names):
        print(f"{name}: ended {(ends[name] - cut_ns) / 1e9:.3f} s, ran {(starts[name] - cut_ns) / 1e9:.3f} s after the cut")
    # The next life is cut off too: it must find nobody, and start nothing.
    cut_off_ns = max(cut.lives.values())
    witness.watch(
        cut_off_ns + settings.lease_us * 1000,
        lambda: expect_none_started_on(witness, node, since_ns=began_ns),
    )
    healed_ns = time.time_ns()
    dropped = cut.heal()
    wait_settled(rig)
    print(f"{dropped} packets dropped in the second life; whole again {(time.time_ns() - healed_ns) / 1e9:.3f} s after it")

    bound_us = settings.lease_us + settings.grace_us + int(EVENT_LAG_S * SECOND_US)
    assert max(ends[name] for name in names) - cut_ns <= bound_us * 1000, witness.told(began_ns)
    assert guests_withdrawn(rig, node, since_ns=cut_ns), rig.logs(node, lines=60)
    assert dropped > 0, "the rules were not there, or nobody asked for the node"
    assert session_of(rig, node) != session
    witness.rule(rig)


@pytest.mark.parametrize("moment", ["die", "start"])
def test_node_whose_power_goes_while_its_machines_start_comes_back_and_nothing_runs_twice(
    rig: Rig, witness: Witness, moment: str
) -> None:
    """Cut as soon as the engine tells that the first machine has ended, or that it starts again."""
    node, machines = busiest(rig)
    session = session_of(rig, node)
    began_ns = time.time_ns()

    with ThreadPoolExecutor(max_workers=1) as pool:
        crashing = pool.submit(in_parallel, lambda machine: crash(rig, machine), machines)
        seen = witness.wait_event("the machine's " + moment, since_ns=began_ns, action=moment, node=node)
        rig.power_off(node, hold=False)
        off_ns = time.time_ns()
        crashing.exception()  # the power went while the second one was being crashed: so be it
    print(f"{node} off {(off_ns - seen.at_ns) / 1e9:.3f} s after {seen.action} of {seen.machine}")

    on = witness.wait_event(f"{node} to be on again", since_ns=off_ns, action="start", role=Role.NODE, node=node)
    for machine in machines:
        start = witness.wait_event(
            f"{machine.name} on another node", since_ns=off_ns, action="start", machine=machine.name, elsewhere=node
        )
        print(f"{machine.name} on {start.node} {(start.at_ns - off_ns) / 1e9:.3f} s after the power was off")
    wait_settled(rig)
    print(f"{node} on {(on.at_ns - off_ns) / 1e9:.3f} s, whole {(time.time_ns() - off_ns) / 1e9:.3f} s after that")
    assert session_of(rig, node) != session
    witness.rule(rig)


def test_in_the_end_all_is_online_nothing_ever_ran_twice_and_nothing_is_left(rig: Rig, witness: Witness) -> None:
    wanted = {name for name in MACHINES if persistent_state(group_of(rig, name))[1] == 1}
    assert wanted == set(MACHINES) - witness.stopped.keys()
    assert running(rig).keys() == wanted
    for name, stopped_ns in witness.stopped.items():
        expect_none_started(witness, name, since_ns=stopped_ns, until_ns=0)
    witness.rule(rig)

    rig.down(say=print)

    assert left_behind(rig.client, rig.name) == []


def session_of(rig: Rig, node: str) -> str:
    return next(seen.session for seen in rig.standing().nodes if seen.name == node)


def started(witness: Witness, *, since_ns: int, elsewhere: str) -> dict[str, int]:
    """When each machine was first started on another node than that."""
    events = witness.events(since_ns=since_ns, action="start")
    return {event.machine: event.at_ns for event in reversed(events) if event.node != elsewhere}


def expect_none_started(witness: Witness, machine: str, *, since_ns: int, until_ns: int) -> None:
    def look() -> None:
        starts = [event for event in witness.events(since_ns=since_ns, action="start") if event.machine == machine]
        assert not starts, f"{machine} was stopped by hand and started again: {starts}"

    witness.watch(until_ns, look)


def expect_none_started_on(witness: Witness, node: str, *, since_ns: int) -> None:
    starts = [event for event in witness.events(since_ns=since_ns, action="start") if event.node == node]
    assert not starts, f"{node}, cut off, started machines: {witness.told(since_ns)}"


def guests_withdrawn(rig: Rig, node: str, *, since_ns: int) -> bool:
    """Whether the node's first process says that it ended the machines itself, at the end of the lease."""
    text = bytes(rig.client.api.logs(node_container(rig.name, node), since=since_ns // 10**9)).decode()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return any(line["event"] == "guests-withdrawn" and line["time"] * 1e9 >= since_ns for line in lines)
