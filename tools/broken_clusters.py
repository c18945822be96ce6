"""Writes docs/broken-clusters.md, and a minimal schedule for each broken cluster beside its tests.

`make search-table`: some fifteen minutes.
"""

import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from chaos.search.rig_generator import FAILOVERS_ENOUGH
from chaos.search.schedule_file import Schedule, write_schedule
from chaos.search.search import Search, broken_by, play
from chaos.search.shrinker import Shrinking
from harness.simulation.plants import PLANTS, Plant
from harness.simulation.plants_of_belief import PLANTS_OF_BELIEF
from harness.simulation.plants_of_hosts import PLANTS_OF_HOSTS
from harness.simulation.plants_of_nodes import PLANTS_OF_NODES
from harness.simulation.plants_of_places import PLANTS_OF_PLACES
from harness.simulation.plants_of_policy import PLANTS_OF_POLICY
from harness.simulation.plants_of_recovery import PLANTS_OF_RECOVERY
from harness.simulation.plants_of_rounds import PLANTS_OF_ROUNDS
from harness.simulation.plants_of_rules import PLANTS_OF_RULES

__all__ = ["BROKEN_CLUSTERS", "BUDGET", "SCHEDULES", "rig_of", "search"]

BROKEN_CLUSTERS = (
    *PLANTS,
    *PLANTS_OF_RULES,
    *PLANTS_OF_BELIEF,
    *PLANTS_OF_POLICY,
    *PLANTS_OF_PLACES,
    *PLANTS_OF_ROUNDS,
    *PLANTS_OF_RECOVERY,
    *PLANTS_OF_NODES,
    *PLANTS_OF_HOSTS,
)
BUDGET = 2000
"""Schedules within which each must be found."""
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "broken-clusters.md"
SCHEDULES = ROOT / "tests" / "simulation" / "broken_clusters"

HEAD = """\
# Broken clusters

Each line is a cluster with one rule weakened, as a composition of the simulated world that no production path knows.
The same search that passes the healthy cluster, with the same mix of faults for all, runs against it: seeds from 0,
three nodes and four groups, or as many as it takes (with the policy that is ignored, where it is one), until a watcher
tells of a violation.
`shrink` then makes the schedule as small as it can; the files are in `tests/simulation/broken_clusters/`. Written by
`make search-table` with version {version}; `tests/simulation/test_broken_clusters.py` plays the small schedules against
the broken and the healthy cluster; its long tests search for each within {budget} schedules.

| Broken cluster | The rule, and where it comes from | Fencing | Schedules | Minimal schedule | Seen |
|---|---|---|---|---|---|
"""

@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a search against one broken cluster came to. `schedules` is 0 when the budget did not do."""

    name: str
    schedules: int
    minimal: Schedule | None
    seen: str


def rig_of(plant: type[Plant]) -> Mapping[str, Any]:
    """The document of the rig in which a broken cluster is searched."""
    return {
        "nodes": plant.nodes,
        "settings": {"fencing": plant.fencing.value},
        "groups": [_group(number, plant) for number in range(1, plant.groups + 1)],
    }


def _group(number: int, plant: type[Plant]) -> Mapping[str, Any]:
    vm, ip = f"vm{number}", f"ip{number}"
    policy = {"restart-threshold": 1, "restart-period": "10s", **plant.vm}
    names = (ip, f"{ip}-b")[: 1 + plant.second_address]
    addresses = [{"name": name, "type": "ip-address", **plant.address} for name in names]
    needs = " or ".join(f"[{address['name']}]" for address in addresses)
    vm = {"name": vm, "type": "virtual-machine", "depends-on": needs, **policy}
    said = {**plant.group, **(plant.last_group if number == plant.groups else {})}
    return {"name": f"web{number}", "failover-threshold": FAILOVERS_ENOUGH, **said, "resources": [*addresses, vm]}


def search(plant: type[Plant], budget: int = BUDGET) -> tuple[int, Schedule | None]:
    """How many schedules it took until a watcher told of a violation, and the schedule; where none did, until the
    cluster did not come to rest. 0 and None when the budget did not do.
    """
    restless: tuple[int, Schedule | None] = (0, None)
    seed = 0
    while seed < budget:
        left = budget - seed
        hunt = Search(first_seed=seed, rig=rig_of(plant), parts=plant)
        failure = hunt.search(lambda hunt, left=left: hunt.runs < left).failure  # type: ignore[misc]
        seed += hunt.runs
        if failure is None:
            break
        if failure.defect:
            raise RuntimeError(f"{plant.__name__}, seed {failure.schedule.seed}: {failure.broken[0]}")
        if not failure.unconverged or plant.unrest:
            return seed, failure.schedule
        restless = restless if restless[1] is not None else (seed, failure.schedule)
    return restless


def row(plant: type[Plant]) -> Row:
    """Search for it, and make small what was found."""
    schedules, schedule = search(plant)
    if schedule is None:
        return Row(name=plant.__name__, schedules=0, minimal=None, seen="nothing")
    minimal = Shrinking(schedule, say=lambda _text: None, parts=plant).shrink()
    return Row(name=plant.__name__, schedules=schedules, minimal=minimal, seen=broken_by(play(minimal, plant))[0])


def write(rows: Mapping[str, Row]) -> None:
    """The page and the files."""
    page = HEAD.format(version=metadata.version("blackstart"), budget=BUDGET)
    SCHEDULES.mkdir(exist_ok=True)
    for stale in SCHEDULES.glob("*.yaml"):
        stale.unlink()
    for plant in BROKEN_CLUSTERS:
        found = rows[plant.__name__]
        page += (
            f"| `{found.name}` | {_told(plant)} | {plant.fencing} | {found.schedules or 'not found'} | "
            f"{_faults(found.minimal)} | {found.seen} |\n"
        )
        if found.minimal is not None:
            text = write_schedule(found.minimal, remarks=[_told(plant), found.seen])
            (SCHEDULES / f"{found.name}.yaml").write_text(text, encoding="utf-8")
    PAGE.write_text(page, encoding="utf-8")


def _told(plant: type[Plant]) -> str:
    return " ".join((plant.__doc__ or "").split())


def _faults(schedule: Schedule | None) -> str:
    if schedule is None:
        return ""
    faults = "; ".join(f"{fault.kind} {fault.target}" for fault in schedule.faults) or "no fault at all"
    return f"{faults} (of {schedule.rig['nodes']} nodes, {len(schedule.rig['groups'])} groups)"


def main() -> int:
    """All of it, with two processes."""
    rows = {}
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for found in pool.map(row, BROKEN_CLUSTERS):
            sys.stdout.write(f"{found.name}: {found.schedules or 'not found'}\n")
            sys.stdout.flush()
            rows[found.name] = found
    write(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
