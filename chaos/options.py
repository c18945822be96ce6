"""How a run is to be made: what the command line and the tests may choose."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ARENAS", "RunOptions"]

ARENAS = ("docker", "sim")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """`out` gets the journal and the evidence; `state` gets the ledgers, which must survive the run.

    `rig` names the rig to make, `on_rig` one that stands already and is left standing. `journal` is a further place for
    `journal.json`. `dry` reads the files, says what would be done and does nothing. `seed` decides where a target
    leaves a choice (a minority, three of five).
    """

    arena: str = "docker"
    out: Path = Path("out")
    state: Path = Path(".blackstart")
    rig: str | None = None
    on_rig: str | None = None
    keep_rig: bool = False
    journal: Path | None = None
    dry: bool = False
    seed: int = 0
