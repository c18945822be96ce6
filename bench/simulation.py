"""How many random schedules a minute the simulator runs, and what it takes to hold many nodes and VMs.

Needs no engine. A schedule here is five nodes with a vote each, twenty VMs, 120 simulated seconds and ten faults
of the default mix, with every watcher and the whole record of events.
"""

import random
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import docker

from bench.figure import Figure, Goal, GoalKind, alternate
from chaos.search.rig_generator import FAILOVERS_ENOUGH
from chaos.search.schedule_file import Schedule
from chaos.search.search import play
from harness.model.topology import SECOND_US
from harness.simulation.faults.schedule import plan
from harness.simulation.kernel.deferred_gc import collected_later
from harness.simulation.kernel.runtime import VirtualClock
from harness.simulation.world.fault_kinds import Planned

__all__ = ["schedules", "ten_faults"]

PROCESSES = 2
A_ROUND = 10
"""Schedules of one round: each process gets as many as the other."""
LENGTH_US = 120 * SECOND_US
FAULTS = 10
RIG = {
    "nodes": 5,
    "groups": [
        {
            "name": f"web{number}",
            "failover-threshold": FAILOVERS_ENOUGH,
            "resources": [
                {"name": f"web{number}-ip", "type": "ip-address"},
                {"name": f"web{number}-vm", "type": "virtual-machine", "depends-on": [f"web{number}-ip"]},
            ],
        }
        for number in range(1, 21)
    ],
}


def schedules(_client: docker.DockerClient, rounds: int) -> list[Figure]:
    """Seconds a schedule, with two processes at work, against a heap on which as much happens and nothing is done."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        happened = list(pool.map(_run, range(PROCESSES)))  # also the time in which the processes start

        def ours(number: int) -> float:
            first = number * A_ROUND
            began = time.perf_counter()
            happened[:] = pool.map(_run, range(first, first + A_ROUND))
            return (time.perf_counter() - began) / A_ROUND

        found = alternate(rounds, {"ours": ours, "floor": lambda _: _bare(sum(happened) // len(happened)) / PROCESSES})
    figure = Figure(
        title="a schedule in the simulator",
        unit="s",
        measured=found["ours"],
        floor=found["floor"],
        goal=Goal(kind=GoalKind.MEDIAN, limit=60 / 300),
        how="Five nodes, twenty VMs, 120 simulated seconds, ten faults of the default mix, every watcher and the "
        f"record of events; seconds for each of {A_ROUND}, by two processes: 0.2 s are 300 a minute.",
        floor_is="as many callbacks on the same heap that do nothing, by two processes as well.",
    )
    return [figure]


def ten_faults(seed: int) -> Schedule:
    """The schedule of that seed: ten faults of the default mix, out of as many draws as it takes."""
    rng = random.Random(seed)
    schedule = Schedule(seed=seed, rig=RIG, faults=())
    topology = schedule.topology
    faults: list[Planned] = []
    while len(faults) < FAULTS:
        faults += plan(rng, topology)
    kept = sorted(faults[:FAULTS], key=lambda fault: fault.at_us)
    return Schedule(seed=seed, rig=RIG, faults=tuple(kept))


def _run(seed: int) -> int:
    """How many callbacks it took. A schedule that breaks something measures nothing."""
    with collected_later():
        outcome = play(ten_faults(seed))
        if outcome.broken:
            raise AssertionError(f"seed {seed} breaks {outcome.violations or outcome.unconverged}")
        world = outcome.world
        world.run(LENGTH_US - world.clock.now_us)
    return world.clock.scheduled


def _bare(callbacks: int) -> float:
    clock = VirtualClock()
    began = time.perf_counter()
    for number in range(callbacks):
        clock.at(number, _nothing)
    clock.run_until(callbacks)
    return time.perf_counter() - began


def _nothing() -> None:
    pass
