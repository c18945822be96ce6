"""Writes docs/searched.md from what `blackstart search --json` told: what was searched, and where faults struck.

`make search-long` runs both.
"""

import json
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from chaos.search.search import covered

__all__ = ["render"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "searched.md"

HEAD = """\
# What was searched

`blackstart search --runs {runs} --seed {seed}` with version {version}: seeds {seed} to {last}, {pace:.0f} schedules a
minute on two processors, {result}. The rigs are drawn: two nodes and a witness to five nodes, two to
six groups. Written by `make search-long`; how a search works: [search.md](search.md).

How often each kind of fault struck, by what the cluster was at, and by what its target was: off or frozen, no member of
the cluster, the first whose turn it is to act, an owner of groups, idle; a VM that was not running.
"""


def render(told: dict[str, Any], *, seed: int) -> str:
    """The page."""
    runs = told["runs"]
    result = f"broken by seed {told['seed']}" if told["broken"] else "and nothing broke"
    page = HEAD.format(
        runs=runs,
        seed=seed,
        last=seed + runs - 1,
        version=metadata.version("blackstart"),
        pace=told["runs_per_minute"],
        result=result,
    )
    for what in ("situation", "role"):
        page += "\n" + _table(told["coverage"], what)
    return page + "\n" + _missing(told["coverage"])


def _table(coverage: list[dict[str, Any]], what: str) -> str:
    keyed = Counter({(entry["fault"], entry["situation"], entry["role"]): entry["times"] for entry in coverage})
    words, rows = covered(keyed, 1 if what == "situation" else 2)
    lines = [f"| Fault | {' | '.join(words)} |", "|---" * (len(words) + 1) + "|"]
    lines += [f"| `{kind}` | {' | '.join(counts)} |" for kind, *counts in rows]
    return "\n".join(lines) + "\n"


def _missing(coverage: list[dict[str, Any]]) -> str:
    """The combinations of all three that never came up, as far as each pair of them did."""
    met = {(entry["fault"], entry["situation"], entry["role"]) for entry in coverage}
    lines = []
    for kind in sorted({kind for kind, _, _ in met}):
        alike = {entry for entry in met if entry[0].startswith("vm.") == kind.startswith("vm.")}
        places = sorted({(situation, role) for _, situation, role in alike})
        never = [f"{role} during {situation}" for situation, role in places if (kind, situation, role) not in met]
        if never:
            lines.append(f"- `{kind}`: {', '.join(never)}")
    if not lines:
        return "Every kind of fault struck in every situation and role that came up.\n"
    return "What never came up together, of the situations and roles that did:\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(json.load(sys.stdin), seed=int(sys.argv[1])), encoding="utf-8")
    sys.stdout.write(f"written: {PAGE.name}\n")
