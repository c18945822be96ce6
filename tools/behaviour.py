#!/usr/bin/env python3
"""Records what the schedules of a search do, free of names, to compare two versions of the code.

    python tools/behaviour.py --runs 300 > before.json     record, one line for each seed
    python tools/behaviour.py --runs 300 --compare before.json
                                                           end with 1 and name the seeds that differ

A record holds times, nodes, register keys and versions, the numbers of violations, and a digest of the state in which
the schedule left the simulator's random numbers. It holds no text of a message and no name of a fault, so that a
refactoring which changes only names gives the same bytes.
"""

import argparse
import hashlib
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from chaos.search.search import play, schedule_of
from harness.simulation.faults.schedule import Outcome
from harness.simulation.world.world import World

MAX_SHOWN = 10
"""Differing seeds that are named."""


def main() -> int:
    """Record, or compare with a recording. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="Number of schedules.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the first schedule.")
    parser.add_argument("--jobs", type=int, default=2, help="Parallel processes.")
    parser.add_argument("--compare", type=Path, help="A recording to compare with.")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.runs)
    with ProcessPoolExecutor(options.jobs) as pool:
        lines = [json.dumps(record, sort_keys=True) for record in pool.map(behaviour, seeds, chunksize=5)]
    if options.compare is None:
        print("\n".join(lines))
        return 0
    recorded = options.compare.read_text().splitlines()
    differing = [line for line in lines if line not in recorded]
    for line in differing[:MAX_SHOWN]:
        record = json.loads(line)
        before = next((old for old in map(json.loads, recorded) if old["seed"] == record["seed"]), {})
        parts = [part for part in record if record[part] != before.get(part)]
        print(f"seed {record['seed']}: {', '.join(parts)} differ", file=sys.stderr)
    print(f"{len(lines) - len(differing)} of {len(lines)} schedules behave as recorded")
    return 1 if differing else 0


def behaviour(seed: int) -> dict[str, Any]:
    """What the schedule of that seed does, as plain values."""
    chosen: list[tuple[int, str, int]] = []
    create = World.__init__

    def observed(world: World, *arguments: Any, **options: Any) -> None:
        create(world, *arguments, **options)
        world.chosen.on_chosen.append(
            lambda key, _, newer: chosen.append((world.clock.now_us, key, newer.version))
        )

    World.__init__ = observed  # type: ignore[method-assign]
    try:
        outcome = play(schedule_of(seed))
    finally:
        World.__init__ = create  # type: ignore[method-assign]
    return {"seed": seed, "chosen": chosen, **_of_outcome(outcome)}


def _of_outcome(outcome: Outcome) -> dict[str, Any]:
    world = outcome.world
    return {
        "plan": [(fault.at_us, fault.target, fault.duration_us) for fault in outcome.plan],
        "vms": [
            (line.at_us, line.node, line.fields["vm"], line.event.endswith("started"))
            for line in world.trace
            if line.event in ("vm-started", "vm-ended")
        ],
        "trace": _digest([(line.at_us, line.node) for line in world.trace]),
        "end_us": world.clock.now_us,
        "violations": len(outcome.violations),
        "unconverged": len(outcome.unconverged),
        "defect": outcome.defect is not None,
        "random": _digest(world.rng.getstate()),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
