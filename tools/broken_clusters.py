"""Writes docs/broken-clusters.md: which broken cluster the search finds, and how soon.

`make search-table`: a minute or two.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

from harness.simulation.plants import PLANTS, Plant
from harness.simulation.plants_of_rules import PLANTS_OF_RULES
from harness.simulation.schedule import run_schedule, small_topology

__all__ = ["BROKEN_CLUSTERS", "render"]

BROKEN_CLUSTERS = (*PLANTS, *PLANTS_OF_RULES)
BUDGET = 400
PAGE = Path(__file__).resolve().parents[1] / "docs" / "broken-clusters.md"

HEAD = """\
# Broken clusters

Each line is a cluster with one rule weakened, as a composition of the simulated world that no production path knows.
The same random search that passes the healthy cluster runs against it, seeds from 0, three nodes and four groups, until
a watcher tells of a violation. Written by `make search-table` with version {version};
`tests/simulation/test_schedules.py` runs the same, with a budget of {budget} schedules.

| Broken cluster | The rule, and where it comes from | Fencing | Schedules until found | What was seen first |
|---|---|---|---|---|
"""

FOOT = """
## Weakened, and not found

- **The executor ignores `not_after`, session and epoch**: no schedule reaches the check (docs/design/0002); it has
  direct tests in `tests/unit/test_vmms_machines.py`.
- **A stale read decides** (a read believes the first voter that answers): nothing in 800 schedules, and none is
  expected. What is read chooses what to try; what is changed is the record that is read under the change's own ballot.
- **A ballot is used twice**: planted in the proposer, found by its own random schedules
  (`tests/unit/test_proposer.py`).
- **The rules of the voter set** (five of them): found by `tests/unit/test_set_change.py`.
- **Doubt about an unknown change is ended by a plain read**: direct tests in `tests/unit/test_database_manager.py`.
"""


def found(plant: type[Plant]) -> tuple[int, str]:
    """How many schedules it took, and the first violation; 0 when the budget did not do."""
    for seed in range(BUDGET):
        topology = small_topology(fencing=plant.fencing)
        outcome = run_schedule(seed, topology=topology, composition=plant(), among=plant.among)
        if outcome.violations:
            return seed + 1, outcome.violations[0]
    return 0, "nothing"


def render() -> str:
    """The page, after the search."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        rows = zip(BROKEN_CLUSTERS, pool.map(found, BROKEN_CLUSTERS), strict=True)
        lines = [_line(plant, schedules, seen) for plant, (schedules, seen) in rows]
    return HEAD.format(version=metadata.version("blackstart"), budget=BUDGET) + "".join(lines) + FOOT


def _line(plant: type[Plant], schedules: int, seen: str) -> str:
    rule = " ".join((plant.__doc__ or "").split())
    mix = ", faults on voters" if plant.among else ""
    return f"| `{plant.__name__}` | {rule} | {plant.fencing}{mix} | {schedules or 'not found'} | {seen} |\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"written: {PAGE.name}\n")
