"""An experiment and its seed, out of the journal of a run."""

import json
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import yaml

from harness.document.refusals import shown, visible
from harness.errors import UsageError

__all__ = ["PastRun", "is_journal", "read_past_run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """What makes a run what it is: the experiment's file, the seed, the name of the rig."""

    experiment: str
    seed: int
    rig: str


def is_journal(text: str) -> bool:
    """Whether it is the journal of a run, whatever its version, and not a file that a person writes."""
    return text.lstrip().startswith("{") and '"chaoslib-version"' in text


def read_past_run(text: str, *, name: str) -> PastRun:
    """The run that the journal tells of. Raises UsageError for a journal that is damaged or of another version: the
    same seed would be another run.
    """
    try:
        journal: Any = json.loads(text)
        about = journal["blackstart"]
        version, seed, rig = str(about["version"]), int(about["seed"]), str(about["rig"])
        experiment = yaml.safe_dump(journal["experiment"], sort_keys=False, allow_unicode=True)
    except (ValueError, OverflowError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{name}: no whole journal of a run ({shown(error)}), expected journal.json") from error
    here = metadata.version("blackstart")
    if version != here:
        found = f"a journal of version {visible(version[:60])}"
        raise UsageError(f"{name}: {found}, expected {here}: another version makes another run")
    return PastRun(experiment=experiment, seed=seed, rig=rig)
