"""What must hold on one real rig, whatever dies: no machine runs twice, none stops because a process of its node died,
everything that is wanted comes back, and what a person stopped stays stopped.

The tests share the rig and its history and run in the order of this file: the last one rules on all of it. Nothing here
believes the cluster about its machines: starts and ends are the engine's events, heard by a reader of the test's own,
and the lines that the machines themselves wrote.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest
from engine_witness import EVENT_LAG_S, EVENT_LIMIT_S, Witness
from node_faults import PROBE_LIMIT_S, RESOURCE_HOST, SERVICE, VMMS, VOTER, Cut, crash, kill_process, signal_program

from chaos.arena.process_effects import NodeProgram, ProgramSignal
from chaos.history.records import EngineEvent, Role
from harness.document.topology import read_topology
from harness.document.yaml_source import load
from harness.errors import EngineError
from harness.model.object_names import node_container
from harness.rig.cluster.status import GroupStanding, Power
from harness.rig.engine.archive_file import read_file
from harness.rig.engine.connection import in_parallel
from harness.rig.lifecycle.rig import Machine, Rig
from harness.rig.lifecycle.teardown import left_behind

pytestmark = [pytest.mark.containers, pytest.mark.timeout(200)]

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

PROCESSES = pytest.mark.parametrize("user", [SERVICE, RESOURCE_HOST, VMMS], ids=["service", "resource-host", "vmms"])

SETTLE_LIMIT_S = 40.0
"""Lease, fence, boot and claim take some seconds; a busy machine needs more."""
LOOK_INTERVAL_S = 0.1
VOTER_AWAY_S = 2.0
"""A restart in place takes under one second, also the second one, which waits for half a second by policy."""


@pytest.fixture(scope="module")
def standing_rig(engine: docker.DockerClient, rig_names: Callable[[], str]) -> Iterator[tuple[Rig, Witness]]:
    """The rig and its witness, who listens from before the first start on."""
    name = rig_names()
    witness = Witness(engine, name)
    try:
        rig = Rig.up(read_topology(load(DOCUMENT, name="rig.yaml"), rig=name), say=print, client=engine)
        yield rig, witness
        rig.down(say=print)
    finally:
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
        assert time.monotonic() < deadline, (
            f"waited {SETTLE_LIMIT_S:g} s for a whole rig, missing {found}; the logs end with\n{logs(rig)}"
        )
        time.sleep(LOOK_INTERVAL_S)


def logs(rig: Rig) -> str:
    """The end of every node's log."""
    return "\n".join(f"{node.name}:\n{rig.logs(node.name, lines=25)}" for node in rig.topology.nodes)


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


def expect_restart_in_place(witness: Witness, machine: Machine, *, died_ns: int) -> EngineEvent:
    """It runs again where it ran; the answer is its start."""
    start = witness.wait_event(f"{machine.name} to start again", since_ns=died_ns, action="start", machine=machine.name)
    assert start.node == machine.node, witness.told(died_ns)
    print(f"{machine.name} on {machine.node} started again {(start.at_ns - died_ns) / 1e9:.3f} s after its end")
    return start


def wait_for_journal(rig: Rig, machine: Machine) -> None:
    node, path = node_container(rig.name, machine.node), f"/csv/{machine.name}/disk/journal.jsonl"
    deadline = time.monotonic() + EVENT_LIMIT_S
    seen = ""
    while True:
        try:
            if read_file(rig.client, [node], path, limit_bytes=1 << 20):
                return
        except EngineError as error:
            seen = str(error)
        assert time.monotonic() < deadline, f"waited {EVENT_LIMIT_S:g} s for the journal of {machine.name}: {seen}"


def test_machine_stopped_by_hand_is_no_longer_wanted_and_stays_stopped(rig: Rig, witness: Witness) -> None:
    machine = running(rig)["data-vm"]
    others = {name: run for name, run in runs(rig).items() if name != machine.name}
    wait_for_journal(rig, machine)  # without which nobody can tell in the end how often it ran
    stopped_ns = time.time_ns()

    rig.client.api.stop(machine.container, timeout=10)

    deadline = time.monotonic() + EVENT_LIMIT_S
    while (seen := persistent_state(group_of(rig, machine.name))) != ("Offline", 0):
        assert time.monotonic() < deadline, f"waited {EVENT_LIMIT_S:g} s for {machine.name} Offline and 0, saw {seen}"
    print(f"PersistentState 0 seen {(time.time_ns() - stopped_ns) / 1e9:.3f} s after the stop")
    expect_none_started(witness, machine.name, since_ns=stopped_ns, until_ns=time.time_ns() + 3 * 10**9)
    assert persistent_state(group_of(rig, machine.name)) == ("Offline", 0)
    assert runs(rig) == others


def test_machine_killed_through_the_engine_has_failed_and_is_restarted(rig: Rig, witness: Witness) -> None:
    _, (machine, *_) = busiest(rig)
    others = {name: run for name, run in runs(rig).items() if name != machine.name}
    killed_ns = time.time_ns()

    rig.client.api.kill(machine.container)

    expect_restart_in_place(witness, machine, died_ns=killed_ns)
    wait_settled(rig)
    assert persistent_state(group_of(rig, machine.name)) == ("Online", 1)
    assert {name: run for name, run in runs(rig).items() if name != machine.name} == others


@pytest.mark.parametrize("program", [NodeProgram.SERVICE, NodeProgram.RESOURCE_HOST, NodeProgram.VMMS])
def test_killed_process_of_a_node_stops_no_machine_and_comes_back_to_work(
    rig: Rig, witness: Witness, program: NodeProgram
) -> None:
    node, (machine, *_) = busiest(rig)
    before = runs(rig)
    epoch = group_of(rig, machine.name).epoch

    killed_ns = signal_program(rig, node, program, ProgramSignal.KILL)

    wait_settled(rig)
    print(f"whole again {(time.time_ns() - killed_ns) / 1e9:.3f} s after the kill")
    # Until lease and grace are over the node's first process may still end its machines.
    last_ns = machines_end_by(rig, killed_ns)

    def expect_no_death() -> None:
        assert not witness.events(since_ns=killed_ns, action="die"), witness.told(killed_ns)

    witness.watch(last_ns, expect_no_death)
    assert runs(rig) == before
    expect_restart_in_place(witness, machine, died_ns=crash(rig, machine))
    wait_settled(rig)
    assert group_of(rig, machine.name).epoch == epoch
    assert {name: run for name, run in runs(rig).items() if name != machine.name} == {
        name: run for name, run in before.items() if name != machine.name
    }


@PROCESSES
def test_machine_that_crashes_while_a_process_of_its_node_is_away_is_restarted(
    rig: Rig, witness: Witness, user: int
) -> None:
    node, (machine, *_) = busiest(rig)
    others = {name: run for name, run in runs(rig).items() if name != machine.name}

    killed_ns, _ = kill_process(rig, node, user, machines=[machine])

    expect_restart_in_place(witness, machine, died_ns=killed_ns)
    wait_settled(rig)
    assert {name: run for name, run in runs(rig).items() if name != machine.name} == others


@pytest.mark.parametrize("voter", ["node1", "node2"])
def test_crashed_machine_is_restarted_while_a_voter_is_away(rig: Rig, witness: Witness, voter: str) -> None:
    """A restart is written down first, on a majority. The second voter's turn needs the first: it votes again."""
    _, (machine, *_) = busiest(rig)
    before = runs(rig)
    killed = threading.Event()

    with ThreadPoolExecutor(max_workers=1) as pool:
        killing = pool.submit(kill_process, rig, voter, VOTER, away_s=VOTER_AWAY_S, on_kill=killed.set)
        assert killed.wait(PROBE_LIMIT_S), f"waited {PROBE_LIMIT_S:g} s for the voter of {voter} to be killed"
        start = expect_restart_in_place(witness, machine, died_ns=crash(rig, machine))
        killed_ns, back_ns = killing.result()

    assert killed_ns < start.at_ns < back_ns, "the voter was back before the machine was"
    wait_settled(rig)
    assert {event.machine for event in witness.events(since_ns=killed_ns, action="die")} == {machine.name}
    assert runs(rig).keys() == before.keys()


def test_node_cut_off_ends_its_machines_in_time_and_they_run_on_the_others(rig: Rig, witness: Witness) -> None:
    node, machines = busiest(rig)
    session = session_of(rig, node)
    cut = Cut(rig, node)

    began_ns = time.time_ns()
    cut.keep()
    assert cut.lives, f"{node} could not be cut off: {cut.refusal}"
    (cut_ns,) = cut.lives.values()
    names = {machine.name for machine in machines}
    keep_until(
        cut, f"{names} on other nodes", lambda: started(witness, since_ns=cut_ns, elsewhere=node).keys() >= names
    )
    starts = started(witness, since_ns=cut_ns, elsewhere=node)
    ends = {
        name: witness.wait_event(
            f"the end of {name} on {node}",
            since_ns=began_ns,
            action="die",
            machine=name,
            node=node,
            limit_s=2 * EVENT_LAG_S,
        ).at_ns
        for name in names
    }
    for name in sorted(names):
        ended_s, ran_s = (ends[name] - cut_ns) / 1e9, (starts[name] - cut_ns) / 1e9
        print(f"{name}: ended {ended_s:.3f} s, ran elsewhere {ran_s:.3f} s after the cut")
    keep_until(cut, f"the next life of {node}", lambda: len(cut.lives) >= 2)
    # The next life is cut off too: it must find nobody, and start nothing.
    cut_off_ns = max(cut.lives.values())
    witness.watch(
        cut_off_ns + rig.topology.settings.lease_us * 1000,
        lambda: expect_none_started_on(witness, node, since_ns=began_ns),
    )
    healed_ns = time.time_ns()
    dropped = cut.heal()
    wait_settled(rig)
    print(f"{dropped} packets dropped in its last life; whole {(time.time_ns() - healed_ns) / 1e9:.3f} s after healing")

    assert max(ends.values()) <= machines_end_by(rig, cut_ns), witness.told(began_ns)
    assert dropped > 0, "the rules were not there, or nobody asked for the node"
    assert session_of(rig, node) != session
    witness.rule(rig)


def test_without_a_majority_every_node_ends_its_machines_by_itself(rig: Rig, witness: Witness) -> None:
    """Nobody can fence here, so nothing but each node's own first process ends its machines."""
    names = running(rig).keys()
    cuts = [Cut(rig, node.name) for node in rig.topology.nodes[:-1]]
    began_ns = time.time_ns()

    in_parallel(Cut.keep, cuts)

    assert all(cut.lives for cut in cuts), f"not every node could be cut off: {[cut.refusal for cut in cuts]}"
    cut_ns = max(at_ns for cut in cuts for at_ns in cut.lives.values())
    ends = [
        witness.wait_event(f"the end of {name} without a majority", since_ns=began_ns, action="die", machine=name)
        for name in names
    ]
    last_ns = max(end.at_ns for end in ends)
    assert last_ns <= machines_end_by(rig, cut_ns), witness.told(began_ns)
    assert not [kill for kill in witness.events(since_ns=began_ns, action="kill") if kill.at_ns <= last_ns]
    in_parallel(Cut.heal, cuts)
    wait_settled(rig)
    print(f"all ended {(last_ns - cut_ns) / 1e9:.3f} s, whole {(time.time_ns() - cut_ns) / 1e9:.3f} s after the cuts")
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
        # The kernel takes the machines with the node. Killing these as well, as `power_off` does, takes longer.
        rig.client.api.kill(node_container(rig.name, node))
        crashing.exception()  # the power went while the second one was being crashed: so be it
    off_ns = witness.wait_event(f"{node} to die", since_ns=began_ns, action="die", role=Role.NODE, node=node).at_ns
    print(f"{node} died {(off_ns - seen.at_ns) / 1e9:.3f} s after {seen.action} of {seen.machine}")

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
    stops = witness.events(since_ns=0, action="stop")
    assert running(rig).keys() == set(MACHINES) - {stop.machine for stop in stops}
    for stop in stops:
        assert persistent_state(group_of(rig, stop.machine)) == ("Offline", 0)
        expect_none_started(witness, stop.machine, since_ns=stop.at_ns, until_ns=0)
    witness.rule(rig)

    rig.down(say=print)

    assert left_behind(rig.client, rig.name) == []


def keep_until(cut: Cut, what: str, holds: Callable[[], bool]) -> None:
    """Waits, and lays the cut again whenever the node has a new life."""
    deadline = time.monotonic() + EVENT_LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"waited {EVENT_LIMIT_S:g} s for {what}, cut off: {cut.lives} {cut.refusal}"
        time.sleep(LOOK_INTERVAL_S / 4)
        cut.keep()


def machines_end_by(rig: Rig, cut_ns: int) -> int:
    """Until when a node that was cut off then must have ended its machines, and the engine have told it."""
    settings = rig.topology.settings
    return cut_ns + (settings.lease_us + settings.grace_us) * 1000 + int(EVENT_LAG_S * 1e9)


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
