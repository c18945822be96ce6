"""What must hold on one real rig, whatever dies: no VM runs twice, none stops because a process of its node died,
everything that is wanted comes back, and what a person stopped stays stopped.

The tests share the rig and its history and run in the order of this file: the last one rules on all of it. Nothing here
believes the cluster about its VMs: starts and ends are the engine's events, heard by a reader of the test's own,
and the lines that the VMs themselves wrote.
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
from chaos.history.records import ContainerRole, EngineEventSeen
from harness.document.topology import read_topology
from harness.document.yaml_source import load
from harness.errors import EngineError
from harness.model.object_names import node_container
from harness.rig.cluster.status import GroupStatus, Power
from harness.rig.engine.archive_file import read_file
from harness.rig.engine.connection import in_parallel
from harness.rig.lifecycle.rig import Rig, Vm
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
VMS = tuple(f"{name}-vm" for name in NAMES)

PROCESSES = pytest.mark.parametrize("user", [SERVICE, RESOURCE_HOST, VMMS], ids=["service", "resource-host", "vmms"])

SETTLE_LIMIT_S = 40.0
"""Lease, fence, boot and claim take some seconds; a busy VM needs more."""
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


def running(rig: Rig) -> dict[str, Vm]:
    """The VMs that run, by name."""
    return {vm.name: vm for vm in rig.vms() if vm.state == "running"}


def runs(rig: Rig) -> dict[str, tuple[str, str]]:
    """Each running VM's container and when it was started."""
    return {
        name: (vm.container, rig.client.api.inspect_container(vm.container)["State"]["StartedAt"])
        for name, vm in running(rig).items()
    }


def group_of(rig: Rig, vm: str) -> GroupStatus:
    return next(group for group in rig.standing().groups if group.name == vm.removesuffix("-vm"))


def persistent_state(group: GroupStatus) -> tuple[str, int | None]:
    """State and PersistentState of the group's VM."""
    vm = next(resource for resource in group.resources if resource.type == "virtual-machine")
    return vm.state, vm.persistent_state


def busiest(rig: Rig) -> tuple[str, list[Vm]]:
    """The node with the most running VMs, and these."""
    by_node: dict[str, list[Vm]] = {}
    for vm in running(rig).values():
        by_node.setdefault(vm.node, []).append(vm)
    return max(by_node.items(), key=lambda entry: len(entry[1]))


def expect_restart_in_place(witness: Witness, vm: Vm, *, died_ns: int) -> EngineEventSeen:
    """It runs again where it ran; the answer is its start."""
    start = witness.wait_event(f"{vm.name} to start again", since_ns=died_ns, action="start", vm=vm.name)
    assert start.node == vm.node, witness.told(died_ns)
    print(f"{vm.name} on {vm.node} started again {(start.at_ns - died_ns) / 1e9:.3f} s after its end")
    return start


def wait_for_journal(rig: Rig, vm: Vm) -> None:
    node, path = node_container(rig.name, vm.node), f"/csv/{vm.name}/disk/journal.jsonl"
    deadline = time.monotonic() + EVENT_LIMIT_S
    seen = ""
    while True:
        try:
            if read_file(rig.client, [node], path, limit_bytes=1 << 20):
                return
        except EngineError as error:
            seen = str(error)
        assert time.monotonic() < deadline, f"waited {EVENT_LIMIT_S:g} s for the journal of {vm.name}: {seen}"


def test_vm_stopped_by_hand_is_no_longer_wanted_and_stays_stopped(rig: Rig, witness: Witness) -> None:
    vm = running(rig)["data-vm"]
    others = {name: run for name, run in runs(rig).items() if name != vm.name}
    wait_for_journal(rig, vm)  # without which nobody can tell in the end how often it ran
    stopped_ns = time.time_ns()

    rig.client.api.stop(vm.container, timeout=10)

    deadline = time.monotonic() + EVENT_LIMIT_S
    while (seen := persistent_state(group_of(rig, vm.name))) != ("Offline", 0):
        assert time.monotonic() < deadline, f"waited {EVENT_LIMIT_S:g} s for {vm.name} Offline and 0, saw {seen}"
    print(f"PersistentState 0 seen {(time.time_ns() - stopped_ns) / 1e9:.3f} s after the stop")
    expect_none_started(witness, vm.name, since_ns=stopped_ns, until_ns=time.time_ns() + 3 * 10**9)
    assert persistent_state(group_of(rig, vm.name)) == ("Offline", 0)
    assert runs(rig) == others


def test_vm_killed_through_the_engine_has_failed_and_is_restarted(rig: Rig, witness: Witness) -> None:
    _, (vm, *_) = busiest(rig)
    others = {name: run for name, run in runs(rig).items() if name != vm.name}
    killed_ns = time.time_ns()

    rig.client.api.kill(vm.container)

    expect_restart_in_place(witness, vm, died_ns=killed_ns)
    wait_settled(rig)
    assert persistent_state(group_of(rig, vm.name)) == ("Online", 1)
    assert {name: run for name, run in runs(rig).items() if name != vm.name} == others


@pytest.mark.parametrize("program", [NodeProgram.SERVICE, NodeProgram.RESOURCE_HOST, NodeProgram.VMMS])
def test_killed_process_of_a_node_stops_no_vm_and_comes_back_to_work(
    rig: Rig, witness: Witness, program: NodeProgram
) -> None:
    node, (vm, *_) = busiest(rig)
    before = runs(rig)
    epoch = group_of(rig, vm.name).epoch

    killed_ns = signal_program(rig, node, program, ProgramSignal.KILL)

    wait_settled(rig)
    print(f"whole again {(time.time_ns() - killed_ns) / 1e9:.3f} s after the kill")
    # Until lease and grace are over the node's first process may still end its VMs.
    last_ns = vms_end_by(rig, killed_ns)

    def expect_no_death() -> None:
        assert not witness.events(since_ns=killed_ns, action="die"), witness.told(killed_ns)

    witness.watch(last_ns, expect_no_death)
    assert runs(rig) == before
    expect_restart_in_place(witness, vm, died_ns=crash(rig, vm))
    wait_settled(rig)
    assert group_of(rig, vm.name).epoch == epoch
    assert {name: run for name, run in runs(rig).items() if name != vm.name} == {
        name: run for name, run in before.items() if name != vm.name
    }


@PROCESSES
def test_vm_that_crashes_while_a_process_of_its_node_is_away_is_restarted(
    rig: Rig, witness: Witness, user: int
) -> None:
    node, (vm, *_) = busiest(rig)
    others = {name: run for name, run in runs(rig).items() if name != vm.name}

    killed_ns, _ = kill_process(rig, node, user, vms=[vm])

    expect_restart_in_place(witness, vm, died_ns=killed_ns)
    wait_settled(rig)
    assert {name: run for name, run in runs(rig).items() if name != vm.name} == others


@pytest.mark.parametrize("voter", ["node1", "node2"])
def test_crashed_vm_is_restarted_while_a_voter_is_away(rig: Rig, witness: Witness, voter: str) -> None:
    """A restart is written down first, on a majority. The second voter's turn needs the first: it votes again."""
    _, (vm, *_) = busiest(rig)
    before = runs(rig)
    killed = threading.Event()

    with ThreadPoolExecutor(max_workers=1) as pool:
        killing = pool.submit(kill_process, rig, voter, VOTER, away_s=VOTER_AWAY_S, on_kill=killed.set)
        assert killed.wait(PROBE_LIMIT_S), f"waited {PROBE_LIMIT_S:g} s for the voter of {voter} to be killed"
        start = expect_restart_in_place(witness, vm, died_ns=crash(rig, vm))
        killed_ns, back_ns = killing.result()

    assert killed_ns < start.at_ns < back_ns, "the voter was back before the VM was"
    wait_settled(rig)
    assert {event.vm for event in witness.events(since_ns=killed_ns, action="die")} == {vm.name}
    assert runs(rig).keys() == before.keys()


def test_node_cut_off_ends_its_vms_in_time_and_they_run_on_the_others(rig: Rig, witness: Witness) -> None:
    node, vms = busiest(rig)
    session = session_of(rig, node)
    cut = Cut(rig, node)

    began_ns = time.time_ns()
    cut.keep()
    assert cut.lives, f"{node} could not be cut off: {cut.refusal}"
    (cut_ns,) = cut.lives.values()
    names = {vm.name for vm in vms}
    keep_until(
        cut, f"{names} on other nodes", lambda: started(witness, since_ns=cut_ns, elsewhere=node).keys() >= names
    )
    starts = started(witness, since_ns=cut_ns, elsewhere=node)
    ends = {
        name: witness.wait_event(
            f"the end of {name} on {node}",
            since_ns=began_ns,
            action="die",
            vm=name,
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

    assert max(ends.values()) <= vms_end_by(rig, cut_ns), witness.told(began_ns)
    assert dropped > 0, "the rules were not there, or nobody asked for the node"
    assert session_of(rig, node) != session
    witness.rule(rig)


def test_without_a_majority_every_node_ends_its_vms_by_itself(rig: Rig, witness: Witness) -> None:
    """Nobody can fence here, so nothing but each node's own first process ends its VMs."""
    names = running(rig).keys()
    cuts = [Cut(rig, node.name) for node in rig.topology.nodes[:-1]]
    began_ns = time.time_ns()

    in_parallel(Cut.keep, cuts)

    assert all(cut.lives for cut in cuts), f"not every node could be cut off: {[cut.refusal for cut in cuts]}"
    cut_ns = max(at_ns for cut in cuts for at_ns in cut.lives.values())
    ends = [
        witness.wait_event(f"the end of {name} without a majority", since_ns=began_ns, action="die", vm=name)
        for name in names
    ]
    last_ns = max(end.at_ns for end in ends)
    assert last_ns <= vms_end_by(rig, cut_ns), witness.told(began_ns)
    assert not [kill for kill in witness.events(since_ns=began_ns, action="kill") if kill.at_ns <= last_ns]
    in_parallel(Cut.heal, cuts)
    wait_settled(rig)
    print(f"all ended {(last_ns - cut_ns) / 1e9:.3f} s, whole {(time.time_ns() - cut_ns) / 1e9:.3f} s after the cuts")
    witness.rule(rig)


@pytest.mark.parametrize("moment", ["die", "start"])
def test_node_whose_power_goes_while_its_vms_start_comes_back_and_nothing_runs_twice(
    rig: Rig, witness: Witness, moment: str
) -> None:
    """Cut as soon as the engine tells that the first VM has ended, or that it starts again."""
    node, vms = busiest(rig)
    session = session_of(rig, node)
    began_ns = time.time_ns()

    with ThreadPoolExecutor(max_workers=1) as pool:
        crashing = pool.submit(in_parallel, lambda vm: crash(rig, vm), vms)
        seen = witness.wait_event("the VM's " + moment, since_ns=began_ns, action=moment, node=node)
        # The kernel takes the VMs with the node. Killing these as well, as `power_off` does, takes longer.
        rig.client.api.kill(node_container(rig.name, node))
        crashing.exception()  # the power went while the second one was being crashed: so be it
    off_ns = witness.wait_event(
        f"{node} to die", since_ns=began_ns, action="die", role=ContainerRole.NODE, node=node
    ).at_ns
    print(f"{node} died {(off_ns - seen.at_ns) / 1e9:.3f} s after {seen.action} of {seen.vm}")

    on = witness.wait_event(
        f"{node} to be on again", since_ns=off_ns, action="start", role=ContainerRole.NODE, node=node
    )
    for vm in vms:
        start = witness.wait_event(
            f"{vm.name} on another node", since_ns=off_ns, action="start", vm=vm.name, elsewhere=node
        )
        print(f"{vm.name} on {start.node} {(start.at_ns - off_ns) / 1e9:.3f} s after the power was off")
    wait_settled(rig)
    print(f"{node} on {(on.at_ns - off_ns) / 1e9:.3f} s, whole {(time.time_ns() - off_ns) / 1e9:.3f} s after that")
    assert session_of(rig, node) != session
    witness.rule(rig)


def test_in_the_end_all_is_online_nothing_ever_ran_twice_and_nothing_is_left(rig: Rig, witness: Witness) -> None:
    stops = witness.events(since_ns=0, action="stop")
    assert running(rig).keys() == set(VMS) - {stop.vm for stop in stops}
    for stop in stops:
        assert persistent_state(group_of(rig, stop.vm)) == ("Offline", 0)
        expect_none_started(witness, stop.vm, since_ns=stop.at_ns, until_ns=0)
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


def vms_end_by(rig: Rig, cut_ns: int) -> int:
    """Until when a node that was cut off then must have ended its VMs, and the engine have told it."""
    settings = rig.topology.settings
    return cut_ns + (settings.lease_us + settings.grace_us) * 1000 + int(EVENT_LAG_S * 1e9)


def session_of(rig: Rig, node: str) -> str:
    return next(seen.session for seen in rig.standing().nodes if seen.name == node)


def started(witness: Witness, *, since_ns: int, elsewhere: str) -> dict[str, int]:
    """When each VM was first started on another node than that."""
    events = witness.events(since_ns=since_ns, action="start")
    return {event.vm: event.at_ns for event in reversed(events) if event.node != elsewhere}


def expect_none_started(witness: Witness, vm: str, *, since_ns: int, until_ns: int) -> None:
    def look() -> None:
        starts = [event for event in witness.events(since_ns=since_ns, action="start") if event.vm == vm]
        assert not starts, f"{vm} was stopped by hand and started again: {starts}"

    witness.watch(until_ns, look)


def expect_none_started_on(witness: Witness, node: str, *, since_ns: int) -> None:
    starts = [event for event in witness.events(since_ns=since_ns, action="start") if event.node == node]
    assert not starts, f"{node}, cut off, started VMs: {witness.told(since_ns)}"
